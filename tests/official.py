"""A random state dict in the layout of the authors' released checkpoints, and the official forward pass of it.

official_logits.json was made by the authors' own code, from checkouts of openai/CLIP (d05afc4) and
mlfoundations/model-soups (d5398f1):

    python tests/imagenet/official.py CLIP_CHECKOUT MODEL_SOUPS_CHECKOUT
"""

import hashlib
import json
import sys
from pathlib import Path

import torch

from modelsoups.published import tables

FIXTURE = Path(__file__).parent / "golden" / "official_logits.json"
IMAGES = 3
CLASSES = (0, 1, 207, 657, 744, 999)


def seeded(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_state() -> dict[str, torch.Tensor]:
    """160 fp32 tensors by the official names; numbers of about the size that trained ones have."""
    state = {}
    for key, (shape, _) in tables.official_keys().items():
        gain = key.endswith(("ln_1.weight", "ln_2.weight", "ln_pre.weight", "ln_post.weight", "ln_final.weight"))
        scale = 0.1 if gain or len(shape) < 2 else min(0.03, shape[-1] ** -0.5)
        state[key] = scale * seeded(key, shape) + (1.0 if gain else 0.0)
    state["classification_head.weight"] *= 150  # logits to about 16, as the zero-shot head's
    return state


def images() -> torch.Tensor:
    """Three normalised images, fp32 (3, 3, 224, 224)."""
    return seeded("images", (IMAGES, 3, 224, 224))


def main(clip: str, soups: str) -> None:
    sys.path[:0] = [clip, soups]
    from clip.model import CLIP  # openai/CLIP
    from utils import ModelWrapper  # mlfoundations/model-soups

    model = ModelWrapper(CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12), 512, 1000, normalize=True)
    model.load_state_dict(random_state())
    with torch.no_grad():
        logits_NC = model.eval()(images())
    content = {
        "classes": CLASSES,
        "logits": logits_NC[:, list(CLASSES)].tolist(),
        "argmax": logits_NC.argmax(dim=1).tolist(),
        "largest": logits_NC.abs().max().item(),
    }
    FIXTURE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
