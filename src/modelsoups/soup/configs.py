"""Compares the config.json of models, which decides what they compute from their weights."""

import json
import re
from collections.abc import Mapping
from typing import Any

from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.disk.opening import text_of

# Keys that concern training, generation's caches or where a model came from.
HARMLESS = re.compile(
    r"^_|dropout|drop_(path|rate)|droprate|layerdrop|^(transformers_version|(torch_)?dtype|use_cache|auto_map"
    r"|gradient_checkpointing|finetuning_task|problem_type|task_specific_params|initializer_range|output_\w+|name_or_path"
    r"|return_dict|url|file|tag|source|license|description|origin_url|paper_\w+|hf_hub_\w+)$"
)
KINDS = ("model_type", "architectures", "architecture", "model_cfg")  # transformers, timm, open_clip
NAMES = ("config.json", "open_clip_config.json")
LABELS = ("id2label", "label2id", "label_names")


def config_difference(first: Checkpoint, other: Checkpoint) -> str | None:
    """Return a sentence on the first key that differs in two models' config.json, else None."""
    one, two = config_of(first), config_of(other)
    if one is None or two is None:
        return None
    same_version = one.get("transformers_version") == two.get("transformers_version")
    a, b = dict(_flat(one, "")), dict(_flat(two, ""))
    keys = [k for k in {**a, **b} if same_version or (k in a and k in b)]  # defaults differ
    odd = [k for k in keys if a.get(k, "nothing") != b.get(k, "nothing")]
    if not odd:
        return None
    key = odd[0]
    more = f" ({len(odd)} keys differ)" if len(odd) > 1 else ""
    what = "the classes have other names" if any(n in key for n in LABELS) else "equal weights then give other outputs"
    found = f"{other.name} has {key} {_shown(b, key)} in its configuration"
    return f"{found}, but {first.name} has {_shown(a, key)}{more}: {what}"


def config_of(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    """Return the config.json or open_clip_config.json beside a checkpoint's weights, else None."""
    if not checkpoint.files:
        return None
    folder = checkpoint.folder or checkpoint.files[0].parent
    for name in NAMES:
        try:
            content = json.loads(text_of(folder / name))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, Mapping) and any(kind in content for kind in KINDS):
            return content
    return None


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key])[:60] if key in flat else "nothing"


def _flat(value: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Return (dotted key, value) of nested settings, up to 8 levels deep, without HARMLESS keys."""
    found: list[tuple[str, Any]] = []
    for key, inner in value.items():
        if HARMLESS.search(key):
            continue
        if isinstance(inner, Mapping) and prefix.count(".") < 8:
            found += _flat(inner, f"{prefix}{key}.")
        else:
            found.append((prefix + key, inner))
    return found
