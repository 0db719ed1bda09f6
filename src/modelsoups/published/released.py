"""Constants about the paper's 72 released checkpoints, and the names of their tensors."""

import re

from modelsoups.published.tables import MODELS

MODEL = "clip_vit_b32"  # their configuration under conf/model/
ARCHITECTURE = "ViT-B-32-quickgelu"  # its model.name
CLASSES = 1000
LEARNED = {"epochs": 5, "lr": 0.05, "batch_size": 256}  # of their learned_bylayer.py: a softmax for each tensor
RENAMED = {"model.visual.": "encoder.", "classification_head.": "head."}  # released prefix -> prefix here


def our_name(key: str) -> str | None:
    """Return this package's name of a released checkpoint's tensor; None for the text tower."""
    for theirs, ours in RENAMED.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return None


def number_of(name: str) -> int | None:
    """Return 43 for the names model_43, model_43.pt and 043; None for any other name."""
    match = re.fullmatch(r"(?:model_(\d+)(?:\.pt)?|(\d{3}))", name)
    number = int(match[1] or match[2]) if match else MODELS
    return number if number < MODELS else None
