"""Creates the initial model theta_0 (encoder and head): `modelsoups heads` (section 3.1).

The zero-shot head is computed by CLIP's text tower. The linear probe is trained on frozen features,
without augmentation; it starts from the zero-shot head or, without a text tower (timm), from zero.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from modelsoups.checkpoints.formats import load_state
from modelsoups.checkpoints.states import state_sha256
from modelsoups.disk import manifests, paths, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.models.classifier import Classifier, has_text_tower, load_clip, state_of, zeroshot_weights
from modelsoups.train.linear_probe import extract_features, linear_probe
from modelsoups.workers.processes import advance, run_tasks


def run(experiment: Experiment) -> bool:
    """Create missing initial models: one with head heads.init, for a CLIP also a zero-shot one."""
    config, files = experiment.config, experiment.files
    wanted = [config.heads.init]
    if has_text_tower(config.model) and config.heads.init != "zeroshot":
        wanted.insert(0, "zeroshot")
    todo = []
    for init in wanted:
        if manifests.complete(files.head(init), _inputs(experiment, init)):
            print(f"heads: {init} complete")
        else:
            todo.append(init)
    images = len(experiment.sets.train)
    for init, path in run_tasks(_make, todo, 1, "heads", lambda _: images, shared=experiment):
        print(f"heads: {init} -> {path}")
    return bool(todo)


def _inputs(experiment: Experiment, init: str) -> dict[str, Any]:
    """Return what an initial model depends on (options, classes, data), for manifest.json."""
    config, train = experiment.config, experiment.sets.train
    classes = storage.fingerprint(train.classes)
    inputs: dict[str, Any] = {"model": asdict(config.model), "init": init, "classes": classes}
    if init == "zeroshot":
        return inputs
    return {**inputs, "heads": asdict(config.heads), "train": train.sha256}


def _make(experiment: Experiment, init: str) -> Path:
    """Create and write the initial model `init` (lp or zeroshot); return its weights' path."""
    torch.set_num_threads(experiment.config.finetune.threads)
    model = _initial_model(experiment, init)
    if init == "zeroshot":
        advance(len(experiment.sets.train))  # progress counts images, but zero-shot needs none
    folder = experiment.files.head(init)
    state = state_of(model)
    path = folder / paths.MODEL
    storage.save_weights(path, state)
    manifests.finish(folder, _inputs(experiment, init), [path], sha256=state_sha256(state))
    return path


@torch.no_grad()
def _initial_model(experiment: Experiment, init: str) -> Classifier:
    config, train = experiment.config, experiment.sets.train
    model = experiment.classifier(len(train.classes))
    model.head.bias.zero_()
    zeroshot = experiment.files.head("zeroshot")
    if init == "lp" and not has_text_tower(config.model):
        model.head.weight.zero_()
    elif init == "lp" and manifests.complete(zeroshot, _inputs(experiment, "zeroshot")):
        # Loaded instead of computed: encoding the prompts takes minutes.
        model.load_state_dict(load_state(zeroshot / paths.MODEL))
    else:
        clip = load_clip(config.model)
        model.encoder.load_state_dict(clip.model.visual.state_dict())
        model.head.weight.copy_(zeroshot_weights(clip, train.classes, train.templates))
    if init == "lp":
        batches = experiment.task.test_batches(train, model)
        features_ND = extract_features(model, batches)
        labels_N, start_CD = torch.from_numpy(train.labels_N), model.head.weight.detach().cpu()
        with torch.enable_grad():
            weight_CD, bias_C = linear_probe(features_ND, labels_N, start_CD, config.heads)
        model.head.weight.copy_(weight_CD)
        model.head.bias.copy_(bias_C)
    return model
