"""Computes and caches the logits of all initial and fine-tuned models: `modelsoups evaluate`."""

import functools
from collections.abc import Mapping

from torch import Tensor

from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.ingredients import load_weights
from modelsoups.soup.coefficients import Ingredient
from modelsoups.workers.processes import Size, advance, run_tasks


def run(experiment: Experiment) -> bool:
    """Compute all logits that are not cached yet; return whether there were any."""
    sets, ingredients = experiment.sets, experiment.ingredients
    models = [*ingredients.initial().values(), *ingredients.find().ingredients]
    tasks = [model for model in models if not _is_cached(experiment, model)]
    names = ", ".join(sets.evaluated())
    if missing := sets.missing():
        print(f"evaluate: not available: {', '.join(missing)}; get their files and run `modelsoups prepare`")
    if not tasks:
        print(f"evaluate: complete, {len(models)} models on {names}")
        return False
    print(f"evaluate: evaluating {len(tasks)} of {len(models)} models on {names}")
    experiment.prepare_inputs(sets.evaluated())
    size = Size(functools.partial(_examples, experiment), experiment.unit)
    for _ in run_tasks(_evaluate, tasks, experiment.workers, "evaluate", size, experiment):
        pass
    return True


def _is_cached(experiment: Experiment, model: Ingredient) -> bool:
    return not _examples(experiment, model)


def _examples(experiment: Experiment, model: Ingredient) -> int:
    """Return how many examples the model is still to be evaluated on, in all data sets together."""
    names = experiment.sets.evaluated()
    missing = [name for name in names if not experiment.logits.path(name, model.sha256).exists()]
    return sum(len(experiment.sets[name]) for name in missing)


def _evaluate(experiment: Experiment, model: Ingredient) -> None:
    state = load_weights(model)
    for name in experiment.sets.evaluated():
        check_classes(experiment, name, model, state)
        if not experiment.logits.path(name, model.sha256).exists():
            experiment.logits.of(name, model.sha256, state)
            advance(len(experiment.sets[name]))


def check_classes(experiment: Experiment, name: str, model: Ingredient, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a data set has another number of classes than the model's head."""
    classes, head_CD = len(experiment.sets[name].classes), state.get("head.weight")
    if head_CD is not None and len(head_CD) != classes:
        there = f"{experiment.sets.folder(name)} has {classes:,} classes"
        way_out = "evaluate on a data set with the classes of data.train, or choose another name=... for this run"
        raise ValueError(f"{there}, but the head of {model.path} has {len(head_CD):,}; {way_out}")
