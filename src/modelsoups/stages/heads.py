"""The initial model theta_0, encoder and head: `modelsoups heads` (section 3.1).

The zero-shot head comes from CLIP's text tower. The linear probe is trained on the frozen features
of the training images, without augmentation, from the zero-shot head if there is one, else zero.
"""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from modelsoups.config.schema import Config
from modelsoups.data.shards import ShardSet
from modelsoups.disk import manifests, paths, storage
from modelsoups.experiment.logits import pixel_batches, shell
from modelsoups.experiment.sets import open_set
from modelsoups.models.classifier import Classifier, load_clip, state_of, zeroshot_weights
from modelsoups.train.linear_probe import extract_features, linear_probe
from modelsoups.weights import state_dicts
from modelsoups.workers.processes import advance, run_tasks


def run(cfg: Config) -> bool:
    """Make the initial model of heads.init and, of a CLIP, the zero-shot model, if incomplete."""
    train = open_set(cfg.data.dir, cfg.data.train)
    wanted = [cfg.heads.init]
    if cfg.model.library != "timm" and cfg.heads.init != "zeroshot":
        wanted.insert(0, "zeroshot")
    todo = []
    for init in wanted:
        if manifests.complete(cfg.run.head(init), _inputs(cfg, init, train)):
            print(f"heads: {init} complete")
        else:
            todo.append(init)
    make = functools.partial(_make, cfg)
    for init, path in run_tasks(make, todo, 1, "heads", lambda _: len(train), cfg.finetune.threads):
        print(f"heads: {init} -> {path}")
    return bool(todo)


def _inputs(cfg: Config, init: str, train: ShardSet) -> dict[str, Any]:
    """What an initial model is made from, as its manifest records it."""
    classes = storage.fingerprint(train.classes)
    inputs: dict[str, Any] = {"model": asdict(cfg.model), "init": init, "classes": classes}
    if init == "zeroshot":
        return inputs
    return {**inputs, "heads": asdict(cfg.heads), "train": train.sha256}


def _make(cfg: Config, init: str) -> Path:
    """Write one initial model into its folder; the path of its weights."""
    train = open_set(cfg.data.dir, cfg.data.train)
    model = _initial_model(cfg, init, train)
    if init == "zeroshot":
        advance(len(train))  # no image is needed
    folder = cfg.run.head(init)
    state = state_of(model)
    path = folder / paths.MODEL
    storage.save_weights(path, state)
    sha256 = state_dicts.state_sha256(state)
    manifests.finish(folder, _inputs(cfg, init, train), [path], sha256=sha256)
    return path


@torch.no_grad()
def _initial_model(cfg: Config, init: str, train: ShardSet) -> Classifier:
    model = shell(cfg, len(train.classes))
    model.head.bias.zero_()
    zeroshot = cfg.run.head("zeroshot")
    if cfg.model.library == "timm":
        model.head.weight.zero_()
    elif init == "lp" and manifests.complete(zeroshot, _inputs(cfg, "zeroshot", train)):
        # The prompts take minutes to encode.
        model.load_state_dict(state_dicts.load_state(zeroshot / paths.MODEL))
    else:
        clip = load_clip(cfg.model)
        model.encoder.load_state_dict(clip.model.visual.state_dict())
        model.head.weight.copy_(zeroshot_weights(clip, train.classes, train.templates))
    if init == "lp":
        features_ND = extract_features(model, pixel_batches(cfg, train, model.image_size))
        labels_N, start_CD = torch.from_numpy(train.labels_N), model.head.weight.detach().cpu()
        with torch.enable_grad():
            weight_CD, bias_C = linear_probe(features_ND, labels_N, start_CD, cfg.heads)
        model.head.weight.copy_(weight_CD)
        model.head.bias.copy_(bias_C)
    return model
