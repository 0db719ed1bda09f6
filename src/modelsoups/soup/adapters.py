"""Prepares a soup of LoRA adapters for writing: as one adapter, or merged into the base model."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from modelsoups.checkpoints import adapter_config
from modelsoups.checkpoints.adapter_config import TARGETS, base_of
from modelsoups.checkpoints.adapters import INNER, WEIGHTS, Adapter
from modelsoups.checkpoints.dtypes import rounded_to
from modelsoups.checkpoints.states import is_finite
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.soup.configs import config_of
from modelsoups.weights import digests as digest
from modelsoups.weights.adapter_sums import Sum, sum_of
from modelsoups.weights.merged import combined
from modelsoups.weights.state_dicts import EVERYTHING, Coefficients

BASE = "give --base MODEL (base=...), the model that the adapters were trained on"
EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|lm_head|wte|shared|word_embeddings)\.weight$")  # tied


@dataclass(frozen=True)
class Mixture:
    """What `mix` writes: the weighted sum of `checkpoints`, and what belongs beside it.

    digests: hashes of the ingredients, None if they are computed while mixing. folders: checkpoints
    whose other files (tokenizer, ...) are copied. notes: for the user. facts: added to the file's
    metadata. config: the content of adapter_config.json, if an adapter is written.
    """

    checkpoints: Sequence[Checkpoint]
    coefficients: Coefficients
    digests: tuple[str, ...] | None = None
    folders: Sequence[Checkpoint] = ()
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None

    def rounded_to(self, dtype: torch.dtype | None) -> "Mixture":
        """Return the same mixture, with computed numbers rounded to `dtype` instead of their own."""
        return self if dtype is None else replace(self, checkpoints=[rounded_to(c, dtype) for c in self.checkpoints])


def has_adapters(checkpoints: Sequence[Checkpoint]) -> bool:
    return any(isinstance(c, Adapter) for c in checkpoints)


def check_same_kind(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise ValueError if some checkpoints are adapters and others whole models."""
    odd = next((c for c in checkpoints if not isinstance(c, Adapter)), None)
    if odd is not None and has_adapters(checkpoints):
        raise ValueError(f"{odd.name} is not an adapter, but others are: {BASE}")


def as_adapter(checkpoints: Sequence[Checkpoint], coefficients: Coefficients, rank: int | None) -> Mixture:
    """Return one adapter as a Mixture: the sum of updates times coefficients, truncated to `rank`.

    Raises ValueError for whole models, NaN, a rank below 1, and adapters that `sum_of` refuses.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank={rank}: expected at least 1")
    check_same_kind(checkpoints)
    adapters = [c for c in checkpoints if isinstance(c, Adapter)]
    digests = _checked(checkpoints)
    found = sum_of(adapters, coefficients, rank)
    one = found.checkpoint
    one.folder, one.parts = adapters[0].folder, {"": Path(WEIGHTS[0])}
    one.files = tuple(file for adapter in adapters for file in adapter.files)
    notes = [*_notes(adapters), *found.notes]
    config = adapters[0].config if found.same is None else found.same.config
    if found.same is None:
        config = _config(adapters, found)
    return Mixture([one], {EVERYTHING: [1.0]}, digests, adapters, notes, {}, config)


def as_model(checkpoints: Sequence[Checkpoint], coefficients: Coefficients, base: Checkpoint) -> Mixture:
    """Return the full model as a Mixture: the base plus the sum of updates times coefficients.

    Raises ValueError for an adapter that contains NaN, or that `combined` refuses.
    """
    digests = _checked(checkpoints)
    whole = combined(checkpoints, coefficients, base)
    adapters = [c for c in checkpoints if isinstance(c, Adapter)]
    notes = _notes(adapters)
    named = {name for a in adapters if (name := base_of(a.config)) and not _same_name(name, base.name)}
    if named:
        notes.append(f"the adapters name {', '.join(sorted(named))} as their base; merged into {base.name} instead")
    if _may_tie(base) and (odd := [n for n in _changed(whole, base) if EMBEDDINGS.search(n)]):
        text = f"the adapters change {', '.join(odd)}; if the model ties its embeddings (tie_word_embeddings)"
        notes.append(f"{text}, input and output embeddings both change when it is loaded, unlike in PEFT")
    tasks = sorted({str(a.config["task_type"]) for a in adapters if a.config.get("task_type")})
    if tasks and any(name not in base.entries for name in whole):
        what = f"the adapters (task_type {', '.join(tasks)}) have weights that the base lacks"
        notes.append(f"{what}: load the model with the class for this task, as config.json is the base's")
    facts = {"base": {"name": base.name, "digest": digest.digest(base)}}
    return Mixture([whole], {EVERYTHING: [1.0]}, digests, [base], notes, facts)


def _changed(whole: Checkpoint, base: Checkpoint) -> list[str]:
    kept = set(map(id, base.entries.values()))
    return [name for name, entry in whole.entries.items() if id(entry) not in kept]


def _may_tie(base: Checkpoint) -> bool:
    """Return whether the base has a config.json without tie_word_embeddings set to false."""
    config = config_of(base)
    return config is not None and config.get("tie_word_embeddings") is not False


def _checked(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """Return each checkpoint's digest; ValueError if an adapter contains NaN or infinity."""
    for adapter in checkpoints:
        if isinstance(adapter, Adapter):
            odd = next((key for key, t in adapter.items() if t.is_floating_point() and not is_finite(t)), None)
            if odd is not None:
                raise ValueError(f"{adapter.name}: tensor {odd} contains NaN or infinity; leave this adapter out")
    return tuple(map(digest.digest, checkpoints))


def _notes(adapters: Sequence[Adapter]) -> list[str]:
    notes = [f"{adapter.name}: {note}" for adapter in adapters for note in adapter.notes]
    tasks = sorted({str(adapter.config.get("task_type")) for adapter in adapters})
    if len(tasks) > 1:
        notes.append(f"the adapters are for different tasks: {', '.join(tasks)}")
    return notes


def different_bases(checkpoints: Sequence[Checkpoint]) -> str | None:
    """Return a sentence if an adapter names another base model than the first adapter, else None.

    Base models are the same if the last parts of their paths are equal.
    """
    named = [(c.name, base) for c in checkpoints if isinstance(c, Adapter) and (base := base_of(c.config))]
    odd = next(((name, base) for name, base in named if not _same_name(base, named[0][1])), None)
    if odd is None:
        return None
    return f"{odd[0]} is an adapter of {odd[1]}, but {named[0][0]} of {named[0][1]}: use adapters of one model"


def _same_name(one: str, two: str) -> bool:
    return Path(one).name == Path(two).name


def _config(adapters: Sequence[Adapter], found: Sum) -> dict[str, Any]:
    """Return the adapter_config.json of summed adapters; lora_alpha equals r, so the scale is 1."""
    config = dict(adapters[0].config)
    ranks = found.ranks
    usual = Counter(ranks.values()).most_common(1)[0][0] if ranks else config.get("r", 8)
    pattern = {f"^{re.escape(module)}": rank for module, rank in _by_module(ranks).items() if rank != usual}
    config |= {"r": usual, "lora_alpha": usual, "rank_pattern": pattern, "alpha_pattern": dict(pattern)}
    config |= {"use_rslora": False, "use_dora": False, "init_lora_weights": True}
    config["lora_bias"] = any(adapter.config.get("lora_bias", False) for adapter in adapters)
    targets = [[_comparable(a.config.get(key)) for key in TARGETS] for a in adapters]
    if "target_modules" not in config or any(other != targets[0] for other in targets[1:]):
        config |= {**dict.fromkeys(TARGETS), "target_modules": sorted(_by_module(ranks))}
    saved = [name for adapter in adapters for name in adapter.config.get("modules_to_save") or ()]
    if saved:
        config["modules_to_save"] = list(dict.fromkeys(saved))
    biases = {str(adapter.config.get("bias", "none")) for adapter in adapters}
    if len(biases) > 1:
        config["bias"] = "all" if "all" in biases else "lora_only"
    return config


def _by_module(ranks: Mapping[str, int]) -> dict[str, int]:
    """Return each module's rank; MultiheadAttention's out_proj counts as part of its module."""
    return {module: rank for module, rank in ranks.items() if f".{INNER}" not in module}


def _comparable(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, list) else value


def config_text(settings: Mapping[str, Any]) -> str:
    """Return the text of an adapter_config.json, formatted as PEFT does."""
    return json.dumps(settings, indent=2, sort_keys=True)


CONFIG = adapter_config.NAME
