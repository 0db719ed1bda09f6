"""From ImageNet's files to the report, with a tiny CLIP on small trees laid out as the real ones are."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from layouts import FORMS, VAL, originals, put, shift_sets, train_images
from tiny import tiny_clip

from modelsoups.cli import commands, pipeline, verify
from modelsoups.config.compose import load
from modelsoups.data.imagenet import metadata, projections
from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.sets import Sets
from modelsoups.report import beside_published
from modelsoups.report.numbers import Numbers

SEARCH = """
kind: random
count: 2
parameters:
  lr: {log10_uniform: [-5, -4]}
  weight_decay: {constant: 0.1}
  label_smoothing: {constant: 0.0}
  epochs: {constant: 1}
  mixup: {constant: 0.5}
  aug: {choice: [minimal, medium]}
"""
ANNOTATIONS = {
    "initial_annots": {f"ILSVRC2012_val_{n:08d}.JPEG": {"correct": ["n01440764"]} for n in VAL},
    "problematic_images": [],
}
SMALL = [
    "data.check_counts=false", "data.holdout_per_class=2", "data.shard_images=5", "data.workers=2",
    "recipe.batch_size=4", "recipe.warmup_steps=1", "finetune.parallel=1",
    "soup.orders=1", "soup.learned_epochs=1", "evaluate.wise_ft=[0.5]", "heads.lp_epochs=1",
]  # fmt: skip
SHIFTS = ["v2", "r", "sketch", "objectnet", "a"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("imagenet")
    (home / "search.yaml").write_text(SEARCH)
    put(home / "human.json", json.dumps(ANNOTATIONS).encode())
    return home


def configured(home, tiny, root, *more):
    places = [f"data.root={root}", f"data.dir={root}/shards", f"runs={home}/run", f"results={home}/results"]
    extra = ["data.extra=[real,multilabel]", f"data.sources.multilabel={home}/human.json"]
    search = f"sweep.search={home}/search.yaml"
    return load(["experiment=imagenet", *tiny, *places, *extra, search, *SMALL, *more])


@pytest.fixture(scope="module")
def folder(home):
    """An ImageFolder tree with all test sets."""
    return shift_sets(originals(home / "folder", "folder"))


@pytest.fixture(scope="module")
def done(home, tiny, folder):
    """The whole pipeline on it."""
    cfg = configured(home, tiny, folder)
    pipeline.run_stages(commands.modules_of(list(commands.STAGES)), cfg)
    return cfg


def test_every_set_is_in_the_report(done):
    lines = [json.loads(line) for line in (done.run.results / "results.jsonl").read_text().splitlines()]
    greedy = {x["dataset"]: x for x in lines if x.get("row") == "greedy"}
    assert set(greedy) == {"holdout", "val", *SHIFTS, "real", "multilabel", "mean of shifts"}
    mean = sum(greedy[name]["accuracy"] for name in SHIFTS) / 5
    assert greedy["mean of shifts"]["accuracy"] == pytest.approx(mean)
    assert greedy["objectnet"]["n"] == 4  # of 5: no class of ImageNet is an air freshener
    header = (done.run.results / "table_3.csv").read_text().splitlines()[0]
    assert header.endswith(
        "ImageNet-V2,ImageNet-R,ImageNet-Sketch,ObjectNet,ImageNet-A,ImageNet ReaL,ImageNet multilabel"
    )


def test_another_model_is_not_compared_with_the_published_numbers(done):
    assert not (done.run.results / "published.csv").exists()
    numbers = Numbers.read(done.run.results)
    lines = {line[0]: line for line in beside_published.comparison(numbers)}
    greedy = lines["Greedy soup"]
    assert greedy[2:5:2] + greedy[7:10:2] == ["81.03", "81.03", "50.86", "50.75"]
    assert greedy[3] == f"{float(greedy[1]) - 81.03:+.2f}*"  # a tiny random model is far outside of the error
    assert lines["Learned soup (by tensor; authors' code)"][2] == "81.38"


def test_the_report_is_made_again_once_an_extra_set_is_prepared(done, monkeypatch):
    prepared = Experiment(done).report_inputs()
    assert set(prepared["extra"]) == {"real", "multilabel"}
    monkeypatch.setattr(Sets, "is_prepared", lambda self, name: name != "real")
    before = Experiment(done).report_inputs()
    assert before["extra"] == {**prepared["extra"], "real": None}
    without = Experiment(replace(done, data=replace(done.data, extra=[]))).report_inputs()
    assert {**without, "extra": prepared["extra"]} == prepared
    assert "extra" not in without


def test_protocol_released_wants_a_greedy_soup_to_get_better(done):
    assert done.protocol == "released"
    greedy = json.loads(done.run.soup("greedy").read_text())
    refused = [step for step in greedy["trace"] if not step["kept"]]
    # two models that are right on the same number of images: the second makes nothing better
    assert [step["correct"] == step["best"] for step in refused] == [True]
    assert len(greedy["ingredients"]) == 1


def test_logits_are_restricted_to_a_sets_own_labels(done):
    initial = Experiment(done).ingredients.initial()["initialization"].sha256
    sizes = {name: Experiment(done).logits.of(name, initial).logits_NC.shape[1] for name in ["val", *SHIFTS]}
    assert sizes == {"val": 1000, "v2": 1000, "r": 200, "sketch": 1000, "objectnet": 113, "a": 200}
    dataset = Experiment(done).sets["r"]
    wnids = [metadata.wnids()[projections.subset("r")[i]] for i in dataset.labels_N]
    assert wnids == [key.split("_")[0] for key in dataset.keys_N]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "folder"])
def test_the_other_forms_of_the_files_change_nothing(done, home, tiny, form, capsys):
    """Their shards are the same, so every later stage finds its work done."""
    root = shift_sets(originals(home / form, form))
    capsys.readouterr()
    pipeline.run_stages(commands.modules_of(list(commands.STAGES)), configured(home, tiny, root))
    said = capsys.readouterr().out
    for stage in ("heads: lp", "sweep:", "finetune:", "evaluate:", "soup:", "report:"):
        assert any(line.startswith(stage) and "complete" in line for line in said.splitlines()), said


def test_sets_that_are_missing_are_marked_and_never_averaged(done, home, tiny, tmp_path, capsys):
    root = shift_sets(originals(tmp_path / "some", "folder"))
    for folder in ("objectnet-1.0", "imagenet-a"):
        shutil.rmtree(root / folder)
    run = tmp_path / "run"
    shutil.copytree(done.run.root, run)
    shutil.rmtree(run / "soups")
    cfg = configured(home, tiny, root, f"runs={run}", f"results={tmp_path / 'results'}")
    pipeline.run_stages(commands.modules_of(list(commands.STAGES)), cfg)
    assert "evaluate: not available: objectnet, a;" in capsys.readouterr().out
    rows = list(csv.DictReader((cfg.run.results / "table_3.csv").read_text().splitlines()))
    greedy = next(row for row in rows if row["Method"] == "Greedy soup")
    assert greedy["Dist. shifts"] == greedy["ObjectNet"] == greedy["ImageNet-A"] == "not available"
    assert greedy["ImageNet-Sketch"] != "not available"
    assert "Not available: ObjectNet, ImageNet-A. So there is no mean of the five shifts." in (
        cfg.run.results / "index.html"
    ).read_text(encoding="utf-8")
    assert "| not available | 3 of 5 shifts |" in (cfg.run.results / "claims.md").read_text()


# ---- the authors' released models ----


@pytest.fixture(scope="module")
def imported(home, tiny, folder, tmp_path_factory):
    """Five models in the official layout, but tiny; the pipeline over them. model_4 and model_5 are one."""
    from modelsoups.cli import import_released
    from modelsoups.published import released

    models = tmp_path_factory.mktemp("checkpoints")
    keys = sorted(train_images())
    held = {key for wnid in {k.split("_")[0] for k in keys} for key in [k for k in keys if k.startswith(wnid)][1:3]}
    np.save(models / "held.npy", np.array([float(key in held) for key in keys]))
    places = [f"data.root={folder}", f"data.dir={home}/authors", f"runs={home}/rel", f"results={home}/relresults"]
    options = [tiny[0], "model.tag=null", tiny[2], *places, f"data.holdout_file={models / 'held.npy'}", *SMALL]
    cfg = load(["experiment=released", *options])
    layout = import_released.expected_layout(cfg.model)
    for index in (0, 1, 2, 4, 5):
        generator = torch.Generator().manual_seed(min(index, 4) if index != 5 else 4)
        state = {
            key: torch.randn(_shape(text), generator=generator) * 0.1
            for key, text in layout.items()
            if released.our_name(key)
        }
        torch.save(state, models / f"model_{index}.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert cli_status("import-released", str(models), *options) == 0
        pipeline.run_stages(commands.modules_of(list(commands.STAGES)), cfg)
    return cfg, options


def _shape(text):
    return tuple(int(n) for n in text[1 : text.index(")")].replace(" ", "").split(",") if n)


def cli_status(*argv):
    try:
        commands.main(list(argv))
    except SystemExit as end:
        return end.code
    return 0


def test_imported_models_become_table_3_by_evaluation_alone(imported):
    cfg, _ = imported
    table = (cfg.run.results / "table_3.csv").read_text()
    assert "Greedy soup," in table
    assert "Ensemble," in table
    assert not (cfg.run.root / "draw.jsonl").exists()
    assert [p.name for p in sorted(cfg.run.ingredients.iterdir()) if p.is_dir()] == ["000", "001", "002", "004", "005"]


def test_imported_models_allow_the_analyses_that_need_no_training(imported, capsys):
    cfg, options = imported
    few = ["analyse.grid=2", "analyse.alphas=[0.0,0.5,1.0]", "analyse.orders=1", "analyse.pairs=3"]
    pipeline.run_stages(commands.modules_of(["analyse"]), load(["experiment=released", *options, *few]))
    said = capsys.readouterr().out
    made = {p.stem for p in cfg.run.analyses.glob("*.jsonl")}
    assert made == {"figure_2", "figure_3", "figure_4", "figure_B1", "figure_D1", "figure_K1", "figure_L3", "selection",
                    "table_4"}  # fmt: skip
    missing = json.loads((cfg.run.analyses / "provenance.json").read_text())["not_possible"]
    assert missing["figure_2, train loss"] == "the training set holdout is not prepared"
    assert missing["figure_B2"] == "the analysis needs a pool of models: analyse.pools.seeds is not defined"
    assert "analyse: table_L1 is not possible with these models: the analysis needs a model from the lp head" in said
    rows = [json.loads(line) for line in (cfg.run.analyses / "figure_2.jsonl").read_text().splitlines()]
    assert {r["train_loss"] for r in rows if "landscape" in r} == {None}
    assert 'href="analysis/index.html"' in (cfg.run.results / "index.html").read_text(encoding="utf-8")
    assert 'href="../index.html"' in (cfg.run.analyses / "index.html").read_text(encoding="utf-8")


def test_verify_names_models_and_sets_that_differ(imported, capsys):
    cfg, options = imported
    assert cli_status("verify", *options) == 1  # random weights are not the authors'
    said = capsys.readouterr().out
    assert "model_1 on val: measured " in said
    assert "measured models: 5 of 72" in said
    accuracies = verify.measured(Experiment(cfg))
    assert set(accuracies) == {0, 1, 2, 4, 5}
    assert set(accuracies[1]) == {"holdout", "val", *SHIFTS}


def test_a_holdout_that_the_released_models_were_trained_on_is_refused(imported, done, capsys):
    _, options = imported
    other = load(["experiment=released", *options, f"data.dir={done.data.dir}", "data.holdout_file=null"])
    with pytest.raises(SystemExit):
        pipeline.run_stages(commands.modules_of(["evaluate"]), other)
    assert "was not split by the authors' index file" in capsys.readouterr().err
