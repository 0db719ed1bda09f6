"""ReaL, multilabel and ImageNet-X: other labels for the images of ImageNet's validation set, val, or a part of them.

Their index files point into val's tars, and give each image's index in val and correct classes
("answers"). `score` therefore needs only val's logits. labels_N has the classes of ImageNet.

Last letters of tensor names: N images of the set, M images of val, at most A answers per image.
"""

import csv
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelsoups.data.imagenet import metadata
from modelsoups.data.imagenet.listing import original_name
from modelsoups.data.shards import COLUMNS, Json, ShardSet
from modelsoups.disk import manifests, storage

if TYPE_CHECKING:  # `prepare` does not load torch
    from torch import Tensor

OVER = "val"
X_SETS = tuple(f"x_{factor}" for factor in (*metadata.FACTORS, metadata.ALL))
# each set's accuracy is a mean over these
AVERAGE = {"real": "images", "multilabel": "classes"} | dict.fromkeys(X_SETS, "images")
NEEDED = {  # key of data.sources -> what it is to name
    "multilabel": "the file human_accuracy_v3.0.0.json",
    "x": "the folder imagenet_x/annotations of https://github.com/facebookresearch/imagenetx",
}
X_FILES = ("imagenet_x_val_top_factor.jsonl", "prototypical_paths.csv")
Answers = dict[str, tuple[int, ...]]  # key of a scored image -> its correct classes


def answers(name: str, file: str | None, complete: bool) -> Answers:
    """Return the correct classes of each image, by image key, without images that are not scored.

    ReaL's labels come from timm, or from the user's real.json. Multilabel's come from the user's
    human_accuracy_v3.0.0.json, without images that it calls problematic; its "unclear" labels count
    as correct. ImageNet-X's are val's own, of the images that have the set's factor. Raises ValueError
    for a file of a different format.
    """
    if name in X_SETS:
        assert file is not None
        return _answers_with_factor(name.removeprefix("x_"), Path(file).expanduser())
    if name == "multilabel":
        assert file is not None
        return _multilabel_answers(Path(file).expanduser(), complete)
    lists = metadata.real_labels() if file is None else storage.read_json(Path(file).expanduser())
    if len(lists) != 50_000:
        expected = "50,000 (one per image)"
        raise ValueError(f"{file} has {len(lists):,} lists of labels; expected {expected}")
    return {f"ILSVRC2012_val_{i:08d}": tuple(labels) for i, labels in enumerate(lists, 1) if labels}


def file_sha256(name: str, file: str | None) -> str | None:
    """Return the sha256 of the user's label file, or one hash of several; None if `file` is None (labels from timm)."""
    if file is None:
        return None
    place, key = Path(file).expanduser(), metadata.source_key(name)
    if name not in X_SETS:
        if not place.is_file():
            raise ValueError(f"data.sources.{key}={file} does not exist")
        return storage.file_sha256(place)
    for path in (place / part for part in X_FILES):
        if not path.is_file():
            raise ValueError(f"{path} does not exist; set data.sources.{key} to {NEEDED[key]}")
    return storage.fingerprint([storage.file_sha256(place / part) for part in X_FILES])


def _answers_with_factor(factor: str, folder: Path) -> Answers:
    """Return val's own class of each image whose top factor is `factor`, or of all images.

    The three prototypes of each class, to which its images were compared, are left out, as by default in
    the authors' code (load_annotations in imagenet_x/utils.py).
    """
    path, prototypes = folder / X_FILES[0], _prototypes(folder / X_FILES[1])
    labels = metadata.val_labels()
    found: Answers = {}
    for line, row in enumerate(storage.read_jsonl(path), 1):
        where = f"{path} line {line}"
        values = row if isinstance(row, dict) else {}
        key = original_name(str(values.get("file_name", "")))
        if key is None or not key.startswith("ILSVRC") or not 1 <= int(key[-8:]) <= len(labels):
            raise ValueError(f"{where} names no validation image; expected file_name ILSVRC2012_val_XXXXXXXX.JPEG")
        label = labels[int(key[-8:]) - 1]
        if values.get("class") != label:
            raise ValueError(f"{where}: {key} has class {values.get('class')}, expected {label}; restore the file")
        if factor != metadata.ALL and values.get(factor) not in (0, 1):
            raise ValueError(f"{where}: {factor} is {values.get(factor)!r}, expected 0 or 1; restore the file")
        if (factor == metadata.ALL or values[factor]) and key not in prototypes:
            found[key] = (label,)
    if not found:
        raise ValueError(f"{path} has no image with the factor {factor}; restore the file")
    return found


def _prototypes(path: Path) -> set[str]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if "file_name" not in (rows.fieldnames or ()):
            raise ValueError(f"{path} has no column file_name; restore the file")
        return {row["file_name"].partition(".")[0] for row in rows}


def _multilabel_answers(path: Path, complete: bool) -> Answers:
    table, keys = storage.read_json(path), ("initial_annots", "problematic_images")
    if not isinstance(table, dict) or not set(keys) <= set(table):
        raise ValueError(f"{path} lacks {' or '.join(keys)}; expected human_accuracy_v3.0.0.json")
    annotations, expected_images = table[keys[0]], metadata.SETS["multilabel"].images
    if complete and len(annotations) != expected_images:
        raise ValueError(f"{path} has labels of {len(annotations):,} images, expected {expected_images:,}")
    problematic = set(map(original_name, table[keys[1]]))
    found: Answers = {}
    for image, annotation in annotations.items():
        key = original_name(image)
        if key is None:
            expected = "ILSVRC2012_val_XXXXXXXX; use human_accuracy_v3.0.0.json"
            raise ValueError(f"{path}: {image} is not named {expected}")
        if key not in problematic:
            right = {*annotation.get("correct", []), *annotation.get("unclear", [])}
            if unknown := sorted(right - metadata.class_of().keys()):
                wrong = f"{unknown[0]}, which is not an ImageNet class; use human_accuracy_v3.0.0.json"
                raise ValueError(f"{path}: {image} has label {wrong}")
            found[key] = tuple(sorted(map(metadata.class_of().__getitem__, right)))
    return found


def write(folder: Path, inputs: Json, table: Answers, facts: Json) -> int:
    """Write a set's manifest and index, which point into val's tars; return its image count."""
    val = folder.parent / OVER
    manifest = storage.read_json(val / manifests.MANIFEST)
    width = max(map(len, table.values()))
    entries, files, start = [], [], 0
    digest = hashlib.sha256(manifest["sha256"].encode())
    for number, shard in enumerate(manifest["shards"]):
        with np.load((val / shard["file"]).with_suffix(".npz"), allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in COLUMNS}
        keys = np.char.decode(columns["key"], "ascii").tolist()
        taken = np.array([i for i, key in enumerate(keys) if key in table], dtype=np.int64)
        columns = {name: column[taken] for name, column in columns.items()}
        columns["row"] = taken + start
        columns["answers"] = np.full((len(taken), width), -1, dtype=np.int64)
        for row, i in enumerate(taken):
            columns["answers"][row, : len(table[keys[i]])] = table[keys[i]]
        files.append(folder / f"{folder.name}-{number:06d}.npz")
        with storage.atomic(files[-1]) as tmp, open(tmp, "wb") as file:
            np.savez(file, allow_pickle=False, **columns)
        digest.update(columns["row"].tobytes() + columns["answers"].tobytes())
        place = {"file": f"../{OVER}/{shard['file']}", "index": files[-1].name}
        entries.append({**shard, **place, "images": len(taken)})
        start += len(keys)
    images = sum(entry["images"] for entry in entries)
    scoring = {"rule": "any of the answers", "average": AVERAGE[folder.name], "over": OVER}
    made = {"scoring": scoring, "images": images, "sha256": digest.hexdigest(), "shards": entries}
    manifests.finish(folder, inputs, files, **{**facts, **made})
    return images


def load(dataset: ShardSet) -> "tuple[Tensor, Tensor, Tensor]":
    """Return each image's index in val, correct classes (N, A; padding -1) and original class."""
    import torch

    rows, right = [], []
    for shard in storage.read_json(dataset.folder / manifests.MANIFEST)["shards"]:
        with np.load(dataset.folder / shard["index"], allow_pickle=False) as arrays:
            rows.append(arrays["row"])
            right.append(arrays["answers"])
    rows_N, answers_NA = map(torch.from_numpy, map(np.concatenate, (rows, right)))
    return rows_N, answers_NA, torch.from_numpy(dataset.labels_N)


def score(dataset: ShardSet, val_logits_MC: "Tensor") -> tuple[np.ndarray, np.ndarray | None]:
    """Return whether each image is classified correctly, and the images' weights (None: equal)."""
    from modelsoups.stats import multilabel  # loads PyTorch, which `prepare` does without

    assert dataset.scoring is not None
    rows_N, answers_NA, classes_N = load(dataset)
    correct_N = multilabel.correct(val_logits_MC[rows_N], answers_NA).numpy()
    if dataset.scoring["average"] == "images":
        return correct_N, None
    return correct_N, multilabel.weights(classes_N).numpy()
