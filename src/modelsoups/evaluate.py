"""Logits of models on data sets, cached by the hashes of both: `modelsoups evaluate`.

Everything that is measured goes through `logits_of`: individuals, soups and ensembles share one cache. Logits are
kept in float32, projected to the data set's own label space (R, ObjectNet, A), so that an ensemble averages exactly
what the official code averages.

Legend: N images of a set, B of a batch, C classes, H height, W width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from modelsoups import runs
from modelsoups.core import metrics
from modelsoups.core.types import Ingredient, Logits
from modelsoups.data import decoded
from modelsoups.data.shards import ShardSet
from modelsoups.model import Classifier, build
from modelsoups.parallel import cores, run_tasks
from modelsoups.pool import initial_models, load_pool, load_weights
from modelsoups.schema import Config

IN_MEMORY = 2**30  # bytes of decoded images of a set that a process keeps; larger sets are mapped from the disk
Weights = Mapping[str, Tensor]


def run(cfg: Config) -> bool:
    """Evaluate the initial model and every complete ingredient on the hold-out, the test set and the shifts."""
    models = [*initial_models(cfg).values(), *load_pool(cfg).ingredients]
    tasks = [m for m in models if not _all_there(cfg, m.sha256)]
    names = ", ".join(evaluated(cfg))
    if missing := missing_names(cfg):
        print(
            f"evaluate: not available: {', '.join(missing)}; `modelsoups prepare` adds them once their files are there"
        )
    if not tasks:
        print(f"evaluate: complete, {len(models)} models on {names}")
        return False
    print(f"evaluate: {len(tasks)} of {len(models)} models on {names}")
    decode_once(cfg, evaluated(cfg))
    for _ in run_tasks(functools.partial(_evaluate, cfg), tasks, workers(cfg), "evaluate"):
        pass
    return True


def workers(cfg: Config) -> int:
    """Processes side by side: one a GPU where there are any, else one a core."""
    return cfg.finetune.parallel or torch.cuda.device_count() or cores()


def test_names(cfg: Config) -> list[str]:
    """The data sets that are only looked at when everything has been chosen: the test set, and the shifts and extra
    sets that are prepared. Sets that give other labels to the test set's images are not among them: its logits do."""
    others = [n for n in [*cfg.data.shifts, *cfg.data.extra] if is_prepared(cfg, n)]
    return [cfg.data.test, *(n for n in others if open_set(cfg.data.dir, n).scoring is None)]


def evaluated(cfg: Config) -> list[str]:
    """The data sets that every ingredient is evaluated on.

    An imported pool can be looked at without the hold-out of its authors; nothing can be chosen then.
    """
    without = cfg.pool == "imported" and not is_prepared(cfg, cfg.data.holdout)
    return test_names(cfg) if without else [cfg.data.holdout, *test_names(cfg)]


def missing_names(cfg: Config) -> list[str]:
    """The shifts and extra sets of the experiment that are not prepared."""
    return [n for n in [*cfg.data.shifts, *cfg.data.extra] if not is_prepared(cfg, n)]


def is_prepared(cfg: Config, name: str) -> bool:
    """Whether `prepare` has made a set; opening it says if it is damaged."""
    return (Path(cfg.data.dir) / name / runs.MANIFEST).exists()


def _all_there(cfg: Config, sha256: str) -> bool:
    return all(_cache_path(cfg, sha256, name).exists() for name in evaluated(cfg))


def _evaluate(cfg: Config, model: Ingredient) -> None:
    state = load_weights(model)
    for name in evaluated(cfg):
        logits_of(cfg, name, model.sha256, state)


def logits_of(cfg: Config, name: str, sha256: str, state: Weights | None = None) -> Logits:
    """Logits of the model with these weights on a data set, from the cache if they are there.

    Without `state` the cache must hold them: ValueError names the missing file and the stage that makes it.
    """
    path = _cache_path(cfg, sha256, name)
    labels_N = torch.from_numpy(open_set(cfg.data.dir, name).labels_N)
    if path.exists():
        try:
            logits_NC = safetensors.torch.load_file(path)["logits"]
        except (safetensors.SafetensorError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it and run the stage again") from error
        return Logits(name, logits_NC, labels_N)
    if state is None:
        raise ValueError(f"{path} is missing; run `modelsoups evaluate` and `modelsoups soup` first")
    logits_NC = forward(cfg, name, state)
    runs.save_weights(path, {"logits": logits_NC})
    return Logits(name, logits_NC, labels_N)


def _cache_path(cfg: Config, sha256: str, name: str) -> Path:
    return cfg.run.logits(sha256, name, open_set(cfg.data.dir, name).sha256)


@torch.inference_mode()
def forward(cfg: Config, name: str, state: Weights, of_N: Tensor | None = None) -> Tensor:
    """Projected logits_NC, float32 on the CPU, of a state dict of the experiment's classifier.

    of_N: which images, as booleans; all by default.
    """
    dataset = open_set(cfg.data.dir, name)
    model = shell(cfg, len(dataset.classes))
    model.load_state_dict(dict(state))
    model.eval()
    rows, seen = [], 0
    for batch_BCHW in pixel_batches(cfg, dataset, model.image_size):
        pixels_BCHW = batch_BCHW if of_N is None else batch_BCHW[of_N[seen : seen + len(batch_BCHW)]]
        seen += len(batch_BCHW)
        if len(pixels_BCHW):
            logits_BC = model(normalise(model, pixels_BCHW)).float().cpu()
            rows.append(metrics.project(logits_BC, dataset.projection))
    return torch.cat(rows)


def normalise(model: Classifier, pixels_BCHW: Tensor) -> Tensor:
    """uint8 pixels -> the floats that the encoder was pre-trained on, on the model's device."""
    device = model.head.weight.device
    return (pixels_BCHW.to(device).float().div_(255) - _per_channel(model.mean, device)) / _per_channel(
        model.std, device
    )


@functools.lru_cache(maxsize=16)
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """values_1C11, kept: making them anew for each batch would wait for the GPU."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(1, 3, 1, 1)


def decode_once(cfg: Config, names: list[str]) -> None:
    """Decode sets that are too large to keep in memory into the run's folder, where all processes map them.

    A set over the budget (`data.decoded`) is decoded again for each model.
    """
    for dataset in (open_set(cfg.data.dir, name) for name in names):
        side = cfg.model.image_size
        if decoded.size(dataset, side) > IN_MEMORY and decoded.fits(dataset, side, _pixels(cfg)):
            decoded.write(dataset, side, _pixels(cfg))


def _pixels(cfg: Config) -> Path:
    return cfg.run.root / "pixels"


def pixel_batches(cfg: Config, dataset: ShardSet, image_size: int) -> Iterator[Tensor]:
    """uint8 pixels_BCHW in the set's order, resized and cropped as CLIP evaluates."""
    pixels_NCHW = kept_pixels(cfg, dataset, image_size)
    if pixels_NCHW is not None:
        yield from pixels_NCHW.split(cfg.evaluate.batch_size)
        return
    crops = decoded.Crops(dataset, image_size)
    yield from torch.utils.data.DataLoader(crops, cfg.evaluate.batch_size, num_workers=max(1, cores() // 2))


def kept_pixels(cfg: Config, dataset: ShardSet, image_size: int) -> Tensor | None:
    """uint8 pixels_NCHW of a whole set, in memory or mapped; None of a large set that `decode_once` did not write."""
    if decoded.size(dataset, image_size) <= IN_MEMORY:
        return all_pixels(str(dataset.folder), dataset.sha256, image_size)
    return decoded.read(dataset, image_size, _pixels(cfg))


@functools.lru_cache(maxsize=16)
def all_pixels(folder: str, sha256: str, image_size: int) -> Tensor:
    """Every image of a small set, decoded once for all models: uint8 pixels_NCHW. sha256 is part of the key."""
    crops = decoded.Crops(ShardSet(Path(folder)), image_size)
    return torch.stack([crops[i] for i in range(len(crops))])


@functools.lru_cache(maxsize=32)
def open_set(folder: str, name: str) -> ShardSet:
    return ShardSet(Path(folder) / name)


_SHELLS: dict[str, Classifier] = {}


def shell(cfg: Config, num_classes: int) -> Classifier:
    """The experiment's classifier, built once a process; its weights are whatever was loaded last."""
    key = f"{cfg.model} {num_classes}"
    if key not in _SHELLS:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        _SHELLS[key] = build(cfg.model, num_classes).to(device).eval()
    return _SHELLS[key]
