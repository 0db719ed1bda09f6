"""Creates the initial model theta_0 (encoder and head): `modelsoups heads` (section 3.1)."""

from pathlib import Path

import torch

from modelsoups.checkpoints.states import state_sha256
from modelsoups.disk import manifests, paths, storage
from modelsoups.experiment.draw import initial_of
from modelsoups.experiment.experiment import Experiment
from modelsoups.models.classifier import state_of
from modelsoups.tasks.task import Initial
from modelsoups.workers.processes import Size, advance, run_tasks


def run(experiment: Experiment) -> bool:
    """Create missing initial models: with the head heads.init, those of recipes, for a CLIP also zero-shot."""
    config, files = experiment.config, experiment.files
    names = experiment.task.initial_models(config.model, config.heads.init)
    names += [initial_of(recipe, config.heads) for recipe in experiment.draw.planned()]
    todo = []
    for init in dict.fromkeys(names):
        if manifests.complete(files.head(init), experiment.head_inputs(init)):
            print(f"heads: {init} complete")
        else:
            todo.append(init)
    examples = len(experiment.sets.train)
    size = Size(lambda _: examples, experiment.unit)
    for init, path in run_tasks(_make, todo, 1, "heads", size, experiment):
        print(f"heads: {init} -> {path}")
    return bool(todo)


def _make(experiment: Experiment, init: str) -> Path:
    """Create and write the initial model `init` (such as lp or zeroshot); return its weights' path."""
    torch.set_num_threads(experiment.config.finetune.threads)
    config, train, files = experiment.config, experiment.sets.train, experiment.files
    zeroshot = files.head("zeroshot")
    made = init != "zeroshot" and manifests.complete(zeroshot, experiment.head_inputs("zeroshot"))
    network = experiment.classifier(len(train.classes))
    start = Initial(init, train, config.heads, config.model, zeroshot / paths.MODEL if made else None)
    experiment.task.initialize(network, start)
    if init == "zeroshot":
        advance(len(train))  # progress counts examples, but zero-shot needs none
    folder = files.head(init)
    state = state_of(network)
    path = folder / paths.MODEL
    storage.save_weights(path, state)
    manifests.finish(folder, experiment.head_inputs(init), [path], sha256=state_sha256(state))
    return path
