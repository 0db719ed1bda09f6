"""ALIGN, ViT-G and BASIC with open models, made tiny: from ImageNet's files to the paper's tables."""

import csv
import json
import shlex

import open_clip
import pytest
import torch
from layouts import VAL, originals, put, shift_sets
from safetensors.torch import save_file
from tiny import CONFIG, STATISTICS

from modelsoups.cli import commands, pipeline
from modelsoups.cluster import submit
from modelsoups.config.compose import load
from modelsoups.disk import manifests, storage
from modelsoups.disk.paths import shipped
from modelsoups.experiment.experiment import Experiment
from modelsoups.tasks.images import ImageClassification

CONVNEXT = {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 32}
VIT = {"image_size": 74, "layers": 1, "width": 16, "head_width": 8, "patch_size": 37}  # 518 = 14 * 37
SMALL = [
    "data.check_counts=false", "data.holdout_per_class=2", "data.shard_images=5", "data.workers=1",
    "recipe.batch_size=4", "recipe.warmup_steps=1", "finetune.parallel=1", "finetune.evaluate_every=2",
    "soup.orders=1", "soup.learned_epochs=1", "evaluate.wise_ft=[0.5]", "heads.lp_epochs=1", "evaluate.batch_size=16",
]  # fmt: skip
RIGHT = {  # multilabel annotations of the tiny validation set
    "initial_annots": {f"ILSVRC2012_val_{n:08d}.JPEG": {"correct": ["n01440764"]} for n in VAL},
    "problematic_images": [],
}


def tiny(folder, vision, side):
    """Write a CLIP with this image tower; return the overrides that choose it."""
    config = {**CONFIG, "quick_gelu": False, "vision_cfg": vision}
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": STATISTICS}))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    return [f"model.name=local-dir:{folder}", "model.tag=local", f"model.image_size={side}"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("open")
    shift_sets(originals(home / "files", "folder"))
    put(home / "human.json", json.dumps(RIGHT).encode())
    return home


def finished(home, name, *options):
    """Run the whole pipeline of an experiment on the small tree; return its configuration."""
    places = [f"data.root={home}/files", f"data.dir={home}/shards", f"runs={home}/{name}", f"results={home}/{name}-r"]
    labels = f"data.sources.multilabel={home}/human.json"
    config = load([f"experiment={name}", *places, labels, *SMALL, *options])
    pipeline.run_stages(commands.modules_of(list(commands.STAGES)), config)
    return config


def test_align_chooses_soups_from_its_models_and_the_initialization(home, capsys):
    recipes = storage.read_jsonl(shipped("sweeps") / "align.jsonl")
    storage.write_jsonl(home / "align.jsonl", [recipes[n] for n in (0, 7, 9)])
    model = tiny(home / "convnext", CONVNEXT, 32)
    options = [f"sweep.search={home}/align.jsonl", "recipe.epochs=1", "evaluate.image_size=90"]
    config = finished(home, "align", *model, *options)
    experiment = Experiment(config)
    uniform = experiment.soups.read("uniform")
    assert uniform.ingredients == ("000", "001", "002", "initialization")
    assert experiment.soups.read("best").ingredients[0] in uniform.ingredients[:3]
    assert experiment.logits.path("val", "0" * 64).name.endswith("-90.safetensors")
    assert "taken as" not in capsys.readouterr().out  # a convolutional network takes 289 and 90 as they are
    found = storage.read_jsonl(config.run.analyses / "figure_5.jsonl")
    assert [row["method"] for row in found if "method" in row][3:6] == ["best", "second_best", "uniform"]
    assert (config.run.analyses / "figure_5.pdf").exists()


def test_vit_g_makes_soups_of_the_low_ema_from_probes_of_two_sizes_and_losses(home):
    model = tiny(home / "vit", VIT, 74)
    sizes = ["recipe.image_size=148", "evaluate.image_size=148", "evaluate.resize=157"]  # 518 and 550: test_views.py
    options = ["sweep.count=4", "recipe.steps=3", "finetune.evaluate_every=1", *sizes]
    config = finished(home, "vit_g", *model, *options)
    experiment = Experiment(config)
    made = {path.name for path in (config.run.root / "init").iterdir()}
    names = [_initial(recipe) for recipe in experiment.draw.recipes()]
    assert made == {"zeroshot", "lp", *names}
    assert len(set(names)) > 1
    for index, name in enumerate(names):
        manifest = manifests.manifest_of(config.run.ingredient(index))
        assert manifest["inputs"]["initialization"] == manifests.manifest_of(config.run.head(name))["sha256"]
        assert set(manifest["selected"]) == {"model", "ema-0.999", "ema-0.9999999"}
    individuals = [i.id for i in experiment.ingredients.find().ingredients]
    assert individuals == [f"{n:03d}-ema-{decay}" for n in range(4) for decay in ("0.999", "0.9999999")]
    assert experiment.soups.read("uniform").ingredients == tuple(individuals[::2])
    assert experiment.soups.read("best").ingredients[0] in individuals
    one, four = (_table(config, name) for name in ("table_1", "table_4"))
    assert one[0][1:] == ["ImageNet", "Mean of shifts"]
    assert [row[0] for row in one[1:3]] == ["Best model in hyperparameter search", "Greedy soup"]
    assert one[-1] == ["Paper: Greedy soup", "90.94", "85.02"]
    assert one[1][1:] == [four[2][four[0].index(title)] for title in one[0][1:]]
    assert "ImageNet multilabel" in four[0]


def _initial(recipe):
    return f"{recipe.init}-binary" if recipe.loss == "binary" else recipe.init


def _table(config, name):
    with open(config.run.analyses / f"{name}.csv", newline="") as file:
        return list(csv.reader(file))


def test_basic_starts_from_the_zero_shot_head_and_keeps_the_best_step_of_each_ema(home):
    model = tiny(home / "convnext2", CONVNEXT, 32)
    options = ["sweep.count=2", "recipe.epochs=1", "recipe.image_size=100", "evaluate.image_size=100"]
    config = finished(home, "basic", *model, *options)
    experiment = Experiment(config)
    assert {path.name for path in (config.run.root / "init").iterdir()} == {"zeroshot"}
    assert experiment.soups.read("uniform").ingredients == ("000-ema-0.999874945", "001-ema-0.999874945")
    assert experiment.logits.path("val", "0" * 64).name.endswith("-100-squashed.safetensors")
    table = _table(config, "table_C1")
    assert [row[0] for row in table[2:5]] == ["Best model on each test set (oracle)", "Greedy ensemble", "Greedy soup"]
    by_label = {row[0]: row[1:] for row in table}
    columns = table[0][1:]
    there = by_label["Paper: Greedy soup"]
    assert (there[columns.index("ImageNet")], there[columns.index("ImageNet multilabel")]) == ("90.98", "98.37")
    assert by_label["Paper: BASIC-L (zero-shot)"][columns.index("ImageNet-A")] == "85.60"
    assert any(cell.endswith("*") for row in table[1:5] for cell in row)  # the bold rule


@pytest.mark.parametrize(
    ("name", "trained", "view", "forgotten"),
    [
        ("align", 289, "360", []),
        ("vit_g", 518, "518-of-550-squashed", [1 - 0.999, 1 - 0.9999999]),
        ("basic", 500, "500-squashed", [1 - 0.999 ** (1 / 8), 1 - 0.9999999 ** (1 / 8)]),
    ],
)
def test_sizes_views_and_averages_are_the_papers(name, trained, view, forgotten):
    """J.2.2, J.2.3, appendix C; forgotten: 1 - decay. test_views.py compares views with transforms by hand."""
    config = load([f"experiment={name}"])
    assert (config.recipe["image_size"], ImageClassification.of(config, None).view) == (trained, view)
    decays = config.recipe.get("ema", [])
    assert [1 - decay for decay in decays] == pytest.approx(forgotten, rel=1e-3)
    if decays:
        assert config.soup.average == f"ema-{decays[0]}"


@pytest.mark.parametrize("name", ["align", "vit_g", "basic"])
@pytest.mark.parametrize("gpus", [1, 8])
def test_dry_runs_on_one_and_on_several_gpus_of_a_task(name, gpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    config = load([f"experiment={name}", "submit.dry_run=true", f"cluster.gpus_per_node={gpus}"])
    count = len(Experiment(config).draw.drawn())
    assert submit.run(Experiment(config)) is False
    said = capsys.readouterr().out
    assert f"#SBATCH --array=0-{count - 1}" in said
    assert f"#SBATCH --gpus-per-node={gpus}" in said
    assert f"ranks={gpus}" in said.splitlines()
    assert f"experiment={name}" in shlex.split(said[said.index("overrides=(") + 11 :].partition(")")[0])
    assert list(tmp_path.iterdir()) == []
