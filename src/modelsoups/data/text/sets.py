"""Writes and reads prepared text data sets: a folder with examples.jsonl, then manifest.json.

A line of examples.jsonl is {"key": ..., "label": ..., "fields": {name: text}}. The key is the
content hash of the texts, with -2, -3, ... for repeated texts. The same examples give the same
bytes, whatever the format of the files that they were read from.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelsoups.data.text.examples import Example
from modelsoups.disk import manifests, storage

EXAMPLES = "examples.jsonl"
KEYS = (  # of the manifest
    *("inputs", "files", "name", "title", "role", "classes", "prompt", "templates", "projection"),
    *("by_content", "counts", "notes", "overlaps", "sha256", "examples_sha256"),
)
RESTORE = "move {} away and run `modelsoups prepare`"
Json = dict[str, Any]


def lines(examples: Sequence[Example]) -> str:
    """Return the content of examples.jsonl."""
    copies: Counter[str] = Counter()
    written = []
    for content, label, fields, _ in examples:
        copies[content] += 1
        key = content if copies[content] == 1 else f"{content}-{copies[content]}"
        written.append(json.dumps({"key": key, "label": label, "fields": fields}) + "\n")
    return "".join(written)


def write_set(folder: Path, examples: Sequence[Example], inputs: Json, facts: Json) -> int:
    """Write a data set and its manifest; return the number of examples.

    The keys of facts are name, title, role, classes, templates, projection, prompt, source, notes,
    overlaps and by_content.
    """
    path = folder / EXAMPLES
    storage.write_text(path, lines(examples))
    digest = storage.file_sha256(path)
    identity = {"examples": digest, "classes": facts["classes"], "prompt": facts["prompt"]}
    labels = Counter(example.label for example in examples)
    counts = {option: labels[number] for number, option in enumerate(facts["classes"])}
    sha256 = storage.fingerprint(identity)
    numbers = {"images": len(examples), "counts": counts, "sha256": sha256, "examples_sha256": digest}
    manifests.finish(folder, inputs, [path], **facts, **numbers)
    return len(examples)


class TextSet:
    """A prepared text data set. Its examples are in memory; `kept` is a cache for the task.

    classes: the texts of the options; labels_N are their indices. notes: sentences about repeated
    texts. overlaps: {other set: keys of the examples whose texts that set has too}. Raises
    ValueError if the folder is missing, incomplete or changed.
    """

    unit = "texts"  # in messages

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / manifests.MANIFEST
        if not path.exists():
            raise ValueError(f"{folder} contains no prepared data set; run `modelsoups prepare`")
        manifest = storage.read_object(path, *KEYS)
        self.name: str = manifest["name"]
        self.title: str = manifest["title"]
        self.role: str = manifest["role"]
        self.classes: list[str] = manifest["classes"]
        self.prompt: str = manifest["prompt"]
        self.templates: list[str] = manifest["templates"]
        self.projection: Json | None = manifest["projection"]
        self.scoring: Json | None = None  # other sets' labels are for images only
        self.sha256: str = manifest["sha256"]
        self.by_content: bool = manifest["by_content"]  # whether a key in two sets is an error
        self.counts: dict[str, int] = manifest["counts"]
        self.notes: list[str] = manifest["notes"]
        self.overlaps: dict[str, list[str]] = manifest["overlaps"]
        self.kept: dict[str, Any] = {}
        self._file = folder / EXAMPLES
        _check(self._file, manifest)
        rows = storage.read_jsonl(self._file)
        self.bytes = self._file.stat().st_size
        self.keys_N = np.array([row["key"] for row in rows], dtype=str)
        self.labels_N = np.array([row["label"] for row in rows], dtype=np.int64)
        self._fields_N: list[dict[str, str]] = [row["fields"] for row in rows]

    def __reduce__(self) -> "tuple[type[TextSet], tuple[Path]]":  # another process reopens it
        return TextSet, (self.folder,)

    def __len__(self) -> int:
        return len(self.labels_N)

    def fields(self, index: int) -> dict[str, str]:
        """Return the texts of an example, by field, such as {"sentence": ...}."""
        return self._fields_N[index]

    def where(self, index: int) -> str:
        """Return an example's file, line and key, for error messages."""
        return f"{self._file} line {index + 1}: example {self.keys_N[index]}"

    @property
    def way_out(self) -> str:
        """Return what the user can do about a damaged set, for error messages."""
        return RESTORE.format(self.folder)


def _check(file: Path, manifest: Json) -> None:
    """Raise ValueError unless examples.jsonl has the size and the SHA-256 of the manifest."""
    way_out = RESTORE.format(file.parent)
    if not file.exists():
        raise ValueError(f"{file} is missing; {way_out}")
    size, expected = file.stat().st_size, manifest["files"].get(EXAMPLES)
    if size != expected:
        raise ValueError(f"{file} is truncated or changed ({size} bytes, not {expected}); {way_out}")
    if storage.file_sha256(file) != manifest["examples_sha256"]:
        raise ValueError(f"{file} has changed since it was written; {way_out}")
