"""Read LoRA adapters from PEFT's folders, as low-rank updates of a base model's tensors.

Letters: R rank, O outputs, I inputs. An update is scale * up @ down, with shapes (O, R) and (R, I);
for convolutions (O, R, 1, 1) and (R, I, height, width), for embeddings (O, R) and (R, words).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from modelsoups.checkpoints import adapter_config
from modelsoups.checkpoints.states import describe
from modelsoups.checkpoints.tensors import Checkpoint, Entry, InMemory

PREFIX = "base_model.model."
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
FACTOR = re.compile(
    r"(?P<module>.+)\.(?P<kind>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector)(?:(?<=vector)\.weight)?$"
)
# Of biases beside modules_to_save, which PEFT skips.
COPIES = re.compile(r"\.(original_module|modules_to_save)(?=\.)")
UNKNOWN = re.compile(r"(^|\.)(lora_|token_adapter\.|original_module\.|modules_to_save\.)")
INNER = "base_layer."  # what PEFT calls a layer that it has wrapped


@dataclass(frozen=True)
class Update:
    """The low-rank update (LoRA) of one module's weight, and of its bias if lora_bias is set.

    magnitude: for DoRA, the norm of each row (output) of the weight after the update, (O,).
    """

    module: str  # as in the file's names
    down: Entry
    up: Entry
    scale: float
    embedding: bool = False
    magnitude: Entry | None = None
    bias: Entry | None = None

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def target(self) -> str:
        """The module's name in the base model, without PEFT's infix "base_layer."."""
        return self.module.replace(INNER, "")


@dataclass(eq=False)
class Adapter(Checkpoint):
    """A LoRA adapter: its tensors by their names in the file, and how they change the base model.

    updates: {module name: low-rank update}. whole: tensors that replace the base model's (biases,
    modules_to_save), as {name in the base model: name in the file}.
    """

    config: dict[str, Any] = field(default_factory=dict)
    updates: dict[str, Update] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)


def is_adapter_folder(folder: Path) -> bool:
    """Return whether a folder contains a PEFT adapter of any kind (a file adapter_config.json)."""
    return (folder / adapter_config.NAME).is_file()


def weights_of(folder: Path) -> Path:
    """Return the file with an adapter's tensors, .safetensors or else .bin; ValueError if none."""
    file = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if file is None:
        way_out = "save the adapter again"
        raise ValueError(f"{folder} has an {adapter_config.NAME}, but no {WEIGHTS[0]}; {way_out}")
    return file


def adapter_of(folder: Path, weights: Checkpoint) -> Adapter:
    """Return the LoRA adapter in a PEFT folder; `weights` is the opened file with its tensors.

    Raises ValueError, naming file, key or tensor, for adapters other than LoRA, for unsupported
    settings, and for tensors that are missing or do not fit together.
    """
    config = adapter_config.read_config(folder)
    if odd := next((key for key in weights if not key.startswith(PREFIX)), None):
        raise ValueError(f"{weights.name}: tensor {odd} does not begin with {PREFIX}, as PEFT's save_pretrained writes")
    found: dict[str, dict[str, Entry]] = {}
    whole: dict[str, str] = {}
    for key, entry in weights.entries.items():
        name = key.removeprefix(PREFIX)
        if match := FACTOR.match(name):
            found.setdefault(match["module"], {})[match["kind"]] = entry
        elif COPIES.search(name) and PREFIX + COPIES.sub("", name) in weights:
            continue
        elif UNKNOWN.search(name):
            way_out = "merge it into its base model"
            raise ValueError(f"{weights.name}: tensor {key} is not a known LoRA tensor; {way_out}")
        else:
            whole[name.replace(INNER, "")] = key
    updates = {module: _update(folder, config, module, parts) for module, parts in found.items()}
    files = (*weights.files, folder / adapter_config.NAME)
    adapter = Adapter(str(folder), weights.entries, notes=weights.notes, folder=folder, files=files)
    adapter.config, adapter.updates, adapter.whole = config, updates, whole
    scales = torch.tensor([update.scale for update in updates.values()], dtype=torch.float64)
    adapter.before = Checkpoint(str(folder), {**weights.entries, "scales": InMemory(scales)}, files=files)  # digest
    return adapter


def _update(folder: Path, settings: dict[str, Any], module: str, parts: dict[str, Entry]) -> Update:
    """Return one module's update; ValueError if a tensor is missing or they do not fit together."""
    rank, scale = adapter_config.scale_of(settings, module.partition(f".{INNER}")[0], folder)
    embedding = "lora_embedding_A" in parts or "lora_embedding_B" in parts
    names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
    for name in names:
        if name not in parts:
            raise ValueError(f"{folder}: {module}.{name} is missing; save the adapter again")
    down, up = parts[names[0]], parts[names[1]]
    magnitude, bias = parts.get("lora_magnitude_vector"), parts.get("lora_B.bias")
    for name, entry in parts.items():
        if not entry.dtype.is_floating_point:
            raise ValueError(f"{folder}: {module}.{name} is {describe(entry)}: quantized adapters are not supported")
    if min(len(down.shape), len(up.shape)) < 2 or 0 in (*down.shape, *up.shape):
        raise ValueError(
            f"{folder}: the factors of {module} are not matrices: gather them before saving (ZeRO-3, FSDP)"
        )
    if down.shape[0] != rank:
        raise ValueError(f"{folder}: {module} has factors of rank {down.shape[0]}, but {rank} in {adapter_config.NAME}")
    if up.shape[1] != rank or any(size != 1 for size in up.shape[2:]):
        raise ValueError(
            f"{folder}: {module} has factors {describe(down)} and {describe(up)}, whose ranks "
            "differ (a convolution in groups?); this is not supported"
        )
    if bool(settings.get("use_dora")) != (magnitude is not None):
        set_to = bool(settings.get("use_dora"))
        raise ValueError(f"{folder}: use_dora is {set_to}, contrary to the tensors of {module}; save it again")
    return Update(module, down, up, scale, embedding, magnitude, bias)
