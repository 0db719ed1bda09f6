"""Read folders that training writes, with weights in a subfolder: Trainer with FSDP, DeepSpeed.

With ZeRO stages 0 to 2, a file of DeepSpeed has all weights, in its entry `module`. With ZeRO-3
each process saves a part, and only DeepSpeed's own script can put the parts together.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from modelsoups.checkpoints.dcp import is_dcp, read_dcp
from modelsoups.checkpoints.pytorch import read_pytorch
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.disk import paths

STATES = "model_states.pt"  # of DeepSpeed: mp_rank_00_model_states.pt
SCRIPT = "run its zero_to_fp32.py, as `python zero_to_fp32.py . OUTPUT`, and give its output"


def read_training_folder(folder: Path, key: str | None) -> Checkpoint | None:
    """Return the weights in a training folder or distributed checkpoint; None if it is neither.

    Raises ValueError if it has several checkpoints, or parts that only another tool can join.
    """
    if is_dcp(folder):
        return read_dcp(folder, key)
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and is_dcp(p) and not p.name.startswith("optim"))
    if inner:
        return _dcp_within(folder, _only(folder, "distributed checkpoints", inner), key)
    states = _states(folder)
    return None if states is None else _deepspeed(folder, states, key)


def _dcp_within(folder: Path, inner: Path, key: str | None) -> Checkpoint:
    found = read_dcp(inner, key)
    parts = {prefix: inner.relative_to(folder) / file for prefix, file in found.parts.items()}
    notes = [f"took its {inner.name}", *found.notes]
    return replace(found, name=str(folder), folder=folder, parts=parts, notes=notes)


def _states(folder: Path) -> Path | None:
    """Return DeepSpeed's file of model states in a folder or its last step's folder, or None."""
    if not any(folder.glob(f"*{STATES}")):
        steps = sorted(p for p in folder.iterdir() if p.is_dir() and any(p.glob(f"*{STATES}")))
        latest = folder / "latest"
        last = latest.read_text(encoding="utf-8", errors="replace").strip() if latest.is_file() else ""
        named = [step for step in steps if step.name == last]
        if not steps:
            return None
        folder = _only(folder, "steps of DeepSpeed", named or steps)
    return min(folder.glob(f"*{STATES}"), key=_order)


def _order(path: Path) -> tuple[bool, str]:
    return not path.name.startswith("mp_rank_"), path.name


def _deepspeed(folder: Path, states: Path, key: str | None) -> Checkpoint:
    check_states(states)
    found = read_pytorch(states, key or "module")
    notes = [f"took {states.relative_to(folder)}", *found.notes]
    if any(entry.dtype in (torch.float16, torch.bfloat16) for entry in found.entries.values()):
        notes.append("its weights are 16-bit copies; zero_to_fp32.py writes the float32 ones that were trained")
    return replace(found, name=str(folder), folder=folder, parts={"": Path(paths.MODEL)}, notes=notes)


def check_states(path: Path) -> None:
    """Raise ValueError if DeepSpeed's file of model states has only a part of the weights."""
    beside = [p.name for p in path.parent.glob(f"*{STATES}")]
    if any(name.startswith("zero_pp_rank_") for name in (path.name, *beside)):
        raise ValueError(f"{path} is from DeepSpeed's ZeRO-3, where each process saves a part of the weights; {SCRIPT}")
    kinds: dict[str, Callable[[str], bool]] = {
        "tensor": lambda name: name.startswith("mp_rank_") and not name.startswith("mp_rank_00_"),
        "pipeline": lambda name: name.startswith("layer_") and "expert" not in name,
        "expert": lambda name: "expert" in name,
    }
    for kind, is_one in kinds.items():
        if part := next(filter(is_one, sorted(beside)), None):
            what = f"contains a part of the weights ({kind} parallelism, as {part} beside it shows)"
            way_out = "save the whole model with the library that trained it"
            raise ValueError(f"{path} {what}; {way_out}")


def _only(folder: Path, what: str, found: list[Path]) -> Path:
    if len(found) > 1:
        shown = ", ".join(p.name for p in found[:5]) + (", ..." if len(found) > 5 else "")
        raise ValueError(f"{folder} contains several {what} ({shown}); give one of these folders")
    return found[0]
