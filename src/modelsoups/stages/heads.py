"""The initial model theta_0, encoder and head: `modelsoups heads` (section 3.1, LP-FT of Kumar et al. 2022).

The zero-shot head comes from CLIP's text tower; the linear probe is trained on frozen features of the training split,
without augmentation, starting at the zero-shot head where there is one and at zero otherwise.

Legend: N images, B of a batch, C classes, D features.
"""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modelsoups.config.schema import Config, HeadsConfig
from modelsoups.data.shards import ShardSet
from modelsoups.disk import manifests, paths, storage
from modelsoups.experiment.logits import pixel_batches, shell
from modelsoups.experiment.sets import open_set
from modelsoups.models.classifier import Classifier, load_clip, normalise, state_of, zeroshot_weights
from modelsoups.weights import state_dicts
from modelsoups.workers.processes import advance, run_tasks


def run(cfg: Config) -> bool:
    """Make the zero-shot model (for a CLIP) and the configured initialization, where they are not complete."""
    train = open_set(cfg.data.dir, cfg.data.train)
    wanted = [cfg.heads.init] if cfg.model.library == "timm" else list(dict.fromkeys(["zeroshot", cfg.heads.init]))
    inputs = {init: _inputs(cfg, init, train) for init in wanted}
    todo = [init for init in wanted if not manifests.complete(cfg.run.head(init), inputs[init])]
    for init in wanted:
        if init not in todo:
            print(f"heads: {init} complete")
    job = functools.partial(_make, cfg, inputs)
    for init, path in run_tasks(job, todo, 1, "heads", lambda _: len(train)):
        print(f"heads: {init} -> {path}")
    return bool(todo)


def _inputs(cfg: Config, init: str, train: ShardSet) -> dict[str, Any]:
    inputs: dict[str, Any] = {"model": asdict(cfg.model), "init": init, "classes": storage.fingerprint(train.classes)}
    return inputs if init == "zeroshot" else {**inputs, "heads": asdict(cfg.heads), "train": train.sha256}


def _initial_model(cfg: Config, init: str, train: ShardSet) -> Classifier:
    model = shell(cfg, len(train.classes))
    zeroshot = cfg.run.head("zeroshot")
    with torch.no_grad():
        model.head.bias.zero_()
        if cfg.model.library == "timm":
            model.head.weight.zero_()
        elif init == "lp" and manifests.complete(zeroshot, _inputs(cfg, "zeroshot", train)):  # the prompts take minutes
            model.load_state_dict(state_dicts.load_state(zeroshot / paths.MODEL))
        else:
            clip = load_clip(cfg.model)
            model.encoder.load_state_dict(clip.model.visual.state_dict())
            model.head.weight.copy_(zeroshot_weights(clip, train.classes, train.templates))
    if init == "lp":
        features_ND = features(cfg, model, train)
        labels_N = torch.from_numpy(train.labels_N)
        weight_CD, bias_C = linear_probe(features_ND, labels_N, model.head.weight.detach().cpu(), cfg.heads)
        with torch.no_grad():
            model.head.weight.copy_(weight_CD)
            model.head.bias.copy_(bias_C)
    return model


@torch.inference_mode()
def features(cfg: Config, model: Classifier, dataset: ShardSet) -> Tensor:
    """features_ND of every image of a set, without augmentation, on the CPU."""
    found = []
    for batch in pixel_batches(cfg, dataset, model.image_size):
        found.append(model.features(normalise(model, batch)).float().cpu())
        advance(len(batch))
    return torch.cat(found)


def linear_probe(features_ND: Tensor, labels_N: Tensor, start_CD: Tensor, heads: HeadsConfig) -> tuple[Tensor, Tensor]:
    """weight_CD and bias_C of a softmax regression by AdamW with per-step cosine, from start_CD and zero."""
    features_ND = features_ND.clone()  # out of inference mode
    weight_CD = start_CD.clone().requires_grad_()
    bias_C = torch.zeros(len(start_CD), requires_grad=True)
    optimizer = torch.optim.AdamW([weight_CD, bias_C], heads.lp_lr, weight_decay=heads.lp_weight_decay)
    batches = -(-len(labels_N) // heads.lp_batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, heads.lp_epochs * batches)
    generator = torch.Generator().manual_seed(heads.seed)
    for _ in range(heads.lp_epochs):
        for index_B in torch.randperm(len(labels_N), generator=generator).split(heads.lp_batch_size):
            loss = F.cross_entropy(features_ND[index_B] @ weight_CD.T + bias_C, labels_N[index_B])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return weight_CD.detach(), bias_C.detach()


def _make(cfg: Config, inputs: dict[str, dict[str, Any]], init: str) -> Path:
    """One initial model, in its folder; the path of its weights."""
    torch.set_num_threads(cfg.finetune.threads)
    train = open_set(cfg.data.dir, cfg.data.train)
    model = _initial_model(cfg, init, train)
    if init == "zeroshot":
        advance(len(train))  # it has looked at none
    folder = cfg.run.head(init)
    state = state_of(model)
    path = folder / paths.MODEL
    storage.save_weights(path, state)
    manifests.finish(folder, inputs[init], [path], sha256=state_dicts.state_sha256(state))
    return path
