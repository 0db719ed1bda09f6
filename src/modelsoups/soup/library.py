"""What `from modelsoups import soup` gives: choose coefficients over any checkpoints, then mix them into one.

chosen = soup.greedy(["a.safetensors", "b.pt", "hf-folder/"], soup.Holdout(model, loader))
soup.mix(chosen, "soup.safetensors")
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from modelsoups.checkpoints.formats import Source, open_checkpoint
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.disk import storage
from modelsoups.soup.batchnorm import has_batchnorm
from modelsoups.soup.coefficients import Soup
from modelsoups.weights import digests as digest
from modelsoups.weights.mixing import mix_in_memory, mix_to_file
from modelsoups.weights.state_dicts import EVERYTHING

Sources = Iterable[Source] | Mapping[str, Source]
COPIED = (".json", ".txt", ".model", ".jinja", ".spm", ".tiktoken")  # of a Hugging Face folder: tokenizer and config
_digests: dict[tuple[str, str], str] = {}  # (name, sizes and times of its files) -> digest of the content


def load(source: Source, key: str | None = None) -> dict[str, Tensor]:
    """All tensors of a checkpoint of any kind that `core.readers.open_checkpoint` knows."""
    return dict(open_checkpoint(source, key))


def uniform(sources: Sources) -> Soup:
    """The mean of all checkpoints (section 2). Files are not read before they are mixed; `mix` finds their digests."""
    return mean("uniform", open_all(sources), unread=True)


def mean(
    method: str, checkpoints: Sequence[Checkpoint], trace: Sequence[Mapping[str, Any]] = (), unread: bool = False
) -> Soup:
    """The mean of these checkpoints, as a soup; one that is there twice counts twice."""
    kept = list({c.name: c for c in checkpoints}.values())
    row = [sum(c.name == k.name for c in checkpoints) / len(checkpoints) for k in kept]
    found = tuple(map(digest.later, kept)) if unread else hashes(kept)
    return Soup(method, tuple(c.name for c in kept), found, {EVERYTHING: row}, trace=tuple(trace))


def mix(
    chosen: Soup,
    out: str | os.PathLike[str],
    sources: Sources | None = None,
    holdout_accuracy: float | None = None,
    statistics: Mapping[str, Tensor] | None = None,
) -> list[str]:
    """Write the mixed checkpoint: a .safetensors file with a card (.md) beside it, or a Hugging Face folder.

    A folder is written when the first ingredient is one and `out` has no suffix; its tokenizer and configuration are
    copied. `sources` are the checkpoints in the soup's order, for soups over states in memory or files that moved.
    `statistics` are written in place of the mixed tensors: a BatchNorm's, of `soup.reestimate`, or of `soup.fisher`.
    Returns what there is to tell: notes of the readers, differing whole-number tensors, ties, a BatchNorm.
    Raises ValueError for an ensemble, an ingredient that changed since it was chosen, or what mixing refuses.
    """
    if chosen.space != "weights":
        raise ValueError(f"soup {chosen.method} mixes {chosen.space}, not weights: an ensemble has no checkpoint")
    checkpoints = chosen_checkpoints(chosen, sources)
    path, known = Path(out), chosen

    def facts(digests: tuple[str, ...]) -> dict[str, str]:
        nonlocal known
        if digest.UNKNOWN not in digests:
            _check(chosen, checkpoints, digests)
        known = replace(chosen, hashes=digests)
        return {"modelsoups": json.dumps({**known.to_json(), "holdout_accuracy": holdout_accuracy})}

    if path.suffix == ".safetensors":
        notes = mix_to_file(checkpoints, chosen.coefficients, path, facts, statistics)
        storage.write_text(path.with_suffix(".md"), card(known, notes, holdout_accuracy))
    elif not path.suffix and checkpoints[0].folder is not None:
        with _new_folder(checkpoints[0].folder, path) as tmp:
            notes = mix_to_file(checkpoints, chosen.coefficients, tmp / "model.safetensors", facts, statistics)
            storage.write_text(tmp / "README.md", card(known, notes, holdout_accuracy))
    else:
        raise ValueError(f"{path}: expected a name ending in .safetensors (or a new folder, for Hugging Face folders)")
    if has_batchnorm(checkpoints[0]) and not has_batchnorm(statistics or ()):
        notes.append("BatchNorm: averaged statistics do not fit the mixed weights; use --batchnorm or soup.reestimate")
    return notes


@contextlib.contextmanager
def _new_folder(model: Path, path: Path) -> Iterator[Path]:
    """A temporary folder with the model's configuration and tokenizer, renamed to `path` on success, else removed."""
    if path.exists():
        raise ValueError(f"{path} exists; give the name of a new folder")
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        tmp.mkdir(parents=True)
        for file in sorted(model.iterdir()):
            if file.is_file() and file.suffix in COPIED and not file.name.endswith(".index.json"):
                shutil.copyfile(file, tmp / file.name)
        yield tmp
        tmp.rename(path)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise


def mixed(chosen: Soup, sources: Sources | None = None) -> dict[str, Tensor]:
    """The mixed weights in memory."""
    return mix_in_memory(chosen_checkpoints(chosen, sources), chosen.coefficients)


def chosen_checkpoints(chosen: Soup, sources: Sources | None = None) -> list[Checkpoint]:
    """The ingredients of a soup, opened; ValueError for another number, or where a file shows that it has changed."""
    checkpoints = open_all(chosen.ingredients if sources is None else sources)
    if len(checkpoints) != len(chosen.ingredients):
        raise ValueError(f"soup {chosen.method} is of {len(chosen.ingredients)} checkpoints; got {len(checkpoints)}")
    _check(chosen, checkpoints, [None] * len(checkpoints))
    return checkpoints


def _check(chosen: Soup, checkpoints: Sequence[Checkpoint], digests: Sequence[str | None]) -> None:
    for name, checkpoint, expected, got in zip(chosen.ingredients, checkpoints, chosen.hashes, digests, strict=True):
        digest.check(name, checkpoint, expected, got)


def card(chosen: Soup, notes: Sequence[str], holdout_accuracy: float | None) -> str:
    """A model card in Markdown: how the soup was chosen, and of what."""
    rows = zip(chosen.ingredients, chosen.hashes, strict=True)
    by_layer = len(chosen.coefficients) > 1
    shown = "by layer (in the file's metadata)" if by_layer else "{:.6g}"
    column = next(iter(chosen.coefficients.values()))
    table = [f"| `{n}` | {shown.format(c)} | `{h}` |" for (n, h), c in zip(rows, column, strict=True)]
    accuracy = [] if holdout_accuracy is None else [f"Accuracy on the hold-out: {holdout_accuracy:.4f}", ""]
    beta = [] if chosen.beta == 1 else [f"Multiply the logits by {chosen.beta:.6g} (learned temperature).", ""]
    return "\n".join(
        [
            "---",
            "tags: [model-soup]",
            "---",
            f"# Model soup: {chosen.method}",
            "",
            *accuracy,
            *beta,
            "| ingredient | coefficient | digest of its content |",
            "|---|---|---|",
            *table,
            "",
            *[f"- {note}" for note in notes],
            "",
            "Made by modelsoups; method: Wortsman et al., Model soups, ICML 2022 (arXiv:2203.05482).",
            "",
        ]
    )


# ---- sources ----


def open_all(sources: Sources) -> list[Checkpoint]:
    """Lazy checkpoints with names of their own; a mapping gives the names."""
    if isinstance(sources, (str, os.PathLike)):
        raise ValueError(f"{sources}: expected several checkpoints in a list, not one path")
    if isinstance(sources, Mapping):
        opened = []
        for name, source in sources.items():
            checkpoint = open_checkpoint(source)
            checkpoint.name = name
            opened.append(checkpoint)
    else:
        opened = [open_checkpoint(source) for source in sources]
        for position, checkpoint in enumerate(opened):
            if checkpoint.name == "state in memory":
                checkpoint.name = f"state {position}"
    if not opened:
        raise ValueError("no checkpoints given")
    names = [c.name for c in opened]
    if repeated := next((n for n in names if names.count(n) > 1), None):
        raise ValueError(f"{repeated} is given twice")
    seen: dict[tuple[Path, ...], str] = {}
    for c in opened:
        earlier = seen.setdefault(tuple(f.resolve() for f in c.files), c.name) if c.files else c.name
        if earlier != c.name:
            raise ValueError(f"{c.name} is given twice, also as {earlier}")
    return opened


def hashes(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The digest of each one's content; of a file that is as it was, found once a process."""
    keys = [(c.name, digest.later(c) if c.files else "") for c in checkpoints]
    todo = [n for n, key in enumerate(keys) if key not in _digests or not key[1]]
    fresh = dict(zip(todo, digest.digests([checkpoints[n] for n in todo]), strict=True))
    _digests.update({keys[n]: found for n, found in fresh.items() if keys[n][1]})
    return tuple(fresh[n] if n in fresh else _digests[key] for n, key in enumerate(keys))
