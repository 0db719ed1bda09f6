"""The selection of IconNet-A: images that a reference network gets wrong, as in ImageNet-A.

    python -m modelsoups.miniature.adversarial

writes assets/iconnet/adversarial.json in about eight minutes on one core. It trains two small
convolutional networks: the reference on icons of the designers in IconNet's training set, the judge
on icons of all designers. A candidate image is selected if the reference is wrong and the judge (in
place of people) is right. IconNet-A is a random subset of the selected images.

Shape letters: M chunks of N candidates; C channels, H height, W width.
"""

import base64
import math
import time
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS
from modelsoups.miniature import icons, sets

FILE = ASSETS / "iconnet" / "adversarial.json"
CANDIDATES = 160  # chunks
STEPS, BATCH, LR = 1500, 64, 3e-3
LABEL_OF_CLASS = sets.SETS["a"].label_of_class
IN_A = sorted(LABEL_OF_CLASS)  # the classes of A


def selected(seed: int, chunk: int) -> tuple[Tensor, list[int]]:
    """Return the images, (N, C, H, W), and class indices of one chunk of IconNet-A."""
    images, classes = [], []
    for candidate_chunk, place in order(seed)[chunk * sets.CHUNK : (chunk + 1) * sets.CHUNK]:
        images_NCHW, drawn = candidates(candidate_chunk)
        images.append(images_NCHW[place])
        classes.append(drawn[place])
    return torch.stack(images), classes


@lru_cache(maxsize=4)
def order(seed: int) -> list[tuple[int, int]]:
    """Return where the IconNet-A images are among the candidates: (chunk, index in the chunk)."""
    kept_MN, count = kept(), sets.SETS["a"].count
    chosen: list[tuple[int, int]] = []
    for chunk in torch.randperm(len(kept_MN), generator=sets.generator(f"a {seed}")).tolist():
        chosen += [(chunk, place) for place in kept_MN[chunk].nonzero()[0].tolist()]
        if len(chosen) >= count:
            return chosen[:count]
    raise ValueError(f"{FILE} selects only {len(chosen)} candidates, but IconNet-A needs {count}: raise CANDIDATES")


@cache
def kept() -> np.ndarray:
    """Return a bool array, (chunks, images per chunk): whether a rendered image is in IconNet-A."""
    packed = base64.b64decode(storage.read_json(FILE)["kept"])
    return np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(-1, sets.CHUNK).astype(bool)


@lru_cache(maxsize=8)
def candidates(chunk: int) -> tuple[Tensor, list[int]]:
    return _render(sets.SETS["a"].styles, sets.CHUNK, sets.generator(f"a candidates {chunk}"))


def _render(styles: Sequence[str], count: int, g: Generator) -> tuple[Tensor, list[int]]:
    """Render `count` icons of random IconNet-A classes; return images (N, C, H, W) and classes."""
    drawn_N = torch.randint(len(IN_A), (count,), generator=g)
    classes = [IN_A[i] for i in drawn_N.tolist()]
    glyphs = icons.random_glyphs(styles, classes, g)
    return sets.render_glyphs(glyphs, sets.SETS["a"].look, g), classes


def _classify(model: nn.Module, images_NCHW: Tensor) -> Tensor:  # logits_NC of uint8 images
    return model(images_NCHW.float() / 127.5 - 1)


def network() -> nn.Module:
    """Return an untrained CNN: five convolutions and a linear layer, 0.4 million parameters."""
    layers: list[nn.Module] = []
    shapes = ((3, 32, 2), (32, 64, 1), (64, 96, 2), (96, 128, 1), (128, 192, 2))
    for before, after, stride in shapes:
        convolution = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(768, len(IN_A)))


def fit(styles: Sequence[str], name: str) -> nn.Module:
    """Return a network trained on rendered icons of these styles; `name` seeds the rendering."""
    torch.manual_seed(0)
    model = network().train()
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, STEPS, pct_start=0.1)
    g, start = sets.generator(f"a {name}"), time.monotonic()
    for step in range(1, STEPS + 1):
        images_NCHW, classes = _render(styles, BATCH, g)
        labels_N = torch.tensor([LABEL_OF_CLASS[c] for c in classes])
        loss = F.cross_entropy(_classify(model, images_NCHW), labels_N, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            left = (time.monotonic() - start) / step * (STEPS - step) / 60
            print(f"adversarial: {name} step {step}/{STEPS}  loss {loss.item():.3f}  {left:.1f} min left", flush=True)
    return model.eval()


@torch.inference_mode()
def _is_right(model: nn.Module) -> Tensor:
    """Return a bool for each candidate image: whether the network classifies it correctly."""
    right = []
    for chunk in range(CANDIDATES):
        images_NCHW, classes = candidates(chunk)
        labels_N = torch.tensor([LABEL_OF_CLASS[c] for c in classes])
        right.append(_classify(model, images_NCHW).argmax(dim=1) == labels_N)
    return torch.cat(right)


def select() -> None:
    """Train two networks and write adversarial.json: images that only the judge gets right.

    The reference is trained on the in-distribution styles alone, the judge on all styles.
    """
    reference_N = _is_right(fit(icons.IN_DISTRIBUTION, "reference"))
    judge_N = _is_right(fit(tuple(icons.STYLES), "judge"))
    kept_N = ~reference_N & judge_N
    percent = {}
    for name, true_N in (("reference", reference_N), ("judge", judge_N), ("kept", kept_N)):
        percent[name] = round(100 * float(true_N.float().mean()), 1)
    packed = base64.b64encode(np.packbits(kept_N.numpy()).tobytes()).decode()
    content = {"made with": "python -m modelsoups.miniature.adversarial", "candidates": len(kept_N)}
    storage.write_json(FILE, {**content, "percent right, or kept": percent, "kept": packed})
    needed = math.ceil(100 * sets.SETS["a"].count / len(kept_N))
    print(f"adversarial: wrote {FILE}; % of images classified correctly, or kept: {percent} (needed: {needed}%)")


if __name__ == "__main__":
    torch.set_num_threads(1)
    select()
