"""Members are compared with hyperparameters, and pools have configurations of their own."""

import pytest

from modelsoups.analyses.members import open_pool
from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment


def test_a_member_has_what_its_recipe_says(bench):
    member = bench.pool("sam")[1]
    assert (member.name, member.init, member.average) == ("sam/001", "lp", "")
    assert member.has({"lr": 1e-3 * (1 + 1e-9), "sam": 0.05, "aug": "medium"})
    assert not member.has({"lr": 1e-3 * (1 + 1e-4)})
    assert not member.has({"seed": 1})


def test_an_average_along_a_run_is_not_what_its_recipe_says(bench):
    members = bench.pool("trajectory", averages=True)
    averages = [m for m in members if m.average]
    assert {m.average for m in averages} >= {"ema-0.9"}
    assert not averages[0].has({"lr": 3.3e-4})


def test_a_pool_with_a_wrong_key_is_told(analysed, monkeypatch):
    _, args, home = analysed
    monkeypatch.chdir(home)
    cfg = load(args)
    cfg.analyse.pools["bad"] = ["recipe.lrr=1"]
    with pytest.raises(ValueError, match=r"analyse\.pools\.bad: no such key: recipe\.lrr"):
        open_pool(Experiment(cfg), "bad")
