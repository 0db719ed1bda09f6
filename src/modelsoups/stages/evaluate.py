"""Computes and caches the logits of all initial and fine-tuned models: `modelsoups evaluate`."""

from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.ingredients import load_weights
from modelsoups.soup.coefficients import Ingredient
from modelsoups.workers.processes import run_tasks


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
    for _ in run_tasks(_evaluate, tasks, experiment.workers, "evaluate", shared=experiment):
        pass
    return True


def _is_cached(experiment: Experiment, model: Ingredient) -> bool:
    names = experiment.sets.evaluated()
    return all(experiment.logits.path(name, model.sha256).exists() for name in names)


def _evaluate(experiment: Experiment, model: Ingredient) -> None:
    state = load_weights(model)
    for name in experiment.sets.evaluated():
        experiment.logits.of(name, model.sha256, state)
