"""The interface of a task serves one without images: vectors, one number to predict, mean squared error."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vectors import Line, Regression, Vectors

from modelsoups.config.schema import FinetuneConfig, HeadsConfig, SoupConfig
from modelsoups.disk import storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.ingredients import Ingredients
from modelsoups.experiment.logits import LogitsCache
from modelsoups.experiment.soups import Soups
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Ingredient
from modelsoups.soup.methods import METHODS
from modelsoups.train.trainer import Trainer, Workspace
from modelsoups.weights import state_dicts

RECIPE = Recipe(0.05, 0.0, 4, 0.0, 0.0, "minimal", 0, 16, 0, 10.0)


@pytest.fixture
def trained(tmp_path):
    """The task, its sets, and models trained by the trainer with three learning rates."""
    task, train, holdout = Regression(), Vectors(0), Vectors(1)
    start = state_dicts.load_state
    found = []
    for i, lr in enumerate((0.02, 0.05, 0.3)):
        folder, model = tmp_path / f"run/ingredients/{i:03d}", task.build(None, 1)
        folder.mkdir(parents=True)
        storage.save_weights(tmp_path / "start.safetensors", model.state_dict())
        recipe = Recipe(**{**vars(RECIPE), "lr": lr, "seed": i})
        trainer = Trainer(task, recipe, FinetuneConfig(), model, train, Workspace(folder, "x"))
        start = Ingredient(
            "start", str(tmp_path / "start.safetensors"), state_dicts.state_sha256(model.state_dict()), None
        )
        trainer.load(start)
        assert trainer.train() is None
        path = folder / "model.safetensors"
        storage.save_weights(path, model.state_dict())
        found.append(Ingredient(f"{i:03d}", str(path), state_dicts.state_sha256(model.state_dict()), recipe))
    return task, train, holdout, found


def test_a_model_without_images_is_trained_scored_and_compared(trained):
    task, _, holdout, found = trained
    labels_N = torch.from_numpy(holdout.labels_N)
    scored = {}
    for ingredient in found:
        model = Line()
        model.load_state_dict(state_dicts.load_state(ingredient.path))
        with torch.no_grad():
            scored[ingredient.id] = task.outcomes(
                torch.cat(list(map(model, task.test_batches(holdout, model)))), labels_N
            )
    untrained = task.outcomes(task.build(None, 1)(holdout.inputs_N4).detach(), labels_N)
    for outcomes_N in scored.values():
        found_by_hand = task.compare(outcomes_N, untrained)
        assert found_by_hand.difference == pytest.approx(task.score(outcomes_N) - task.score(untrained), rel=1e-6)
        assert found_by_hand.low > 0


def test_the_cache_of_logits_and_the_greedy_soup_choose_by_the_tasks_score(trained, tmp_path, monkeypatch):
    task, _, holdout, found = trained
    sets = SimpleNamespace(data=SimpleNamespace(holdout="holdout"), holdout=holdout, **{"__getitem__": None})
    sets = type("Sets", (), {"__getitem__": lambda self, name: holdout, "data": sets.data, "holdout": holdout})()
    files = Run(tmp_path / "run", tmp_path / "results")
    cache = LogitsCache(files, sets, task, lambda classes: task.build(None, classes))
    for ingredient in found:
        cache.of("holdout", ingredient.sha256, state_dicts.load_state(ingredient.path))
    soups = Soups(files, Ingredients(files, None, HeadsConfig(), SoupConfig(minimum=1), None), cache)
    pool = soups.pool(found)
    scores = [task.points(x, pool.labels_N) for x in pool.logits]
    best, greedy = METHODS["best"](pool), METHODS["greedy"](pool)
    monkeypatch.setattr(cache, "forward", None)  # candidates that were measured once are not measured again
    assert METHODS["greedy_replacement"](soups.pool(found), max_picks=1).ingredients == best.ingredients
    assert METHODS["greedy"](soups.pool(found)) == greedy
    monkeypatch.undo()
    assert best.ingredients == (found[int(np.argmax(scores))].id,)
    mixed = state_dicts.mix([pool.state(int(i)) for i in greedy.ingredients], greedy.coefficients)
    assert task.points(pool.evaluate(mixed), pool.labels_N) >= max(scores)
