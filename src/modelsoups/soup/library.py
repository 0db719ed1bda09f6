"""Open checkpoints of any format, average them uniformly, and write a soup as one checkpoint."""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from modelsoups.checkpoints.formats import Source, open_checkpoint
from modelsoups.checkpoints.layouts import check_layouts
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.disk import paths, storage
from modelsoups.soup.batchnorm import has_batchnorm
from modelsoups.soup.card import card
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.weights import digests as digest
from modelsoups.weights.mixing import mix_in_memory, mix_to_file
from modelsoups.weights.state_dicts import EVERYTHING

Sources = Iterable[Source] | Mapping[str, Source]  # checkpoints; the keys of a mapping are their names
COPIED = (".json", ".txt", ".model", ".jinja", ".spm", ".tiktoken")  # copied from a Hugging Face folder


def load(source: Source, key: str | None = None) -> dict[str, Tensor]:
    """Load all tensors by name from a checkpoint file, Hugging Face folder or state dict.

    key: the entry with the weights in a training checkpoint. ValueError if it cannot be read.

        model.load_state_dict(soup.load("soup.safetensors"))
    """
    return dict(open_checkpoint(source, key))


def uniform(sources: Sources) -> Soup:
    """Return the uniform soup, the mean of all checkpoints (section 2); `mix` reads the weights.

    Raises ValueError for a checkpoint that cannot be opened or is given twice.

        soup.mix(soup.uniform(["a.safetensors", "b.pt"]), "soup.safetensors")
    """
    return mean("uniform", open_all(sources), unread=True)


def mean(
    method: str, checkpoints: Sequence[Checkpoint], trace: Sequence[Mapping[str, Any]] = (), unread: bool = False
) -> Soup:
    """Return the mean of checkpoints, which may repeat, as a Soup; unread: `mix` adds digests."""
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
    """Write a soup's averaged weights: a .safetensors file and a model card (.md), or a folder.

    A Hugging Face folder is written if the first ingredient is one and `out` has no suffix;
    tokenizer and configuration are copied. sources: the ingredients in order, if they are in memory
    or their files moved. statistics: tensors to write instead of the averages (from `reestimate` or
    `fisher`). Returns notes for the user. Raises ValueError for an ensemble, an ingredient that
    changed since it was chosen, different shapes, values that are not finite, and if `out` is an
    existing folder or an ingredient.

        for note in soup.mix(soup.uniform(["a.pt", "b.pt"]), "soup.safetensors"):
            print(note)
    """
    if chosen.space != "weights":
        raise ValueError(f"soup {chosen.method} averages {chosen.space}, not weights: there are none to write")
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
            notes = mix_to_file(checkpoints, chosen.coefficients, tmp / paths.MODEL, facts, statistics)
            storage.write_text(tmp / "README.md", card(known, notes, holdout_accuracy))
    else:
        raise ValueError(f"{path}: expected a name ending in .safetensors (or a new folder, for Hugging Face folders)")
    if has_batchnorm(checkpoints[0]) and not has_batchnorm(statistics or ()):
        notes.append("BatchNorm: averaged statistics do not fit the mixed weights; use --batchnorm or soup.reestimate")
    return notes


@contextlib.contextmanager
def _new_folder(model: Path, path: Path) -> Iterator[Path]:
    """Yield a temporary copy of folder `model` without weights; rename it to `path` on success."""
    if path.exists():
        raise ValueError(f"{path} already exists; give the name of a new folder")
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
    """Return a soup's averaged weights by tensor name; `sources` and errors as for `mix`.

    model.load_state_dict(soup.mixed(soup.uniform(["a.pt", "b.pt"])))
    """
    return mix_in_memory(chosen_checkpoints(chosen, sources), chosen.coefficients)


def chosen_checkpoints(chosen: Soup, sources: Sources | None = None) -> list[Checkpoint]:
    """Open a soup's ingredients; ValueError if a file changed or `sources` are too many or few."""
    checkpoints = open_all(chosen.ingredients if sources is None else sources)
    if len(checkpoints) != len(chosen.ingredients):
        raise ValueError(f"soup {chosen.method} has {len(chosen.ingredients)} ingredients; got {len(checkpoints)}")
    _check(chosen, checkpoints, [None] * len(checkpoints))
    return checkpoints


def _check(chosen: Soup, checkpoints: Sequence[Checkpoint], digests: Sequence[str | None]) -> None:
    for name, checkpoint, expected, got in zip(chosen.ingredients, checkpoints, chosen.hashes, digests, strict=True):
        digest.check(name, checkpoint, expected, got)


def open_alike(sources: Sources) -> list[Checkpoint]:
    """Open checkpoints as `open_all`; ValueError if tensor names, shapes or dtypes differ."""
    checkpoints = open_all(sources)
    check_layouts(checkpoints)
    return checkpoints


def open_all(sources: Sources) -> list[Checkpoint]:
    """Open checkpoints without reading tensors; their names are the keys of a mapping or the paths.

    Raises ValueError if there are none, one is given twice, or one cannot be opened.
    """
    if isinstance(sources, (str, os.PathLike)):
        raise ValueError(f"{sources}: expected several checkpoints in a list, not one path")
    opened = []
    named = sources.items() if isinstance(sources, Mapping) else ((None, source) for source in sources)
    for position, (name, source) in enumerate(named):
        checkpoint = open_checkpoint(source)
        if name is not None:
            checkpoint.name = name
        elif checkpoint.name == "state in memory":
            checkpoint.name = f"state {position}"
        opened.append(checkpoint)
    if not opened:
        raise ValueError("no checkpoints given")
    name, count = Counter(c.name for c in opened).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{name} is given twice")
    seen: dict[tuple[Path, ...], str] = {}
    for c in opened:
        earlier = seen.setdefault(tuple(f.resolve() for f in c.files), c.name) if c.files else c.name
        if earlier != c.name:
            raise ValueError(f"{c.name} is given twice, also as {earlier}")
    return opened


def hashes(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """Return a hash ("xxh3_128:...") of each checkpoint's tensors; reads every file once."""
    return tuple(map(digest.digest, checkpoints))


def as_ingredients(checkpoints: Sequence[Checkpoint]) -> tuple[Ingredient, ...]:
    """Return an Ingredient for each checkpoint: id and path are its name, recipe is None."""
    found = zip(checkpoints, hashes(checkpoints), strict=True)
    return tuple(Ingredient(c.name, c.name, content, None) for c, content in found)
