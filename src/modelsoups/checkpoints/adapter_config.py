"""Read PEFT's adapter_config.json, and refuse settings whose effect on the weights is unknown.

Source: `LoraConfig` of PEFT 0.21. Keys that are not listed here may change the computation, so an
adapter that sets one of them raises ValueError with the key's name.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelsoups.disk.opening import text_of

NAME = "adapter_config.json"
Settings = Mapping[str, Any]
READ = {
    *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "init_lora_weights"),
    *("fan_in_fan_out", "bias", "lora_bias", "base_model_name_or_path", "modules_to_save", "task_type"),
}
TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
OF_TRAINING = {  # which concern training, or keys that do nothing alone
    *("auto_mapping", "corda_config", "eva_config", "inference_mode", "loftq_config", "lora_dropout", "lora_ga_config"),
    *("megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config"),
}
# Initializations that leave the base model as it is. The others (pissa, olora, corda, loftq, lora_ga) subtract
# the first factors from it, so the factors in the file are no update of the published model.
HARMLESS_INIT = (None, True, False, "gaussian", "eva", "orthogonal", "mica")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a LoRA adapter's adapter_config.json.

    Raises ValueError, naming the key, for adapters other than LoRA, and for settings that change
    the computation and are not supported.
    """
    path = folder / NAME
    try:
        config = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON; save the adapter again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a configuration of PEFT; save the adapter again")
    kind = config.get("peft_type")
    if kind != "LORA":
        what = f"adapters of type {str(kind)[:60]} are not supported, only LORA"
        raise ValueError(f"{folder}: {what}; merge it into its base model")
    for key, value in config.items():
        if key not in (*READ, *TARGETS, *OF_TRAINING) and value not in (None, False, 0, "", [], {}):
            raise ValueError(f"{path}: {key} is set, which changes what an adapter computes and is not supported")
    init = config.get("init_lora_weights", True)
    if init not in HARMLESS_INIT:
        way = "save it as plain LoRA with save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        raise ValueError(f"{path}: init_lora_weights={str(init)[:40]} also changes the base model's weights; {way}")
    for key, kind in (("rank_pattern", dict), ("alpha_pattern", dict), ("modules_to_save", list), ("bias", str)):
        if not isinstance(config.get(key) or kind(), kind):
            raise ValueError(f"{path}: {key} is not a {kind.__name__}, as PEFT writes it; save the adapter again")
    return config


def scale_of(settings: Settings, module: str, where: Path) -> tuple[int, float]:
    """Return a module's LoRA rank, and the scale that multiplies the product of its factors.

    The scale is alpha / r, or alpha / sqrt(r) for rsLoRA. Raises ValueError if r or alpha is
    invalid.
    """
    rank = _of_module(settings, "rank_pattern", module, where, settings.get("r", 8))
    alpha = _of_module(settings, "alpha_pattern", module, where, settings.get("lora_alpha", 8))
    for key, value in (("r", rank), ("lora_alpha", alpha)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{where / NAME}: {key} of {module} is {value!r}; expected a number")
    if rank != int(rank) or rank < 1:
        expected = "a whole number of at least 1"
        raise ValueError(f"{where / NAME}: r of {module} is {rank!r}; expected {expected}")
    return int(rank), alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _of_module(settings: Settings, key: str, module: str, where: Path, usual: Any) -> Any:
    """Return the value in settings[key] whose regular expression matches a module, or `usual`."""
    for pattern, value in (settings.get(key) or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            raise ValueError(f"{where / NAME}: {key} {pattern!r} is not a regular expression ({error})") from error
    return usual


def base_of(settings: Settings) -> str | None:
    """Return the name or path of the model that the adapter was trained on; None if unknown."""
    name = settings.get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None
