"""From FMoW's files to the report: soups are chosen and reported by the accuracy of the worst region."""

import json

import pytest
import wilds_files
from tiny import tiny_clip

from modelsoups.cli import commands, pipeline
from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import soup

SEARCH = """
kind: random
count: 2
parameters:
  lr: {log10_uniform: [-5, -4]}
  weight_decay: {constant: 0.1}
  label_smoothing: {constant: 0.0}
  epochs: {constant: 1}
  mixup: {constant: 0.0}
  aug: {constant: minimal}
"""
SMALL = [
    "data.check_counts=false", "data.workers=1", "recipe.batch_size=2", "recipe.warmup_steps=1", "finetune.parallel=1",
    "soup.orders=1", "soup.learned_epochs=1", "evaluate.wise_ft=[0.5]", "heads.lp_epochs=1", "wandb=disabled",
]  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    home = tmp_path_factory.mktemp("fmow")
    wilds_files.fmow(home)
    (home / "search.yaml").write_text(SEARCH)
    places = [f"data.root={home}", f"data.dir={home}/shards", f"runs={home}/run", f"results={home}/results"]
    options = [*tiny_clip(home / "clip"), *places, f"sweep.search={home}/search.yaml", "name=fmow", *SMALL]
    cfg = load(["experiment=wilds", *options])
    pipeline.run_stages(commands.modules_of(list(commands.STAGES)), cfg)
    return cfg


def test_every_result_is_the_accuracy_of_the_worst_region(done):
    lines = [json.loads(line) for line in (done.run.results / "results.jsonl").read_text().splitlines()]
    about = next(line["experiment"] for line in lines if "experiment" in line)
    assert about["score"] == {"name": "worst-group accuracy", "unit": "images", **about["score"]}
    experiment = Experiment(done)
    dataset, task = experiment.sets["test"], experiment.task
    for name, ingredient in zip(("000", "001"), experiment.ingredients.find().ingredients, strict=True):
        logits = experiment.logits.of("test", ingredient.sha256)
        expected = task.score(task.outcomes_on(dataset, logits.logits_NC, logits.labels_N))
        found = next(x for x in lines if x.get("row") == name and x.get("dataset") == "test")
        assert (found["accuracy"], found["n"], found["correct"]) == (expected, 3, 0)
    table = (done.run.results / "table_3.md").read_text()
    assert "worst-group accuracy" in table
    assert "Paper" not in table  # its Table 3 is of ImageNet
    assert experiment.soup_inputs(experiment.ingredients.find().ingredients)["score"] == "worst_group"


def test_another_score_chooses_the_soups_again(done, capsys):
    assert not soup.run(Experiment(done))
    other = load(["data.score=accuracy", *done.overrides])
    assert "score" not in Experiment(other).soup_inputs(Experiment(other).ingredients.find().ingredients)
