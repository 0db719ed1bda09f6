"""A CLIP of open_clip's with the tensors of ViT-B/32's visual tower by name, but tiny and with random weights."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 12, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
STATISTICS = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


def tiny_clip(folder: Path) -> list[str]:
    """Write it as open_clip saves a model; the overrides that choose it."""
    folder.mkdir(parents=True)
    content = {"model_cfg": CONFIG, "preprocess_cfg": STATISTICS}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    model = open_clip.CLIP(**CONFIG)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return [f"model.name=local-dir:{folder}", "model.tag=local", "model.image_size=32"]
