"""The text miniature from generated sentences to the report, as the tutorial has it, but with two models."""

import json
from pathlib import Path

import pytest
from pico import modelsoups

from modelsoups.config.compose import load
from modelsoups.disk import storage

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


@pytest.mark.parametrize("task", COMMANDS)
def test_a_run_makes_the_report(task, tmp_path):
    small = ["sweep.count=2", "soup.orders=1", "soup.learned_epochs=1", "wandb=disabled"]
    done = modelsoups(tmp_path, *COMMANDS[task].split()[1:], *small)
    assert done.returncode == 0, done.stderr
    results = tmp_path / "results" / f"text-miniature-{task}"
    assert (results / "index.html").exists()
    rows = {json.loads(line).get("row") for line in (results / "results.jsonl").read_text().splitlines()}
    assert {"best", "uniform", "greedy", "ensemble"} <= rows
    draw = storage.read_jsonl(tmp_path / "runs" / f"text-miniature-{task}" / "draw.jsonl")
    assert len({json.dumps(recipe) for recipe in draw}) == 2
