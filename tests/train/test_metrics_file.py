"""The rows of metrics.jsonl: when they are complete, and what they measure."""

import errno
import json
from types import SimpleNamespace

import pytest
import torch

from modelsoups.config.schema import FinetuneConfig
from modelsoups.train import metrics_file
from modelsoups.train.device import device_of


def test_a_row_counts_the_images_since_the_row_before(tmp_path):
    recipe, device = SimpleNamespace(batch_size=8), device_of(FinetuneConfig(), torch.device("cpu"))
    metrics = metrics_file.MetricsFile(tmp_path / "metrics.jsonl", recipe, None, device, ranks=2)
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
        assert (timing["ranks"], timing["images_per_second"], timing["shares"]) == (2, 4.0 * step, {"forward": 1.0})
        images = 8 if step == 1 else 16
        assert timing["recent_images_per_second"] == pytest.approx(images / (marks[1][1] - marks[0][1]), rel=1e-3)


def test_a_full_disk_names_the_metrics(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match=r"could not write .*metrics\.jsonl: No space left on device"):
        metrics_file.append(tmp_path / "metrics.jsonl", {"step": 1})
