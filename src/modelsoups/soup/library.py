"""Open checkpoints of any format, average them uniformly, and write a soup as one checkpoint."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from modelsoups.checkpoints.alike import align
from modelsoups.checkpoints.dtypes import alike, dtype_of
from modelsoups.checkpoints.formats import SUFFIXES, Source, open_checkpoint
from modelsoups.checkpoints.layouts import check_layouts
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.disk import storage
from modelsoups.soup import adapters, model_folder
from modelsoups.soup.adapters import Mixture
from modelsoups.soup.card import card, write_card
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.notes import batchnorm_notes, check_statistics, notes_on, origin_notes
from modelsoups.soup.refusals import check_not_shared, problems, refuse
from modelsoups.weights import digests as digest
from modelsoups.weights.mixing import mix_in_memory, mix_to_file
from modelsoups.weights.state_dicts import EVERYTHING

Sources = Iterable[Source] | Mapping[str, Source]  # a mapping's keys are names


class Form(TypedDict, total=False):
    """The form in which `mix` writes: dtype; for LoRA adapters, base (to merge into) and rank."""

    base: Source | None
    rank: int | None
    dtype: str | torch.dtype | None


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
    return mean("uniform", open_all(sources, adapters_too=True), unread=True)


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
    force: bool = False,
    **form: Unpack[Form],
) -> list[str]:
    """Write a soup's averaged weights: a .safetensors file and a model card (.md), or a folder.

    A folder is written if the first ingredient is one and `out` does not end in .safetensors; its
    configuration, tokenizer and code are copied. sources: the ingredients in order, if they are in
    memory or their files moved. statistics: tensors to write instead of the averages (from
    `reestimate` or `fisher`). LoRA adapters give one adapter with the exact weighted sum of their
    updates; `rank` truncates it. With `base`, the base model plus this sum is written instead.
    dtype: "float32", "float16" or "bfloat16", in which floats are written; without it, all
    ingredients must have one dtype, which is kept. Returns notes for the user. Raises ValueError for
    an ensemble, an ingredient that changed since it was chosen, different shapes, values that are
    not finite, an `out` that is an existing folder or an ingredient, and adapters that cannot be
    summed or merged. Quantized weights, different classes and other problems that
    `refusals.problems` finds raise ValueError, unless `force` is true: then the soup is written with
    a note.

        for note in soup.mix(soup.uniform(["a.pt", "b.pt"]), "soup.safetensors"):
            print(note)
    """
    if chosen.space != "weights":
        raise ValueError(f"soup {chosen.method} averages {chosen.space}, not weights: there are none to write")
    checkpoints, dtype = chosen_checkpoints(chosen, sources), dtype_of(form.get("dtype"))
    path, forced = Path(out), refuse(checkpoints, force)
    made = _mixture(chosen, checkpoints, form.get("base"), form.get("rank"), dtype)
    check_statistics(made.checkpoints[0], statistics or {}, dtype)
    facts = _Facts(chosen, checkpoints, made, {"holdout_accuracy": holdout_accuracy}, forced)

    def all_notes(notes: list[str]) -> list[str]:
        found = [*facts.notes(), *origin_notes(checkpoints), *notes]
        return found + batchnorm_notes(made.checkpoints, statistics)

    _check_output(path, made)
    if path.suffix == ".safetensors":
        notes = all_notes(mix_to_file(made.checkpoints, made.coefficients, path, facts, statistics, dtype))
        return notes + write_card(path, card(facts.known, notes, holdout_accuracy))
    with model_folder.new_folder(path) as tmp:
        given = (made.checkpoints, made.coefficients, facts, statistics or {}, dtype)
        notes = all_notes(model_folder.write_weights(tmp, *given))
        if made.config is not None:
            storage.write_text(tmp / adapters.CONFIG, adapters.config_text(made.config))
        notes += model_folder.copy_rest(made.folders, tmp, dtype)
        storage.write_text(tmp / "README.md", card(facts.known, notes, holdout_accuracy))
    return notes


class _Facts:
    """Makes the mixed file's metadata from ingredients' digests; `known`: the soup with them."""

    def __init__(
        self,
        chosen: Soup,
        checkpoints: Sequence[Checkpoint],
        made: Mixture,
        more: Mapping[str, Any],
        forced: Sequence[str],
    ) -> None:
        self.chosen, self.checkpoints, self.made = chosen, checkpoints, made
        self.more, self.forced, self.known = more, forced, chosen

    def __call__(self, digests: tuple[str, ...]) -> dict[str, str]:
        found = digests if self.made.digests is None else self.made.digests
        if digest.UNKNOWN not in found:
            _check(self.chosen, self.checkpoints, found)
        self.known = replace(self.chosen, hashes=found)
        facts = {**self.known.to_json(), **self.more, **self.made.facts}
        return {"modelsoups": json.dumps({**facts, **({"notes": list(self.forced)} if self.forced else {})})}

    def notes(self) -> list[str]:
        return [*self.forced, *notes_on(self.known, self.made.digests is not None), *self.made.notes]


def _mixture(
    chosen: Soup,
    checkpoints: Sequence[Checkpoint],
    base: Source | None = None,
    rank: int | None = None,
    dtype: torch.dtype | None = None,
) -> Mixture:
    """Return what `mix` writes with these options; ValueError if checkpoints do not allow them."""
    if base is not None:
        if rank is not None:
            raise ValueError("rank applies to an adapter, but base writes the full model: give only one of them")
        return adapters.as_model(checkpoints, chosen.coefficients, open_base(base)).rounded_to(dtype)
    if adapters.has_adapters(checkpoints):
        return adapters.as_adapter(checkpoints, chosen.coefficients, rank).rounded_to(dtype)
    if dtype is not None:
        checkpoints = alike(checkpoints)
    if rank is not None:
        raise ValueError(f"rank is for folders of LoRA adapters, but {checkpoints[0].name} is none")
    return Mixture(checkpoints, chosen.coefficients, folders=checkpoints)


def _check_output(path: Path, made: Mixture) -> None:
    """Raise ValueError if this soup cannot be written to a file or folder of this name."""
    first = made.checkpoints[0]
    if made.config is not None and path.suffix in SUFFIXES:
        raise ValueError(f"{path}: an adapter is written as a folder: give a new folder's name, or {adapters.BASE}")
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path} has a name that is not UTF-8, which safetensors cannot open; rename it") from error
    if path.suffix == ".safetensors":
        if len(first.parts) > 1:
            held = ", ".join(map(str, first.parts.values()))
            way = "give a new folder as output, or average these files one by one"
            raise ValueError(f"{path}: {first.name} has several models ({held}), but a file only one; {way}")
    elif first.folder is None:
        raise ValueError(f"{path}: expected a name ending in .safetensors (or a new folder, for Hugging Face folders)")
    elif path.suffix in SUFFIXES:
        raise ValueError(f"{path}: a soup is written as .safetensors or as a new folder, never as {path.suffix}")


def mixed(
    chosen: Soup, sources: Sources | None = None, force: bool = False, base: Source | None = None
) -> dict[str, Tensor]:
    """Return a soup's averaged weights by tensor name; arguments and errors as for `mix`.

    For adapters without `base`, these are the LoRA factors of their weighted sum, with PEFT's
    names.

    model.load_state_dict(soup.mixed(soup.uniform(["a.pt", "b.pt"])))
    """
    checkpoints = chosen_checkpoints(chosen, sources)
    refuse(checkpoints, force)
    made = _mixture(chosen, checkpoints, base)
    if made.digests is not None:
        _check(chosen, checkpoints, made.digests)
    return mix_in_memory(made.checkpoints, made.coefficients)


def chosen_checkpoints(chosen: Soup, sources: Sources | None = None) -> list[Checkpoint]:
    """Open a soup's ingredients; ValueError if a file changed or `sources` are too many or few."""
    checkpoints = open_all(chosen.ingredients if sources is None else sources, adapters_too=True)
    if len(checkpoints) != len(chosen.ingredients):
        raise ValueError(f"soup {chosen.method} has {len(chosen.ingredients)} ingredients; got {len(checkpoints)}")
    _check(chosen, checkpoints, [None] * len(checkpoints))
    return checkpoints


def _check(chosen: Soup, checkpoints: Sequence[Checkpoint], digests: Sequence[str | None]) -> None:
    for name, checkpoint, expected, got in zip(chosen.ingredients, checkpoints, chosen.hashes, digests, strict=True):
        digest.check(name, checkpoint, expected, got)


def open_base(base: Source) -> Checkpoint:
    """Open the adapters' base; ValueError if it is an adapter, quantized or has empty weights."""
    opened = open_checkpoint(base)
    if found := problems([opened]):
        raise ValueError(found[0][1])
    return opened


def open_alike(sources: Sources) -> list[Checkpoint]:
    """Open checkpoints as `open_all`; ValueError if tensor names, shapes or dtypes differ."""
    checkpoints = open_all(sources)
    check_layouts(checkpoints)
    return checkpoints


def open_all(sources: Sources, key: str | None = None, adapters_too: bool = False) -> list[Checkpoint]:
    """Open checkpoints without reading tensors; their names are the keys of a mapping or the paths.

    key: the entry of each file that has the weights, such as "state_dict_ema". adapters_too:
    whether folders of LoRA adapters are allowed. Raises ValueError if there are no checkpoints, one
    is given twice or cannot be opened, or two state dicts in memory share their tensors.
    """
    if isinstance(sources, (str, os.PathLike)):
        raise ValueError(f"{sources}: expected several checkpoints in a list, not one path")
    opened = []
    named = sources.items() if isinstance(sources, Mapping) else ((None, source) for source in sources)
    for position, (name, source) in enumerate(named):
        checkpoint = open_checkpoint(source, key, adapters_too=adapters_too)
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
        places = tuple((s.st_dev, s.st_ino) for s in (f.stat() for f in c.files))  # of hard links
        earlier = seen.setdefault(places, c.name) if c.files else c.name
        if earlier != c.name:
            raise ValueError(f"{c.name} is given twice, also as {earlier}")
    if not adapters.has_adapters(opened):
        align(opened)
    return opened


def open_initialization(init: Source, checkpoints: Sequence[Checkpoint], key: str | None = None) -> Checkpoint:
    """Open the model that the checkpoints were fine-tuned from; rename its tensors like theirs.

    key: the entry of the file that has the weights; ignored if the file has no such entry. Raises
    ValueError if it cannot be opened.
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
    """Return a hash ("xxh3_128:...") of each checkpoint's tensors; reads every file once."""
    return tuple(map(digest.digest, checkpoints))


def as_ingredients(checkpoints: Sequence[Checkpoint]) -> tuple[Ingredient, ...]:
    """Return an Ingredient for each checkpoint: id and path are its name, recipe is None."""
    found = zip(checkpoints, hashes(checkpoints), strict=True)
    return tuple(Ingredient(c.name, c.name, content, None) for c, content in found)
