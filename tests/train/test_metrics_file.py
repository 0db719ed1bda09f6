"""The rows of metrics.jsonl: when they are complete, and what they measure."""

import errno
import json
import math
from types import SimpleNamespace

import pytest
import torch

from modelsoups.config.schema import FinetuneConfig
from modelsoups.train import metrics_file
from modelsoups.train.device import device_of


@pytest.mark.parametrize("unit", ["images", "examples"])
def test_a_row_counts_the_examples_since_the_row_before_in_the_unit_of_the_task(tmp_path, unit):
    recipe, device = SimpleNamespace(batch_size=8), device_of(FinetuneConfig(), torch.device("cpu"))
    task = SimpleNamespace(unit=unit)
    metrics = metrics_file.MetricsFile(tmp_path / "metrics.jsonl", recipe, None, task, device, ranks=2)
    assert metrics.arrived() is None
    metrics.clock.mark("other")
    for step, loss in ((1, 4.0), (3, 2.0)):
        metrics.clock.mark("forward")
        metrics.begin(step, step / 5, 0.1, 2.0, torch.tensor(loss))
        marks = metrics.begun.marks
        assert metrics.arrived() == (step, loss)
        metrics.write()
        assert metrics.arrived() is None
        row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
        timing = row.pop("timing")
        assert row == {"step": step, "epoch": step / 5, "loss": loss, "lr": 0.1}
        assert (timing["ranks"], timing[f"{unit}_per_second"], timing["shares"]) == (2, 4.0 * step, {"forward": 1.0})
        count = 8 if step == 1 else 16
        assert timing[f"recent_{unit}_per_second"] == pytest.approx(count / (marks[1][1] - marks[0][1]), rel=1e-3)


def test_a_full_disk_names_the_metrics(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match=r"could not write .*metrics\.jsonl: No space left on device"):
        metrics_file.append(tmp_path / "metrics.jsonl", {"step": 1})


def test_a_loss_diverges_when_it_stays_far_above_chance_and_above_its_beginning():
    def told(*losses, chance=2.0, patience=3):
        check = metrics_file.DivergenceCheck(chance, patience)
        return [check.reason(step, loss) for step, loss in enumerate(losses, 1)]

    assert told(1.0, 7, 7, 7, 7)[:4] == [None] * 4  # the limit is 3 * 2
    assert told(1.0, 7, 7, 7, 7)[4] == "the loss diverged: above 6 since step 2, and 7 at step 5"
    assert told(1.0, 7, 7, 7, 5, 7, 7, 7) == [None] * 8  # spikes
    assert told(1.0, 1e9, 2.0, 1e9, 1e9, 2.0) == [None] * 6
    assert told(50.0, *[149] * 9) == [None] * 10  # it began so high: zero-shot logits under binary cross-entropy
    assert told(50.0, *[151] * 4)[4] is not None
    assert told(1.0, math.inf)[1] == "the loss is inf at step 2"
    assert told(*[5.9] * 99) == [None] * 99
