"""Figure E.1: soups across data sets, from the official trees of five data sets to the figure."""

import json
from dataclasses import replace
from itertools import permutations

import cifar_files
import numpy as np
import pytest
import transfer_files
from tiny import tiny_clip

from modelsoups.analyses import figure_e1_across_sets as e1
from modelsoups.analyses.analysis import FAILS, HOLDS
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.points import Point
from modelsoups.cli import commands, pipeline
from modelsoups.config.compose import load
from modelsoups.disk.paths import shipped
from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.ingredients import load_weights
from modelsoups.weights.state_dicts import EVERYTHING, mix

POOLS = ("cifar10", "dtd", "cars")
SMALL = [
    "recipe.batch_size=4", "recipe.warmup_steps=1", "recipe.epochs=1", "recipe.lr=1e-3", "finetune.parallel=1",
    "data.check_counts=false", "data.holdout_per_class=1", "data.workers=1", "wandb=disabled",
]  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The shipped experiment with three of its six data sets, on small trees, by the one command of its YAML."""
    home = tmp_path_factory.mktemp("cross")
    for make in (transfer_files.cifar100, transfer_files.dtd, transfer_files.cars, cifar_files.write_batches):
        make(home)
    lines = (shipped("conf") / "experiment/cross-datasets.yaml").read_text().splitlines()
    kept = [x for x in lines if not x.startswith("    ") or x.split(":")[0].strip() in POOLS]
    (home / "conf/experiment").mkdir(parents=True)
    (home / "conf/experiment/cross-small.yaml").write_text("\n".join(kept))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        cfg = load(["experiment=cross-small", f"data.root={home}", *tiny_clip(home / "clip"), *SMALL])
        assert tuple(cfg.analyse.pools) == POOLS
        pipeline.run_stages(commands.modules_of(list(commands.STAGES)), cfg)
    return cfg, home


@pytest.fixture
def bench(done, monkeypatch):
    monkeypatch.chdir(done[1])
    return Bench(Experiment(done[0]))


def rows_of(done):
    return [json.loads(x) for x in (done[1] / done[0].run.analyses / "figure_E1.jsonl").read_text().splitlines()]


def test_one_command_makes_the_figure_of_all_orders(done):
    cfg, home = done
    rows, folder = rows_of(done), home / cfg.run.analyses
    orders = [tuple(row["order"]) for row in rows if "order" in row]
    assert sorted(orders) == sorted(permutations(POOLS))
    curves = np.array([row["test"] for row in rows if "order" in row])
    assert (np.ptp(curves[:, 0]), np.ptp(curves[:, -1])) == (0, 0)  # no model, and all of them
    added = {row["added"]: row for row in rows if "added" in row}
    total = next(row for row in rows if "gain" in row)
    assert sum(row["change"]["value"] for row in added.values()) == pytest.approx(total["soup"] - total["zero-shot"])
    assert total["gain"]["value"] == pytest.approx(total["soup"] - total["zero-shot"])
    for name, row in added.items():  # by hand: its step in each order
        steps = [c[o.index(name) + 1] - c[o.index(name)] for o, c in zip(orders, curves, strict=True)]
        assert row["change"]["value"] == pytest.approx(np.mean(steps))
    assert (folder / "figure_E1.pdf").exists()
    assert "beats the zero-shot model" in (folder / "claims.md").read_text()
    assert not (home / cfg.run.root / "draw.jsonl").exists()  # nothing is trained on the set to evaluate on


def test_fine_tuning_leaves_the_zero_shot_head_as_it_is(bench):
    for name, source in e1.sources_of(bench).items():
        state, start = load_weights(source.model), load_weights(bench.start(name))
        assert all(np.array_equal(state[key], start[key]) for key in ("head.weight", "head.bias"))
        assert any(not np.array_equal(state[key], start[key]) for key in start)


def test_a_soup_is_the_mean_of_the_encoders_with_the_head_of_the_set_to_evaluate_on(bench):
    start, models = bench.start("random"), [source.model for source in e1.sources_of(bench).values()]
    found = bench.measure([Point.uniform([start, *models], start)], "test", [bench.test])[0][bench.test]
    head = {key: tensor for key, tensor in load_weights(start).items() if key.startswith("head.")}
    states = [load_weights(model) | head for model in (start, *models)]
    logits_NC = bench.experiment.logits.forward(bench.test, mix(states, {EVERYTHING: [1 / len(states)] * len(states)}))
    correct_N = logits_NC.argmax(dim=1).numpy() == bench.experiment.sets[bench.test].labels_N
    assert found.correct_N.tolist() == correct_N.tolist()


def test_a_pool_that_cannot_be_in_the_soup_is_named(bench, monkeypatch):
    def said():
        with pytest.raises(ValueError, match=r"analyse\.pools\.cifar10: ") as error:
            e1.sources_of(bench)
        assert "\n" not in str(error.value)
        return str(error.value)

    (model,) = bench.ingredients("cifar10")
    monkeypatch.setattr(bench, "ingredients", lambda name: [model, model])
    assert "it has 2 models, but each data set adds one; set sweep.count=1" in said()
    whole = replace(model, recipe=replace(model.recipe, trained="all"))
    monkeypatch.setattr(bench, "ingredients", lambda name: [whole])
    assert "its head is trained, so its encoder does not fit another head" in said()
    monkeypatch.setattr(bench, "ingredients", lambda name: [model])
    monkeypatch.setattr(bench.runs["cifar10"].config.model, "image_size", 64)
    assert "set the same model" in said()


def test_a_set_with_other_classes_than_its_head_is_refused(done, bench):
    pool = f"runs={done[0].runs}/pools/dtd"
    other = Experiment(load([*done[0].overrides, "pool=finetuned", "data=cars", pool]))
    with pytest.raises(ValueError, match="has the head of other classes than the 3 classes of data/cars/train"):
        other.check_head()


def test_more_than_six_models_are_added_in_random_orders():
    names = [f"set_{i}" for i in range(7)]
    orders = e1.orders_of(names, 5)
    assert [sorted(order) for order in orders] == [names] * 5
    assert len(set(orders)) == 5
    assert orders == e1.orders_of(names, 5)
    assert len(e1.orders_of(names[:6], 5)) == 720


def test_the_mean_change_is_that_of_all_orders_and_the_extremes_are_compared_on_other_images():
    rng, names = np.random.default_rng(0), ["a", "b", "c"]
    orders = e1.orders_of(names, 3)
    subsets = {frozenset(order[:k]) for order in orders for k in range(4)}
    correct = {subset: (rng.random(40) < 0.5).astype(float) for subset in sorted(subsets, key=sorted)}
    changes = {name: e1._mean_change(name, orders, correct) for name in names}
    for name in names:
        steps = [e1._curve(o, correct)[o.index(name) + 1] - e1._curve(o, correct)[o.index(name)] for o in orders]
        assert changes[name].mean() == pytest.approx(np.mean(steps))
    gain = (correct[frozenset(names)] - correct[frozenset()]).mean()
    assert sum(change.mean() for change in changes.values()) == pytest.approx(gain)
    found = e1._extremes(names, orders, correct)
    assert found["most"] == max(names, key=lambda name: changes[name][::2].mean())
    expected = (changes[found["most"]] - changes[found["least"]])[1::2].mean()
    assert found["difference"]["value"] == pytest.approx(expected)


def test_verdicts_are_those_of_the_intervals():
    gain = {"value": 0.06, "low": 0.05, "high": 0.07}
    loss = {"value": -0.06, "low": -0.07, "high": -0.05}
    rows = [{"all": 6, "gain": gain}, {"between": {"most": "imagenet", "least": "cars", "difference": loss}}]
    one, two = e1.ACROSS_SETS.verdicts(rows)
    assert (one.verdict, two.verdict) == (HOLDS, FAILS)
    assert "imagenet minus cars" in two.text
