"""What `from modelsoups import soup` gives: choose coefficients over any checkpoints, then mix them into one.

chosen = soup.greedy(["a.safetensors", "b.pt", "hf-folder/"], soup.Holdout(model, loader))
soup.mix(chosen, "soup.safetensors")
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from modelsoups import runs
from modelsoups.core import weights
from modelsoups.core.batchnorm import has_batchnorm
from modelsoups.core.checkpoints import state_sha256
from modelsoups.core.readers import Checkpoint, Source, open_checkpoint
from modelsoups.core.types import EVERYTHING, Soup
from modelsoups.parallel import cores
from modelsoups.soup.mixing import check_layouts, mix_to_file

Sources = Iterable[Source] | Mapping[str, Source]
COPIED = (".json", ".txt", ".model", ".jinja", ".spm", ".tiktoken")  # of a Hugging Face folder: tokenizer and config
_hashes: dict[tuple[Any, ...], str] = {}  # (file, size, time of its last change) of every file -> hash of the content


def load(source: Source, key: str | None = None) -> dict[str, Tensor]:
    """All tensors of a checkpoint of any kind that `core.readers.open_checkpoint` knows."""
    return dict(open_checkpoint(source, key))


def uniform(sources: Sources) -> Soup:
    """The mean of all checkpoints (section 2): reads each once, to hash it."""
    return mean("uniform", open_all(sources))


def mean(method: str, checkpoints: Sequence[Checkpoint], trace: Sequence[Mapping[str, Any]] = ()) -> Soup:
    """The mean of these checkpoints, as a soup; one that is there twice counts twice."""
    kept = list({c.name: c for c in checkpoints}.values())
    row = [sum(c.name == k.name for c in checkpoints) / len(checkpoints) for k in kept]
    return Soup(method, tuple(c.name for c in kept), hashes(kept), {EVERYTHING: row}, trace=tuple(trace))


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
    checkpoints = open_all(chosen.ingredients if sources is None else sources)
    for name, expected, checkpoint, got in zip(
        chosen.ingredients, chosen.hashes, checkpoints, hashes(checkpoints), strict=True
    ):
        if expected != got:
            raise ValueError(f"{checkpoint.name}: not the ingredient {name} that was chosen (its sha256 is another)")
    path = Path(out)
    extra = {"modelsoups": json.dumps({**chosen.to_json(), "holdout_accuracy": holdout_accuracy})}
    if path.suffix == ".safetensors":
        notes = mix_to_file(checkpoints, chosen.coefficients, path, extra, statistics)
        runs.write_text(path.with_suffix(".md"), card(chosen, notes, holdout_accuracy))
    elif not path.suffix and checkpoints[0].folder is not None:
        notes = _mix_to_folder(checkpoints, chosen, path, extra, holdout_accuracy, statistics)
    else:
        raise ValueError(f"{path}: expected a name ending in .safetensors (or a new folder, for Hugging Face folders)")
    if has_batchnorm(checkpoints[0]) and not has_batchnorm(statistics or ()):
        notes.append("BatchNorm: averaged statistics do not fit the mixed weights; use --batchnorm or soup.reestimate")
    return notes


def _mix_to_folder(
    checkpoints: Sequence[Checkpoint],
    chosen: Soup,
    path: Path,
    extra: dict[str, str],
    accuracy: float | None,
    statistics: Mapping[str, Tensor] | None,
) -> list[str]:
    if path.exists():
        raise ValueError(f"{path} exists; give the name of a new folder")
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    folder = checkpoints[0].folder
    assert folder is not None
    try:
        tmp.mkdir(parents=True)
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.suffix in COPIED and not file.name.endswith(".index.json"):
                shutil.copyfile(file, tmp / file.name)
        notes = mix_to_file(checkpoints, chosen.coefficients, tmp / "model.safetensors", extra, statistics)
        runs.write_text(tmp / "README.md", card(chosen, notes, accuracy))
        tmp.rename(path)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise
    return notes


def mixed(chosen: Soup, sources: Sources | None = None) -> dict[str, Tensor]:
    """The mixed weights in memory."""
    checkpoints = open_all(chosen.ingredients if sources is None else sources)
    check_layouts(checkpoints)
    return weights.mix(checkpoints, chosen.coefficients)


def card(chosen: Soup, notes: Sequence[str], holdout_accuracy: float | None) -> str:
    """A model card in Markdown: how the soup was chosen, and of what."""
    rows = zip(chosen.ingredients, chosen.hashes, strict=True)
    by_layer = len(chosen.coefficients) > 1
    shown = "by layer (in the file's metadata)" if by_layer else "{:.6g}"
    column = next(iter(chosen.coefficients.values()))
    table = [f"| `{n}` | {shown.format(c)} | `{h[:16]}` |" for (n, h), c in zip(rows, column, strict=True)]
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
            "| ingredient | coefficient | sha256 of its content |",
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
    return opened


def hashes(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """sha256 of each one's content (`core.checkpoints.state_sha256`), on all cores; a file that is as it was, once."""
    with ThreadPoolExecutor(cores()) as pool:
        return tuple(pool.map(_hash, checkpoints))


def _hash(checkpoint: Checkpoint) -> str:
    path = Path(checkpoint.name)
    if not path.exists():
        return state_sha256(checkpoint)
    files = sorted(path.iterdir()) if path.is_dir() else sorted(path.parent.glob(f"{path.name.split('.')[0]}*"))
    key = (checkpoint.name, *((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()))
    if key not in _hashes:
        _hashes[key] = state_sha256(checkpoint)
    return _hashes[key]
