"""Tiny adapters by hand, in the form of PEFT's folders."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

PREFIX = "base_model.model."


def write_adapter(folder: Path, tensors: dict[str, Any], **config: Any) -> Path:
    """A folder with these tensors, by their names in the base model; rank 1 and alpha 1 if nothing else is said."""
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Tensor] = {}
    for name, value in tensors.items():
        tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float32)
        made[PREFIX + name] = tensor.contiguous()
    save_file(made, folder / "adapter_model.safetensors")
    text = json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q"], **config})
    (folder / "adapter_config.json").write_text(text)
    return folder


def rank_one(down: list[float], up: list[float], module: str = "q") -> dict[str, Any]:
    """The factors of the update up x down."""
    return {f"{module}.lora_A.weight": [down], f"{module}.lora_B.weight": [[x] for x in up]}
