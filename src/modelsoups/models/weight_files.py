"""Weights of pre-trained models from files, read without running code in them and loaded tensor by tensor.

Files: safetensors, state dicts (.pt, .pth, .bin), and OpenAI's TorchScript archives (ViT-B-32.pt).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from modelsoups.checkpoints.states import SUFFIXES, describe
from modelsoups.checkpoints.torchscript import is_archive, load_archive
from modelsoups.weights import state_dicts

OPENAI_BUFFERS = ("input_resolution", "context_length", "vocab_size")  # in OpenAI's state dicts; no model has them


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file, floats as float32; openai: whether the file shows that OpenAI trained them."""

    path: Path
    state: dict[str, Tensor]
    openai: bool


def file_of(tag: str | None) -> Path | None:
    """A model's tag as a file if it looks like one; ValueError when that file is not there."""
    if tag is None or not (tag.endswith(SUFFIXES) or "/" in tag):
        return None
    path = Path(tag).expanduser()
    if not path.is_file():
        raise ValueError(f"model.tag={tag}: no such file")
    return path


def read_weights(path: Path) -> WeightFile:
    """Read a file of any of the kinds above; ValueError names it when it is none, damaged, or holds code to run."""
    archive = path.suffix != ".safetensors" and is_archive(path)
    content = load_archive(path) if archive else state_dicts.load_state(path)
    openai = archive or any(key in content for key in OPENAI_BUFFERS)
    state = {}
    for key, tensor in content.items():
        mask = archive and key.endswith("attn_mask")  # the text tower's, constants that an archive keeps
        if key not in OPENAI_BUFFERS and not mask:
            state[key] = tensor.float() if tensor.is_floating_point() else tensor
    return WeightFile(path, state, openai)


def load_into(module: nn.Module, file: WeightFile, name: str, ignore: tuple[str, ...] = ()) -> None:
    """Load a file's tensors into a model, every one by its name, but for those whose names begin as in `ignore`.

    Raises ValueError naming the file, the model and the first tensor that is foreign, missing or of another shape.
    """
    expected = module.state_dict()
    state = {key: tensor for key, tensor in file.state.items() if not key.startswith(ignore)}
    scale = state.get("logit_scale")
    if scale is not None and "logit_scale" in expected and scale.numel() == 1:  # a scalar, or one number in a row
        state["logit_scale"] = scale.reshape(expected["logit_scale"].shape)
    check_layout(state, layout_of(expected), f"{file.path}, read for model.name={name}")
    module.load_state_dict(state)


def layout_of(state: Mapping[str, Tensor]) -> dict[str, str]:
    """name -> shape and dtype, as `check_layout` compares them."""
    return {key: describe(tensor) for key, tensor in state.items()}


def check_layout(state: Mapping[str, Tensor], expected: Mapping[str, str], where: str) -> None:
    """Refuse a state whose tensors are not those expected; ValueError names the first that differs."""
    foreign = [key for key in state if key not in expected]
    missing = [key for key in expected if key not in state]
    if foreign:
        raise ValueError(f"{where}: tensor {foreign[0]} does not belong there ({len(foreign)} such tensors)")
    if missing:
        raise ValueError(f"{where}: tensor {missing[0]} is missing ({len(missing)} such tensors)")
    for key, found in layout_of(state).items():
        if found != expected[key]:
            raise ValueError(f"{where}: tensor {key} is {found}, expected {expected[key]}")
