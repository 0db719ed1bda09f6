"""A thousand ingredients: the cost of submit, status and the locks grows with their number, not with its square."""

import os
import runpy
from pathlib import Path

import pytest

scale = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/scale.py"))


def test_a_thousand_ingredients_are_no_trouble(monkeypatch, capsys):
    monkeypatch.setenv("PATH", os.environ["PATH"])  # the benchmark puts its own squeue first
    for _ in range(3):  # another process may slow down one measurement, but not all
        few, many = scale["measure"](100), scale["measure"](1000)
        assert many.keys() == few.keys() == {"draw and folders", "squeue", "status", "submit", "locks"}
        slow = {name: (few[name], many[name]) for name in many if many[name] >= 4 * 10 * max(few[name], 0.05)}
        if not slow:
            break
    assert not slow
    assert "1000 ingredients: 333 complete" in capsys.readouterr().out


@pytest.mark.parametrize("count", [7])
def test_the_benchmark_measures_a_sweep_that_is_half_way(count, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.environ["PATH"])
    cfg = scale["make"](tmp_path, count)
    states = [s.state for s in scale["status"].scan(cfg.run, scale["Experiment"](cfg).draw.recipes(), [])]
    assert states == ["stopped", "done", "stopped", "done", "not started", "not started", "not started"]
