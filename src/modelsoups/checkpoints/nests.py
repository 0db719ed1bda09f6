"""Find the weights in the nested dicts of a training checkpoint."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from modelsoups.checkpoints.tensors import is_beside

State = Mapping[str, Any]
WEIGHTS = ("state_dict", "model", "model_state_dict", "module", "params", "network", "net")  # the first counts
AVERAGES = ("state_dict_ema", "model_ema", "ema", "params_ema")  # taken where nothing else is there
TRAINING = ("optim", "sched", "lr_sched", "scaler", "grad_scaler", "callback", "loop", "rng", "hyper", "arg", "config")
DEPTH = 8  # of mappings in mappings that are looked into


def chosen_state(content: object, path: Path, key: str | None) -> tuple[State, list[str]]:
    """Return the state dict of the weights in a file's content, and notes on the choice.

    key: the dotted name of its entry, "model.ema"; None to choose a usual name. Raises ValueError,
    listing the entries with weights, if there is no such entry or several models have weights.
    """
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        way_out = "save model.state_dict()"
        raise ValueError(f"{path} contains a {kind}, not a dict of tensors; {way_out}")
    if key is None and _is_state(content):
        return content, []
    found = dict(_states(content, "", set()))
    usual = [name for name in found if name and not is_of_training(name)]
    chosen = _usual_choice(usual) if key is None else key
    if chosen is None and len(usual) > 1:
        way_out = "choose one with --key NAME"
        raise ValueError(f"{path} has the weights of several models: {', '.join(usual)}; {way_out}")
    if chosen is None or chosen not in found:
        what = f"no weights under {key}" if key else "no dict of tensors"
        raise ValueError(f"{path} has {what}; there are weights under: {', '.join(usual) or 'nothing'}")
    others = ", ".join(name for name in usual if name != chosen)
    return found[chosen], [f"took its entry {chosen}" + (f"; there are also {others} (--key)" if others else "")]


def _usual_choice(names: list[str]) -> str | None:
    """Return the only name, or the least nested one usual for weights; None if there is none."""
    last = {name: name.rpartition(".")[2] for name in names}
    for kinds in (WEIGHTS, AVERAGES):
        known = [name for name in names if last[name] in kinds]
        if known and (kinds == WEIGHTS or len(known) == len(names)):
            return min(known, key=lambda name: (name.count("."), kinds.index(last[name])))
    return names[0] if len(names) == 1 else None


def is_of_training(name: str) -> bool:
    return any(part.lower() == "opt" or part.lower().startswith(TRAINING) for part in name.split("."))


def _states(content: Mapping[Any, Any], name: str, seen: set[int]) -> Iterator[tuple[str, State]]:
    """Yield (dotted name, state dict) once for every state dict in nested dicts."""
    if id(content) in seen or name.count(".") >= DEPTH:
        return
    seen.add(id(content))
    if _is_state(content):
        yield name, content
        return
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _states(value, f"{name}.{key}" if name else str(key), seen)


def _is_state(content: Mapping[Any, Any]) -> bool:
    """Return whether a dict is a state dict: tensors by name, maybe beside counters or settings."""
    tensors = [value for value in content.values() if isinstance(value, Tensor)]
    if not tensors or not all(isinstance(key, str) for key in content):
        return False
    beside = [key for key, value in content.items() if not isinstance(value, Tensor)]
    sized = not beside or any(t.ndim and t.is_floating_point() for t in tensors)
    return sized and all(is_beside(key, content[key]) for key in beside)
