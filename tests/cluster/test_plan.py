"""What a sweep will cost, by hand and for the paper's."""

import json

import pytest
from pico import make_data

from modelsoups.cluster import plan
from modelsoups.config.compose import load
from modelsoups.disk import storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe


def write(cfg, index, name, value):
    storage.write_text(cfg.run.ingredient(index) / name, value if isinstance(value, str) else json.dumps(value))


def test_the_cost_of_a_sweep_by_hand():
    values = {"lr": 1e-3, "weight_decay": 0.0, "label_smoothing": 0.0, "mixup": 0.0, "warmup_steps": 0, "clip": 1.0}
    recipes = [Recipe(**values, epochs=n, batch_size=10, seed=0, aug="minimal") for n in (2, 3)]
    total = plan.cost(recipes, concurrent=None, train=105, weights=1000, unit="images")
    assert (total.ingredients, total.steps, total.examples) == (2, 50, 500)  # ten steps an epoch
    assert (total.at_once, total.weights_bytes, total.checkpoint_bytes) == (2, 4000, 12000)
    in_steps = plan.cost(
        [Recipe(**values, epochs=None, steps=7, batch_size=10, seed=0, aug="minimal")], None, 105, 1, "images"
    )
    assert (in_steps.steps, in_steps.examples) == (7, 70)
    assert plan.cost(recipes, concurrent=1, train=105, weights=1000, unit="images").checkpoint_bytes == 6000
    with pytest.raises(ValueError, match=r"recipe\.batch_size=10 is more than the 9 training images"):
        plan.cost(recipes, concurrent=None, train=9, weights=1000, unit="images")


def test_the_papers_sweep_costs_what_its_epochs_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan.run(Experiment(load(["experiment=imagenet", "sweep.search=released_72", "plan.images_per_second=12000"])))
    said = capsys.readouterr().out
    assert "70 ingredients, 868," in said  # million images: the 72 without the initialization and a double
    assert "20.10 GPU-hours" in said


def test_a_plan_of_texts_counts_examples(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["plan.train_images=2935", "plan.parameters=110_000_000", "plan.images_per_second=100", "sweep.count=4"]
    plan.run(Experiment(load(["experiment=glue", *given])))
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("plan: 4 ingredients, ")
    assert " training examples, " in first
    assert second.endswith(" at 100 examples/s per GPU (plan.images_per_second)")


@pytest.mark.parametrize("key", ["train_images", "parameters", "images_per_second"])
def test_what_a_plan_cannot_know_yet_it_asks_for(cfg, key):
    given = {"train_images": "1000", "parameters": "1000", "images_per_second": "10"}
    known = [f"plan.{k}={v}" for k, v in given.items() if k != key]
    with pytest.raises(ValueError, match=rf"set plan\.{key}="):
        plan.run(Experiment(load(["sweep.search=pico.yaml", "recipe.batch_size=10", "name=x", *known])))


def test_the_speed_is_measured_on_finished_ingredients(cfg, capsys):
    for index, seconds in enumerate((10, 20, 30)):
        write(cfg, index, "manifest.json", {"inputs": {}, "files": {}, "seconds": seconds, "images": 1200})
    write(cfg, 3, "manifest.json", {"inputs": {}, "files": {}, "seconds": 10, "images": 1200, "layouts": ["2x1"]})
    plan.run(Experiment(load(["sweep.search=pico.yaml", "name=x", "plan.train_images=1000", "plan.parameters=1"])))
    assert "60 images/s per GPU (the median of 4 finished ingredients)" in capsys.readouterr().out


def test_options_that_the_draw_does_not_have_are_told(cfg, capsys):
    given = ["plan.train_images=1000", "plan.parameters=1", "plan.images_per_second=10"]
    for count, told in ((0, False), (1, True)):
        plan.run(Experiment(load([*cfg.overrides, *given, f"sweep.seed={count}"])))
        assert ("with these options, `sweep` would draw others" in capsys.readouterr().out) is told


def test_more_gpus_and_fewer_models_at_once_change_the_hours(cfg, capsys):
    given = ["plan.train_images=1000", "plan.parameters=1", "plan.images_per_second=10"]
    hours = []
    for more in ([], ["cluster.nodes=2"], ["cluster.concurrent=3"], ["cluster.concurrent=100"]):
        plan.run(Experiment(load([*cfg.overrides, *given, *more])))
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "at least" in line]
        hours.append(float(line.split("at least ")[1].split()[0]))
    one, two_nodes, three_at_once, hundred_at_once = hours
    assert two_nodes == pytest.approx(one / 2, abs=0.01)
    assert three_at_once == pytest.approx(2 * one, abs=0.01)  # of six models
    assert hundred_at_once == one


def test_loading_is_timed_and_named_if_it_limits_the_gpus(cfg, tmp_path, capsys, monkeypatch):
    data = make_data(tmp_path / "data")
    given = [*cfg.overrides, f"data.dir={data}", "plan.parameters=1"]
    measured = Experiment(load(given)).loading_speed(Experiment(cfg).draw.planned()[0])
    assert measured > 10
    monkeypatch.setattr(Experiment, "loading_speed", lambda self, recipe: 500.0)
    for speed, more, said in (
        (4000, [], "a node trains 4,000 images/s and loads 3,500 on 7 of cluster.cpus_per_node=8 cores"),
        (4000, [], "loading limits, so fine-tuning takes 1.1 times as long: see data.train_format"),
        (3000, [], "loading keeps up"),
        (1000, ["cluster.gpus_per_node=4"], "a node trains 4,000 images/s and loads 2,000 on 4 of"),
    ):
        plan.run(Experiment(load([*given, f"plan.images_per_second={speed}", *more])))
        assert said in capsys.readouterr().out
