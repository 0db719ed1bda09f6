"""The reader of weight files: safetensors, state dicts, OpenAI's TorchScript; it runs no code."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from modelsoups.checkpoints.formats import SUFFIXES, load_state
from modelsoups.checkpoints.layouts import check_layout, layout_of
from modelsoups.checkpoints.torchscript import is_archive, load_archive

OPENAI_BUFFERS = ("input_resolution", "context_length", "vocab_size")  # only in OpenAI's files


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a weight file, with floats converted to float32."""

    path: Path
    state: dict[str, Tensor]
    openai: bool  # whether the file's format shows that OpenAI trained the weights


def file_of(tag: str | None) -> Path | None:
    """Return model.tag as a path, or None if it is not one; ValueError if the file is missing."""
    if tag is None or not (tag.endswith(SUFFIXES) or "/" in tag):
        return None
    path = Path(tag).expanduser()
    if not path.is_file():
        raise ValueError(f"model.tag={tag}: no such file")
    return path


def read_weights(path: Path) -> WeightFile:
    """Read a weight file; ValueError if it is damaged, of unknown format or needs code to load."""
    archive = path.suffix != ".safetensors" and is_archive(path)
    content = load_archive(path) if archive else load_state(path)
    openai = archive or any(key in content for key in OPENAI_BUFFERS)
    state = {}
    for key, tensor in content.items():
        mask = archive and key.endswith("attn_mask")  # a constant of the text tower
        if key not in OPENAI_BUFFERS and not mask:
            state[key] = tensor.float() if tensor.is_floating_point() else tensor
    return WeightFile(path, state, openai)


def load_into(module: nn.Module, file: WeightFile, name: str, ignore: tuple[str, ...] = ()) -> None:
    """Load a file's tensors into a model, except those whose names start with one of `ignore`.

    Raises ValueError if names or shapes differ; the message gives file, model and first difference.
    """
    expected = module.state_dict()
    state = {key: tensor for key, tensor in file.state.items() if not key.startswith(ignore)}
    scale = state.get("logit_scale")
    if scale is not None and "logit_scale" in expected and scale.numel() == 1:  # () or (1,)
        state["logit_scale"] = scale.reshape(expected["logit_scale"].shape)
    check_layout(state, layout_of(expected), f"{file.path}, read for model.name={name}")
    module.load_state_dict(state)
