"""Open any checkpoints, average them uniformly, and mix a soup into one checkpoint."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from modelsoups.checkpoints.alike import align
from modelsoups.checkpoints.formats import SUFFIXES, Source, open_checkpoint
from modelsoups.checkpoints.layouts import check_layouts
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.disk import storage
from modelsoups.soup import model_folder
from modelsoups.soup.card import card, write_card
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.notes import batchnorm_notes, check_statistics, notes_on, origin_notes
from modelsoups.soup.refusals import check_not_shared, refuse
from modelsoups.weights import digests as digest
from modelsoups.weights.mixing import mix_in_memory, mix_to_file
from modelsoups.weights.state_dicts import EVERYTHING

Sources = Iterable[Source] | Mapping[str, Source]  # checkpoints; the keys of a mapping are their names


def load(source: Source, key: str | None = None) -> dict[str, Tensor]:
    """Load all tensors by name from a file, folder or state dict; see `checkpoints.formats`.

    key: the entry with the weights, for files with several. Raises ValueError if it cannot be read.

        model.load_state_dict(soup.load("soup.safetensors"))
    """
    return dict(open_checkpoint(source, key))


def uniform(sources: Sources) -> Soup:
    """Return the uniform soup of all checkpoints (section 2). Reads no weights; `mix` computes digests.

    Raises ValueError for a checkpoint that cannot be opened or is given twice.

        soup.mix(soup.uniform(["a.safetensors", "b.pt"]), "soup.safetensors")
    """
    return mean("uniform", open_all(sources), unread=True)


def mean(
    method: str, checkpoints: Sequence[Checkpoint], trace: Sequence[Mapping[str, Any]] = (), unread: bool = False
) -> Soup:
    """Return the mean of these checkpoints as a Soup; one that is listed twice counts twice."""
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
    force: bool = False,
) -> list[str]:
    """Write the mixed checkpoint: a .safetensors file and a model card (.md) next to it, or a folder.

    A folder is written if the first ingredient is one and `out` does not end in .safetensors, with
    its configuration, tokenizer and code; see `model_folder`. sources: the checkpoints in the
    soup's order, for states in memory or files that moved. statistics: tensors to write instead of
    the mixed ones (from `reestimate` or `fisher`). Returns notes for the user. Raises ValueError
    for an ensemble, an ingredient that changed since it was chosen, layouts that differ, values
    that are not finite, or an output that exists as a folder or is an input; and for what
    `refusals` lists (adapters, quantized weights, other classes), which `force` mixes with a note
    in the soup.

        for note in soup.mix(soup.uniform(["a.pt", "b.pt"]), "soup.safetensors"):
            print(note)
    """
    if chosen.space != "weights":
        raise ValueError(f"soup {chosen.method} mixes {chosen.space}, not weights: an ensemble has no checkpoint")
    checkpoints = chosen_checkpoints(chosen, sources)
    path, known = Path(out), chosen
    forced = refuse(checkpoints, force)
    check_statistics(checkpoints[0], statistics or {})

    def facts(digests: tuple[str, ...]) -> dict[str, str]:
        nonlocal known
        if digest.UNKNOWN not in digests:
            _check(chosen, checkpoints, digests)
        known = replace(chosen, hashes=digests)
        facts = {**known.to_json(), "holdout_accuracy": holdout_accuracy, **({"notes": forced} if forced else {})}
        return {"modelsoups": json.dumps(facts)}

    _check_output(path, checkpoints[0])
    if path.suffix == ".safetensors":
        notes = mix_to_file(checkpoints, chosen.coefficients, path, facts, statistics)
        notes = [*forced, *notes_on(known), *origin_notes(checkpoints), *notes]
        notes += batchnorm_notes(checkpoints, statistics)
        return notes + write_card(path, card(known, notes, holdout_accuracy))
    with model_folder.new_folder(path) as tmp:
        notes = model_folder.write_weights(tmp, checkpoints, chosen.coefficients, facts, statistics or {})
        notes = [*forced, *notes_on(known), *origin_notes(checkpoints), *notes]
        notes += batchnorm_notes(checkpoints, statistics)
        notes += model_folder.copy_rest(checkpoints, tmp)
        storage.write_text(tmp / "README.md", card(known, notes, holdout_accuracy))
    return notes


def _check_output(path: Path, first: Checkpoint) -> None:
    """ValueError unless a soup of these can be written as a file or folder of this name."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path} has a name that is not UTF-8, which safetensors cannot open; give another") from error
    if path.suffix == ".safetensors":
        if len(first.parts) > 1:
            held = ", ".join(map(str, first.parts.values()))
            way = "give a new folder, without .safetensors, as output, or these files as checkpoints"
            raise ValueError(f"{path}: {first.name} holds several models ({held}), which no single file can; {way}")
    elif first.folder is None:
        raise ValueError(f"{path}: expected a name ending in .safetensors (or a new folder, for Hugging Face folders)")
    elif path.suffix in SUFFIXES:
        raise ValueError(f"{path}: a soup is written as .safetensors or as a new folder, never as {path.suffix}")


def mixed(chosen: Soup, sources: Sources | None = None, force: bool = False) -> dict[str, Tensor]:
    """The mixed weights in memory, by tensor name; sources, force and errors as for `mix`.

    model.load_state_dict(soup.mixed(soup.uniform(["a.pt", "b.pt"])))
    """
    checkpoints = chosen_checkpoints(chosen, sources)
    refuse(checkpoints, force)
    return mix_in_memory(checkpoints, chosen.coefficients)


def chosen_checkpoints(chosen: Soup, sources: Sources | None = None) -> list[Checkpoint]:
    """Open a soup's ingredients; raise ValueError if their number differs or a file has changed."""
    checkpoints = open_all(chosen.ingredients if sources is None else sources)
    if len(checkpoints) != len(chosen.ingredients):
        raise ValueError(f"soup {chosen.method} has {len(chosen.ingredients)} ingredients; got {len(checkpoints)}")
    _check(chosen, checkpoints, [None] * len(checkpoints))
    return checkpoints


def _check(chosen: Soup, checkpoints: Sequence[Checkpoint], digests: Sequence[str | None]) -> None:
    for name, checkpoint, expected, got in zip(chosen.ingredients, checkpoints, chosen.hashes, digests, strict=True):
        digest.check(name, checkpoint, expected, got)


def open_alike(sources: Sources) -> list[Checkpoint]:
    """Open the checkpoints with `open_all`; raise ValueError if their layouts differ."""
    checkpoints = open_all(sources)
    check_layouts(checkpoints)
    return checkpoints


def open_all(sources: Sources, key: str | None = None) -> list[Checkpoint]:
    """Open the checkpoints lazily, each with a unique name; the keys of a mapping are the names.

    key: the nested entry with the weights, in each of them ("state_dict_ema"). Raises ValueError if
    there are none, one is given twice, one cannot be opened, or two states share their memory.
    """
    if isinstance(sources, (str, os.PathLike)):
        raise ValueError(f"{sources}: expected several checkpoints in a list, not one path")
    opened = []
    named = sources.items() if isinstance(sources, Mapping) else ((None, source) for source in sources)
    for position, (name, source) in enumerate(named):
        checkpoint = open_checkpoint(source, key)
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
    check_not_shared(opened)
    seen: dict[tuple[tuple[int, int], ...], str] = {}
    for c in opened:
        places = tuple((s.st_dev, s.st_ino) for s in (f.stat() for f in c.files))  # also of hard links
        earlier = seen.setdefault(places, c.name) if c.files else c.name
        if earlier != c.name:
            raise ValueError(f"{c.name} is given twice, also as {earlier}")
    align(opened)
    return opened


def open_initialization(init: Source, checkpoints: Sequence[Checkpoint], key: str | None = None) -> Checkpoint:
    """Open the model that the checkpoints were fine-tuned from, with the names of the first of them.

    key: the nested entry with its weights if it has such an entry, as it need not be saved as the
    checkpoints are. Raises ValueError if it cannot be opened.
    """
    try:
        opened = open_checkpoint(init, key)
    except ValueError:
        if key is None:
            raise
        opened = open_checkpoint(init)
    align([*checkpoints, opened])
    return opened


def hashes(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """Return the digest of each checkpoint's content; reads every file once."""
    return tuple(map(digest.digest, checkpoints))


def as_ingredients(checkpoints: Sequence[Checkpoint]) -> tuple[Ingredient, ...]:
    """Return the checkpoints as ingredients without recipes, with names as ids and paths."""
    found = zip(checkpoints, hashes(checkpoints), strict=True)
    return tuple(Ingredient(c.name, c.name, content, None) for c, content in found)
