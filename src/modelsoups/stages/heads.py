"""Creates the initial model theta_0 (encoder and head): `modelsoups heads` (section 3.1)."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

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
        if manifests.complete(files.head(init), _inputs(experiment, init)):
            print(f"heads: {init} complete")
        else:
            todo.append(init)
    examples = len(experiment.sets.train)
    size = Size(lambda _: examples, experiment.unit)
    for init, path in run_tasks(_make, todo, 1, "heads", size, experiment):
        print(f"heads: {init} -> {path}")
    return bool(todo)


def _inputs(experiment: Experiment, init: str) -> dict[str, Any]:
    """Return what an initial model depends on (options, classes, data), for manifest.json."""
    config, train = experiment.config, experiment.sets.train
    classes = storage.fingerprint(train.classes)
    inputs: dict[str, Any] = {"model": asdict(config.model), "init": init, "classes": classes}
    if init == "zeroshot":
        return inputs
    heads = asdict(config.heads)
    del heads["lp_loss"]  # it is part of `init`
    return {**inputs, "heads": heads, "train": train.sha256}


def _make(experiment: Experiment, init: str) -> Path:
    """Create and write the initial model `init` (such as lp or zeroshot); return its weights' path."""
    torch.set_num_threads(experiment.config.finetune.threads)
    config, train, files = experiment.config, experiment.sets.train, experiment.files
    zeroshot = files.head("zeroshot")
    made = init != "zeroshot" and manifests.complete(zeroshot, _inputs(experiment, "zeroshot"))
    network = experiment.classifier(len(train.classes))
    start = Initial(init, train, config.heads, config.model, zeroshot / paths.MODEL if made else None)
    experiment.task.initialize(network, start)
    if init == "zeroshot":
        advance(len(train))  # progress counts examples, but zero-shot needs none
    folder = files.head(init)
    state = state_of(network)
    path = folder / paths.MODEL
    storage.save_weights(path, state)
    manifests.finish(folder, _inputs(experiment, init), [path], sha256=state_sha256(state))
    return path
