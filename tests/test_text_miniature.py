"""The text miniature from generated sentences to the report, as in the tutorial, but with two models and few texts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pico import modelsoups

from modelsoups.config.compose import load
from modelsoups.disk import storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.miniature.text import sets
from modelsoups.stages import prepare

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
COMMANDS = {
    "acceptability": "modelsoups experiment=text-miniature",
    "paraphrase": "modelsoups experiment=text-miniature data=phrases_paraphrase",
}
SCORES = {"acceptability": "matthews", "paraphrase": "accuracy_f1"}


@pytest.mark.parametrize("task", COMMANDS)
def test_the_tutorial_has_the_command_of_each_task(task):
    assert f"\n{COMMANDS[task]}\n" in TUTORIAL.read_text(encoding="utf-8")
    config = load(COMMANDS[task].split()[1:])
    assert (config.data.text.phrases, config.data.text.score) == (task, SCORES[task])
    assert config.name == f"text-miniature-{task}"


@pytest.fixture
def few(monkeypatch):
    """Each generated set has 64 examples."""
    monkeypatch.setattr(sets, "SETS", {name: replace(one, count=64) for name, one in sets.SETS.items()})
    sets.generate.cache_clear()
    yield
    sets.generate.cache_clear()


def test_a_run_makes_the_report(tmp_path, few):
    task = "paraphrase"  # test_text_pipeline.py trains on the sentences of the other task
    small = [
        "sweep.count=2",
        "soup.orders=1",
        "soup.learned_epochs=1",
        "wandb=disabled",
        f"data.dir={tmp_path / 'data'}",
    ]
    command = [*COMMANDS[task].split()[1:], *small]
    assert prepare.run(Experiment(load(command)))  # the run below takes these sets for complete
    done = modelsoups(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "prepare: complete" in done.stdout
    results = tmp_path / "results" / f"text-miniature-{task}"
    assert (results / "index.html").exists()
    rows = {json.loads(line).get("row") for line in (results / "results.jsonl").read_text().splitlines()}
    assert {"best", "uniform", "greedy", "ensemble"} <= rows
    draw = storage.read_jsonl(tmp_path / "runs" / f"text-miniature-{task}" / "draw.jsonl")
    assert len({json.dumps(recipe) for recipe in draw}) == 2
