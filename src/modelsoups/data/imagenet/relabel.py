"""ReaL and multilabel: other labels for the validation images, as sets over val's shards without copies of them.

Such a set has its own index files, which point into ../val/*.tar and also keep each image's answers and its row in
val. Its manifest holds the scoring rule; `labels_N` are the original classes. Logits of val, taken at `rows_N`, are
its logits: `score` needs no second forward pass.

Legend: N images of the set, C classes, A answers of an image at most.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelsoups.data.imagenet import metadata
from modelsoups.data.imagenet.listing import original_name
from modelsoups.data.shards import ShardSet
from modelsoups.disk import manifests, storage

if TYPE_CHECKING:  # prepare needs no torch
    from torch import Tensor

OVER = "val"
AVERAGE = {"real": "images", "multilabel": "classes"}
Answers = dict[str, tuple[int, ...]]  # of each image that is scored


def answers(name: str, file: str | None, complete: bool) -> Answers:
    """The right classes of each image that is scored, by key.

    ReaL's come from timm, or from a user's real.json; images without a label are skipped. Multilabel's come from the
    user's human_accuracy_v3.0.0.json; images marked problematic are skipped, and an unclear label counts as right.
    Raises ValueError naming the file that is not what it should be.
    """
    if name == "multilabel":
        assert file is not None
        return _multilabel(Path(file).expanduser(), complete)
    lists = metadata.real_labels() if file is None else storage.read_json(Path(file).expanduser())
    if len(lists) != 50_000:
        raise ValueError(f"{file}: {len(lists):,} lists of labels, expected 50,000, one a validation image")
    return {f"ILSVRC2012_val_{i:08d}": tuple(labels) for i, labels in enumerate(lists, 1) if labels}


def file_sha256(name: str, file: str | None) -> str | None:
    """Of the user's file with the labels; None for the shipped one."""
    if file is None:
        return None
    if not (path := Path(file).expanduser()).is_file():
        raise ValueError(f"data.sources.{name}={file} does not exist")
    return storage.file_sha256(path)


def _multilabel(path: Path, complete: bool) -> Answers:
    table = storage.read_json(path)
    if not isinstance(table, dict) or not {"initial_annots", "problematic_images"} <= set(table):
        raise ValueError(f"{path}: expected keys initial_annots and problematic_images (human_accuracy_v3.0.0.json)")
    annotations = table["initial_annots"]
    if complete and len(annotations) != (expected := metadata.SETS["multilabel"].images):
        raise ValueError(f"{path}: annotations of {len(annotations):,} images, expected {expected:,}")
    problematic = {original_name(image) for image in table["problematic_images"]}
    found: Answers = {}
    for image, annotation in annotations.items():
        key = original_name(image)
        if key is None:
            raise ValueError(f"{path}: {image} is not named ILSVRC2012_val_XXXXXXXX")
        if key not in problematic:
            right = [*annotation.get("correct", []), *annotation.get("unclear", [])]
            if unknown := [wnid for wnid in right if wnid not in metadata.class_of()]:
                raise ValueError(f"{path}: {image} has label {unknown[0]}, not one of the 1000 classes")
            found[key] = tuple(sorted({metadata.class_of()[wnid] for wnid in right}))
    return found


def write(folder: Path, inputs: dict[str, Any], table: Answers, facts: dict[str, Any]) -> int:
    """Write the set's index files and manifest beside a complete val; the number of images."""
    val = folder.parent / OVER
    manifest = storage.read_json(val / manifests.MANIFEST)
    width = max(map(len, table.values()))
    entries, files, start = [], [], 0
    digest = hashlib.sha256(manifest["sha256"].encode())
    for number, shard in enumerate(manifest["shards"]):
        with np.load((val / shard["file"]).with_suffix(".npz"), allow_pickle=False) as arrays:
            columns = {k: arrays[k] for k in ("key", "offset", "size", "label")}
        keys = [str(key, "ascii") for key in columns["key"].tolist()]
        taken = np.array([i for i, key in enumerate(keys) if key in table], dtype=np.int64)
        columns = {k: v[taken] for k, v in columns.items()}
        columns["row"] = taken + start
        columns["answers"] = np.full((len(taken), width), -1, dtype=np.int64)
        for row, i in enumerate(taken):
            columns["answers"][row, : len(table[keys[i]])] = table[keys[i]]
        index = folder / f"{folder.name}-{number:06d}.npz"
        with storage.atomic(index) as tmp, open(tmp, "wb") as file:
            np.savez(file, allow_pickle=False, **columns)
        digest.update(columns["row"].tobytes() + columns["answers"].tobytes())
        files.append(index)
        entries.append({**shard, "file": f"../{OVER}/{shard['file']}", "index": index.name, "images": len(taken)})
        start += len(keys)
    images = sum(e["images"] for e in entries)
    scoring = {"rule": "any of the answers", "average": AVERAGE[folder.name], "over": OVER}
    facts = {**facts, "scoring": scoring, "images": images, "sha256": digest.hexdigest(), "shards": entries}
    manifests.finish(folder, inputs, files, **facts)
    return images


def load(dataset: ShardSet) -> tuple[Tensor, Tensor, Tensor]:
    """rows_N (positions in val), answers_NA (filled up with -1) and classes_N (original) of a relabelled set."""
    import torch

    rows, right = [], []
    for shard in storage.read_json(dataset.folder / manifests.MANIFEST)["shards"]:
        with np.load(dataset.folder / shard["index"], allow_pickle=False) as arrays:
            rows.append(arrays["row"])
            right.append(arrays["answers"])
    rows_N, answers_NA = (torch.from_numpy(np.concatenate(parts)) for parts in (rows, right))
    return rows_N, answers_NA, torch.from_numpy(dataset.labels_N)


def score(dataset: ShardSet, val_logits_MC: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """correct_N, bool, from the logits of all M images of val, and weight_N: what each image counts, None: the same."""
    from modelsoups.stats import multilabel

    assert dataset.scoring is not None
    rows_N, answers_NA, classes_N = load(dataset)
    correct_N = multilabel.correct(val_logits_MC[rows_N], answers_NA).numpy()
    return correct_N, multilabel.weights(classes_N).numpy() if dataset.scoring["average"] == "classes" else None
