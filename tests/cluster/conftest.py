"""The run that the tests of plan and status fill by hand."""

import pytest
from pico import SEARCH

from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import sweep


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """Five recipes of four epochs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pico.yaml").write_text(SEARCH)
    made = load(["sweep.search=pico.yaml", "recipe.epochs=4", "recipe.batch_size=10", "sweep.count=6", "name=x"])
    sweep.run(Experiment(made))
    return made
