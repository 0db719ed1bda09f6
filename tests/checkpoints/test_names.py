"""Names as wrappers leave them: each is undone with a note, and parts of a model that are named alike stay."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.checkpoints.names import leave_out
from modelsoups.checkpoints.tensors import checkpoint_of

ONES = torch.ones(2)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def opened(state: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    checkpoint = open_checkpoint(state)
    return list(checkpoint), checkpoint.notes


def test_an_averaged_model_loads_into_the_model(tmp_path: Path) -> None:
    model = net()
    torch.save(AveragedModel(model).state_dict(), tmp_path / "swa.pt")
    checkpoint = open_checkpoint(tmp_path / "swa.pt")
    copy.deepcopy(model).load_state_dict(dict(checkpoint))
    assert checkpoint.notes == ["n_averaged left out: the step counter of AveragedModel", "prefix module. removed"]
    torch.save({"epoch": 1, "model": model.state_dict(), "model_ema": AveragedModel(model).state_dict()}, "tv.pth")
    model.load_state_dict(dict(open_checkpoint("tv.pth", key="model_ema")))


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_checkpointed_and_compiled_parts_load_into_the_model() -> None:
    model = net()
    wrapped = copy.deepcopy(model)
    wrapped[0] = checkpoint_wrapper(torch.compile(wrapped[0]))  # its state_dict hides only its own name
    wrapped[2] = torch.compile(wrapped[2])
    assert any("_orig_mod" in name for name in wrapped.state_dict())
    model.load_state_dict(dict(open_checkpoint(wrapped.state_dict())))


@pytest.mark.parametrize(
    ("before", "after", "notes"),
    [
        (["_forward_module.a", "_forward_module.b"], ["a", "b"], ["prefix _forward_module. removed"]),  # of Lightning
        (["model._orig_mod.a", "model._orig_mod.b"], ["model.a", "model.b"], ["_orig_mod removed from 2 tensor names"]),
        (
            ["_orig_mod.a", "_orig_mod.b._orig_mod.c"],
            ["a", "b.c"],
            ["prefix _orig_mod. removed", "_orig_mod removed from 1 tensor names"],
        ),
        (
            ["_fsdp_wrapped_module.a._fsdp_wrapped_module._checkpoint_wrapped_module.w", "_fsdp_wrapped_module.h"],
            ["a.w", "h"],
            [
                "prefix _fsdp_wrapped_module. removed",
                "_fsdp_wrapped_module, _checkpoint_wrapped_module removed from 1 tensor names",
            ],
        ),
        (
            ["module._orig_mod.module.a"],
            ["a"],
            ["prefix module. removed", "prefix _orig_mod. removed", "prefix module. removed"],
        ),
        (["module.a", "head"], ["module.a", "head"], []),  # a part of the model
        (["a.module.w", "a.module.b"], ["a.module.w", "a.module.b"], []),  # may be one, too
        (["a", "_orig_mod.a"], ["a", "_orig_mod.a"], []),  # two tensors must not become one
        (["n_averaged", "a"], ["n_averaged", "a"], []),
        (["n_averaged"], ["n_averaged"], []),
    ],
)
def test_wrappers_names_are_removed_and_others_kept(before: list[str], after: list[str], notes: list[str]) -> None:
    assert opened({name: torch.full((2,), float(i)) for i, name in enumerate(before)}) == (after, notes)


def test_ties_follow_their_names() -> None:
    checkpoint = open_checkpoint({"m._orig_mod.a": ONES, "m._orig_mod.b": ONES})
    assert checkpoint.tied == {"m.b": "m.a"}
    three = checkpoint_of({"a": ONES, "b": ONES, "c": ONES})
    leave_out(three, "a")
    assert (list(three), three.tied) == (["b", "c"], {"c": "b"})
