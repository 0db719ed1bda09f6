"""The selection of IconNet-A: renderings that a reference network gets wrong, as ImageNet-A was selected.

    python -m modelsoups.miniature.adversarial

makes it anew (about eight minutes on one core) and writes assets/iconnet/adversarial.json. Two small convolutional
networks are trained on renderings like the candidates: the reference has seen the in-distribution designers' glyphs
only, the judge every designer's. A candidate is kept where the reference errs and the judge, which stands in for the
people who checked ImageNet-A, does not. The candidates are the same for every seed; a seed chooses among those kept.

Legend: N images, C colours, H height, W width, K classes of A.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS
from modelsoups.miniature import icons, sets
from modelsoups.miniature.render import Look

FILE = ASSETS / "iconnet" / "adversarial.json"
CANDIDATES = 160  # chunks
STEPS, BATCH, LR = 1500, 64, 3e-3


def selected(seed: int, chunk: int) -> tuple[Tensor, list[int]]:
    """images_NCHW and classes of one chunk of the set: kept candidates in an order that the seed shuffles."""
    wanted = order(seed)[chunk * sets.CHUNK : (chunk + 1) * sets.CHUNK]
    rendered = {c: candidates(c) for c in sorted({c for c, _ in wanted})}
    images_NCHW = torch.stack([rendered[c][0][i] for c, i in wanted])
    return images_NCHW, [rendered[c][1][i] for c, i in wanted]


@lru_cache(maxsize=4)
def order(seed: int) -> list[tuple[int, int]]:
    """Candidates, each a chunk and a place in it: those kept of random chunks, until the set is full."""
    kept_CN, chosen = kept(), []
    for chunk in torch.randperm(len(kept_CN), generator=sets.generator(f"a {seed}")).tolist():
        chosen += [(chunk, int(i)) for i in kept_CN[chunk].nonzero()[0]]
        if len(chosen) >= sets.set_size("a"):
            return chosen[: sets.set_size("a")]
    raise ValueError(f"{FILE.name} keeps {len(chosen)} candidates; the set needs {sets.set_size('a')}")


@lru_cache(maxsize=1)
def kept() -> np.ndarray:
    """Whether each candidate (chunk, place) was kept."""
    bits = base64.b64decode(storage.read_json(FILE)["kept"])
    return np.unpackbits(np.frombuffer(bits, np.uint8)).reshape(-1, sets.CHUNK).astype(bool)


@lru_cache(maxsize=8)
def candidates(chunk: int) -> tuple[Tensor, list[int]]:
    """images_NCHW and classes of one chunk of candidates."""
    g = sets.generator(f"a candidates {chunk}")
    icon_set = sets.SETS["a"]
    return draw(icon_set.styles, sorted(icon_set.label_of_class), icon_set.look, sets.CHUNK, g)


def draw(
    styles: Sequence[str], classes: Sequence[int], look: Look, count: int, g: torch.Generator
) -> tuple[Tensor, list[int]]:
    """Renderings of random glyphs of random classes."""
    available = icons.by_class(styles)
    drawn = [classes[i] for i in torch.randint(len(classes), (count,), generator=g).tolist()]
    which = torch.rand(count, generator=g).tolist()
    glyphs = [available[c][int(u * len(available[c]))] for c, u in zip(drawn, which, strict=True)]
    return sets.render_glyphs(glyphs, look, g), drawn


def network(classes: int) -> nn.Module:
    """Five convolutions, 0.4 million parameters."""
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 32, 2), (32, 64, 1), (64, 96, 2), (96, 128, 1), (128, 192, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(768, classes))


def fit(styles: Sequence[str], name: str) -> nn.Module:
    """A network trained on A-like renderings of the styles' glyphs, of the classes of A."""
    icon_set = sets.SETS["a"]
    label_of, classes = icon_set.label_of_class, sorted(icon_set.label_of_class)
    torch.manual_seed(0)
    model = network(len(classes)).train()
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, STEPS, pct_start=0.1)
    g, begun = sets.generator(f"a {name}"), time.monotonic()
    for step in range(1, STEPS + 1):
        images_NCHW, drawn = draw(styles, classes, icon_set.look, BATCH, g)
        labels_N = torch.tensor([label_of[c] for c in drawn])
        loss = F.cross_entropy(model(_normalise(images_NCHW)), labels_N, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            left = (time.monotonic() - begun) / step * (STEPS - step) / 60
            print(f"adversarial: {name} step {step}/{STEPS}  loss {loss.item():.3f}  {left:.1f} min left", flush=True)
    return model.eval()


def _normalise(images_NCHW: Tensor) -> Tensor:
    return images_NCHW.float() / 127.5 - 1


def select() -> None:
    """Train both networks, judge all candidates and write the selection."""
    reference_N = _right(fit(icons.IN_DISTRIBUTION, "reference"))
    judge_N = _right(fit(tuple(icons.STYLES), "judge"))
    kept_N = ~reference_N & judge_N
    share = {k: round(100 * float(v.float().mean()), 1) for k, v in
             {"reference": reference_N, "judge": judge_N, "kept": kept_N}.items()}  # fmt: skip
    bits = base64.b64encode(np.packbits(kept_N.numpy()).tobytes()).decode()
    made = {"made with": "python -m modelsoups.miniature.adversarial", "candidates": len(kept_N)}
    storage.write_json(FILE, {**made, "percent right, or kept": share, "kept": bits})
    wanted = math.ceil(100 * sets.set_size("a") / len(kept_N))
    print(f"adversarial: {share} of {len(kept_N)} candidates; the set needs {wanted}% -> {FILE}")


@torch.inference_mode()
def _right(model: nn.Module) -> Tensor:
    """Whether a network is right on each candidate."""
    label_of = sets.SETS["a"].label_of_class
    right = []
    for chunk in range(CANDIDATES):
        images_NCHW, classes = candidates(chunk)
        labels_N = torch.tensor([label_of[c] for c in classes])
        right.append(model(_normalise(images_NCHW)).argmax(dim=1) == labels_N)
    return torch.cat(right)


if __name__ == "__main__":
    torch.set_num_threads(1)
    select()
