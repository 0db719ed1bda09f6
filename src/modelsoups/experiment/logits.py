"""Logits of models on data sets, cached by the hashes of both: `modelsoups evaluate`.

Everything that is measured goes through `logits_of`: individuals, soups and ensembles share one cache. Logits are
kept in float32, projected to the data set's own label space (R, ObjectNet, A), so that an ensemble averages exactly
what the official code averages.

Legend: N images of a set, B of a batch, C classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from modelsoups.config.schema import Config
from modelsoups.data import crops as decoded
from modelsoups.data.crops import all_pixels
from modelsoups.data.shards import ShardSet
from modelsoups.disk import storage
from modelsoups.experiment.sets import open_set
from modelsoups.models.classifier import Classifier, build, normalise
from modelsoups.stats import scores
from modelsoups.stats.scores import Logits
from modelsoups.workers.processes import cores

IN_MEMORY = 2**30  # bytes of decoded images of a set that a process keeps; larger sets are mapped from the disk
Weights = Mapping[str, Tensor]


def logits_of(cfg: Config, name: str, sha256: str, state: Weights | None = None) -> Logits:
    """Logits of the model with these weights on a data set, from the cache if they are there.

    Without `state` the cache must hold them: ValueError names the missing file and the stage that makes it.
    """
    path = cache_path(cfg, sha256, name)

    def compute() -> Tensor:
        if state is None:
            raise ValueError(f"{path} is missing; run `modelsoups evaluate` and `modelsoups soup` first")
        return forward(cfg, name, state)

    return Logits(name, cached(path, compute), torch.from_numpy(open_set(cfg.data.dir, name).labels_N))


def cached(path: Path, compute: Callable[[], Tensor]) -> Tensor:
    """The logits_NC in a file of the cache; computed and written there where it is missing.

    ValueError names a damaged file.
    """
    if not path.exists():
        logits_NC = compute()
        storage.save_weights(path, {"logits": logits_NC})
        return logits_NC
    try:
        return safetensors.torch.load_file(path)["logits"]
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run the stage again") from error


def cache_path(cfg: Config, sha256: str, name: str, images: int | None = None) -> Path:
    """The cache file of a model's logits on a data set, or on part of its images."""
    whole = cfg.run.logits(sha256, name, open_set(cfg.data.dir, name).sha256)
    return whole if images is None else whole.with_name(f"{whole.stem}-{images}{whole.suffix}")


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
            rows.append(scores.project(logits_BC, dataset.projection))
    return torch.cat(rows)


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


_SHELLS: dict[str, Classifier] = {}


def shell(cfg: Config, num_classes: int) -> Classifier:
    """The experiment's classifier, built once a process; its weights are whatever was loaded last."""
    key = f"{cfg.model} {num_classes}"
    if key not in _SHELLS:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        _SHELLS[key] = build(cfg.model, num_classes).to(device).eval()
    return _SHELLS[key]
