"""Appendix G from the official files to the report, with tiny models: wilds, paper-cifar10 and imagenet-22k."""

import json

import cifar_files
import layouts
import pytest
import wilds_files
from tiny import tiny_clip

from modelsoups.cli import commands, pipeline
from modelsoups.cluster import submit
from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment

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
    "data.holdout_per_class=2",
]  # fmt: skip
TIMM = ["model.name=test_resnet", "model.tag=null", "model.image_size=32"]


def cifar(root):
    cifar_files.write_batches(root)
    cifar_files.write_new_test_set(root)


def imagenet(root):
    layouts.shift_sets(layouts.originals(root, "folder"))


EXPERIMENTS = {  # arguments -> who writes the files, test set, its shift, and words of the score
    "experiment=wilds data=iwildcam": (wilds_files.iwildcam, "iWildCam ID test", "iWildCam OOD test", "macro F1"),
    "experiment=paper-cifar10": (cifar, "CIFAR-10", "CIFAR-10.1", "accuracy"),
    "experiment=imagenet-22k": (imagenet, "ImageNet", "ImageNet-V2", "accuracy"),
}


@pytest.mark.parametrize("arguments", EXPERIMENTS)
def test_each_experiment_runs_from_the_official_files_to_its_figure(arguments, tmp_path):
    write, test, shift, score = EXPERIMENTS[arguments]
    write(tmp_path)
    (tmp_path / "search.yaml").write_text(SEARCH)
    places = [f"data.root={tmp_path}", f"data.dir={tmp_path}/shards", f"runs={tmp_path}/run"]
    model = TIMM if "22k" in arguments else tiny_clip(tmp_path / "clip")
    options = [*places, f"results={tmp_path}/results", f"sweep.search={tmp_path}/search.yaml", *model, *SMALL]
    config = load([*arguments.split(), *options])
    pipeline.run_stages(commands.modules_of(list(commands.STAGES)), config)
    lines = [json.loads(line) for line in (config.run.results / "results.jsonl").read_text().splitlines()]
    about = next(line["experiment"] for line in lines if "experiment" in line)
    titles = {s["title"]: s["role"] for s in about["sets"]}
    assert (titles[test], titles[shift]) == ("test", "shift")
    assert about.get("score", {"name": "accuracy"})["name"] == score
    assert {"greedy", "uniform", "ensemble"} <= {line["row"] for line in lines if "row" in line}
    assert (config.run.results / "figure_1.pdf").stat().st_size
    page = (config.run.results / "index.html").read_text(encoding="utf-8")
    assert test in page
    assert shift in page


@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize("arguments", EXPERIMENTS)
def test_each_experiment_has_a_dry_run_on_slurm(arguments, gpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = load([*arguments.split(), f"cluster.gpus_per_node={gpus}", "submit.dry_run=true", "data.root=/data"])
    submit.run(Experiment(config))
    said = capsys.readouterr().out
    assert "72 ingredients: 0 complete, 0 failed, 72 to train" in said
    assert " ".join(arguments.split()) in said
    assert not list(tmp_path.iterdir())
