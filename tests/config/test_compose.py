"""Every config composes; a wrong key or value stops with one line that names it."""

import os
import re
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsoups.config.compose import load, own_conf, quoted
from modelsoups.disk.paths import shipped
from modelsoups.experiment.draw import load_search
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes import search as searches

EXPERIMENTS = sorted(p.stem for p in (shipped("conf") / "experiment").glob("*.yaml"))
NAMES = {
    "glue": "glue_mrpc-bert-base-uncased",
    "glue-minilm": "glue_mrpc-minilm",
    "text-miniature": "text-miniature-acceptability",
    "wilds": "wilds-fmow",
}
OF_TEXTS = {"glue_random": "glue", "text_miniature_random": "text-miniature"}  # search -> its experiment
GROUPS = [(d.name, p.stem) for d in sorted(shipped("conf").iterdir()) if d.is_dir() for p in sorted(d.glob("*.yaml"))]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_draws_its_whole_sweep(experiment):
    cfg = load([f"experiment={experiment}"])
    assert cfg.name == NAMES.get(experiment, experiment)
    search = load_search(cfg.sweep.search)
    recipes = [Experiment(cfg).draw.recipe(search, i) for i in range(searches.size(search))]
    assert len({r.seed for r in recipes}) == len(recipes)
    assert len({r.lr for r in recipes}) > 1 or len(recipes) == 1  # appendix E has one recipe


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_every_option_of_every_group_composes(group, option):
    assert load([f"{group}={option}"])


@pytest.mark.parametrize("name", sorted(p.stem for p in shipped("sweeps").iterdir() if p.stem != "wandb_random"))
def test_every_shipped_search_draws_valid_recipes(name):
    search = load_search(name)
    cfg = load([f"sweep.search={name}", f"experiment={OF_TEXTS.get(name, 'miniature')}"])
    for i in range(searches.size(search)):
        Experiment(cfg).draw.recipe(search, i)


def test_the_drawn_recipes_of_vit_g_are_what_j23_says_of_sam():
    search, seed = load_search("vit_g"), load(["experiment=vit_g"]).sweep.seed
    recipes = [searches.draw(search, seed, n) for n in range(searches.size(search))]
    assert len(recipes) == 58
    sharp = [r for r in recipes if r["sam"]]
    assert len(sharp) == 4
    assert {r["sam_sync"] for r in sharp} == {True, False}
    assert [r["sam_sync"] for r in sharp if r["cutmix"]] == [True]
    assert {(r["init"], r["loss"]) for r in recipes} == {
        (i, x) for i in ("lp", "lp-518") for x in ("softmax", "binary")
    }
    assert all((r["aug"] != "inception") + (r["mixup"] > 0) + (r["cutmix"] > 0) <= 1 for r in recipes)


def test_the_recipes_of_align_are_those_of_j22():
    recipes = [searches.draw(load_search("align"), 0, n) for n in range(12)]
    rates = [r["lr"] for r in recipes[:5]]
    assert rates == [1e-6, 2e-6, 5e-6, 1e-5, 2e-5]
    kinds = {(r["min_crop"], tuple(r["crop_ratio"]), r["aug"], r["mixup"]) for r in recipes if r["lr"] == 5e-6}
    crops = [(0.05, (0.75, 4 / 3)), (0.9, (0.95, 1.05))]
    policies = ("inception", "rand-m15-n2-mmax30")
    assert kinds == {(*crop, aug, mixup) for crop in crops for aug in policies for mixup in (0.0, 0.5)}
    assert [sum(r["lr"] == 5e-6 for r in part) for part in (recipes[:5], recipes[5:])] == [1, 7]


def test_an_experiment_overrides_what_stages_default_to_and_the_command_line_overrides_both():
    assert load([]).recipe["batch_size"] == 64
    assert load(["experiment=imagenet"]).recipe["batch_size"] == 512
    assert load(["experiment=imagenet", "recipe.batch_size=128"]).recipe["batch_size"] == 128


def test_keys_that_the_search_draws_are_not_fixed():
    assert "lr" not in load([]).recipe
    assert load(["recipe.lr=1e-4"]).recipe["lr"] == 1e-4


@pytest.mark.parametrize(
    ("override", "named", "way_out"),
    [
        ("+recipe.wd=1", "recipe.wd", "recipe.weight_decay"),
        ("recipe.lrr=1", "recipe.lrr", "did you mean recipe.lr"),
        ("recipe.lr=-1", "recipe.lr", "above 0"),
        ("recipe.lr=nan", "recipe.lr", "above 0"),
        ("recipe.lr=many", "recipe.lr", "Float"),
        ("recipe.aug=rand-m9", "recipe.aug", "rand-m<M>-n<N>"),
        ("recipe.optimizer=adam2", "recipe.optimizer", "adamw"),
        ("heads.init=random", "heads.init", "lp, zeroshot"),
        ("model=nope", "model/nope", "iconclip"),
        ("experiment=nope", "experiment/nope", "miniature"),
        ("finetune.parallel=0", "finetune.parallel", "at least 1"),
        ("sweep.seed=-1", "sweep.seed", "at least 0"),
        ("+foo.bar=1", "foo.bar", "Valid keys"),
        ("~recipe.lr", "recipe.lr", "cannot be deleted"),
        ("justaword", "justaword", "key=value"),
        ("evaluate.wise_ft=[2]", "evaluate.wise_ft", "0 to 1"),
        ("name=../x", "name", "folder name"),
    ],
)
def test_bad_overrides_are_named_in_one_line_with_the_way_out(override, named, way_out):
    with pytest.raises(ValueError, match=re.escape(named)) as error:
        load([override])
    assert way_out in str(error.value)
    assert "\n" not in str(error.value)


def test_a_start_loads_no_more_than_it_needs():
    """Neither the configuration PyTorch, nor the stages what only transforms and models need: each takes seconds."""
    code = """
import sys
from modelsoups.config.compose import load
load([])
import modelsoups.cluster.submit, modelsoups.cluster.status
assert "torch" not in sys.modules
import modelsoups.stages.finetune, modelsoups.stages.soup, modelsoups.stages.report
print(*{"timm", "torchvision", "open_clip", "wandb", "transformers", "torch._dynamo"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr


@pytest.mark.parametrize(
    ("override", "way_out"),
    [
        ("model.tag=epoch=3-step=100.ckpt", "model.tag='epoch=3-step=100.ckpt'"),
        ("data.root=~/flowers", "data.root='~/flowers'"),
        ("data.root=/my data (copy)/x", "data.root='/my data (copy)/x'"),
        ("data.name=a:b", None),
    ],
)
def test_a_value_that_hydra_does_not_read_is_shown_in_quotes(override, way_out):
    if way_out is None:
        load([override])
        return
    with pytest.raises(ValueError, match=re.escape(f'for the shell: "{way_out}"')):
        load([override])
    load([way_out])


def test_the_home_folder_is_known_in_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load(["data.root='~/flowers'", "data.dir='~'", "runs='~/r'", "data.name='~/x'", "export.out='x/~/y'"])
    assert (config.data.root, config.data.dir, config.runs) == (f"{tmp_path}/flowers", str(tmp_path), f"{tmp_path}/r")
    assert (config.data.name, config.export.out) == ("~/x", "x/~/y")


def test_entries_of_mappings_are_set_on_the_command_line():
    for override in ("analyse.pools.one=name", "+analyse.pools.one=name", "analyse.pools={one: name}"):
        with pytest.raises(ValueError, match=r"analyse\.pools\.one: Value 'name'"):
            load([override])
    entries = ["data.text.files.train=a.tsv", "data.text.files.test=b.tsv", "data.text.examples.train=3"]
    text = load(entries).data.text
    assert (text.files, text.examples) == ({"train": "a.tsv", "test": "b.tsv"}, {"train": 3})
    with pytest.raises(ValueError, match=r"data\.text\.examples\.train: Value 'x'"):
        load(["data.text.examples.train=x"])
    with pytest.raises(ValueError, match=r"no such key: data\.text\.filess; did you mean data\.text\.files"):
        load(["data.text.filess={train: a.tsv}"])


@pytest.mark.parametrize(
    ("override", "near"),
    [("nmae=x", "name"), ("seed=1", "sweep.seed"), ("experimnt=glue", "experiment"), ("soup.sed=1", "soup.seed")],
)
def test_a_misspelt_key_is_answered_by_the_likely_ones(override, near):
    with pytest.raises(ValueError, match=rf"did you mean [\w. ]*{near}"):
        load([override])


def test_a_hyperparameter_with_a_default_can_be_drawn():
    given = ["recipe.batch_size=drawn", "sweep.search=glue_random", "recipe.weight_decay=0.0", "recipe.aug=minimal"]
    config = load([*given, "recipe.mixup=0.0", "recipe.label_smoothing=0.0"])
    assert "batch_size" not in config.recipe
    assert {recipe.batch_size for recipe in Experiment(config).draw.drawn()} == {8, 16, 32, 64}
    assert {recipe.epochs for recipe in Experiment(config).draw.drawn()} == {2, 3, 5}
    assert load([*given, "recipe.batch_size=16"]).recipe["batch_size"] == 16
    with pytest.raises(ValueError, match=r"recipe\.batch_size"):
        load(["recipe.batch_size=draw"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("partition: [gpu\n", r"conf/cluster/evil\.yaml line 2: "),
        ("partition: gpu\npartition: cpu\n", r"conf/cluster/evil\.yaml line 2: found duplicate key partition"),
        ("partition: !!python/object/apply:os.system ['touch PWNED']\n", r"evil\.yaml line 1: could not determine"),
        (
            "a: &a [x, x, x]\n" + "".join(f"a{i}: &a [*a, *a, *a]\n" for i in range(30)),
            r"evil\.yaml line 2: an alias of what it is in",
        ),
        ("defaults: [bomb]\n", r"bomb\.yaml line 1: lists or mappings more than 50 deep"),
    ],
)
def test_a_hostile_file_in_conf_is_one_line(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/cluster").mkdir(parents=True)
    (tmp_path / "conf/cluster/evil.yaml").write_text(text)
    if "bomb" in text:
        (tmp_path / "conf/cluster/bomb.yaml").write_text("[" * 5000)
    with pytest.raises(ValueError, match=says) as error:
        load(["cluster=evil"])
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf"]


def test_the_conf_of_another_project_is_not_read_unless_an_option_of_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/cluster").mkdir(parents=True)
    (tmp_path / "conf/config.yaml").write_text("name: theirs\n")
    (tmp_path / "conf/cluster/mine.yaml").write_text("partition: gpu\n")
    assert own_conf(["cluster=default", "name=mine", "cluster.partition=mine"]) == []
    os.chmod(tmp_path / "conf", 0)  # for those who are not root
    assert load(["cluster=default"]).name == "miniature"
    os.chmod(tmp_path / "conf", 0o755)
    (asked,) = own_conf(["cluster=mine"])
    assert asked == own_conf(["+cluster=mine"])[0] == own_conf(["cluster=default,mine"])[0]
    assert load(["cluster=mine"]).cluster.partition == "gpu"


@pytest.mark.parametrize("name", ["it's", "x',pkg:__evil,'", "a b", "${name}", "back\\", "back\\'", "[a]", "été"])
def test_a_working_folder_of_any_name_has_its_conf(tmp_path, monkeypatch, name):
    (tmp_path / name / "conf/cluster").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / name)
    (tmp_path / name / "conf/cluster/mine.yaml").write_text("partition: gpu\n")
    assert load(["cluster=mine"]).cluster.partition == "gpu"


@settings(deadline=None, max_examples=60)
@given(st.text(st.sampled_from("a'\"\\ ,=[]{}()#:%$"), max_size=8))
def test_quoted_texts_are_read_back_by_hydra(text):
    assert OverridesParser.create().parse_override(f"data.name={quoted(text)}").value() == text
