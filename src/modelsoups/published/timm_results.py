"""The accuracies on ImageNet and its shifts that timm publishes of 1,266 models.

assets/timm/README.md names their source. timm has no results on ObjectNet, so there is no mean of the
paper's five shifts.
"""

import csv
import functools
from dataclasses import dataclass

from modelsoups.disk.paths import ASSETS

FILE = ASSETS / "timm" / "accuracies.csv"
TEST = "val"
SHIFTED = ("v2", "r", "sketch", "a", "real")  # real: other labels of the images of val
SAME_CLIP = "vit_base_patch32_clip_224.openai_ft_in1k"  # the paper's CLIP ViT-B/32, fine-tuned once, by timm
ADVERSARY = "resnet50.tv_in1k"  # ImageNet-A consists of images that such a ResNet-50 gets wrong


@dataclass(frozen=True)
class TimmModel:
    """A model with pre-trained weights: its name in timm, and its top-1 accuracy, 0 to 1, by data set."""

    name: str
    accuracy: dict[str, float]


@functools.cache
def timm_models() -> dict[str, TimmModel]:
    """Return all models by name. All have an accuracy on `TEST`; on a shifted set it may be absent."""
    found = {}
    with open(FILE, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            accuracy = {name: float(row[name]) / 100 for name in (TEST, *SHIFTED) if row[name]}
            found[row["model"]] = TimmModel(row["model"], accuracy)
    return found


def baseline(dataset: str) -> list[TimmModel]:
    """Return the models with accuracies from which those on a shifted set can be predicted.

    On ImageNet-A, models below the ResNet-50 that its images were chosen against are left out: their
    accuracies are near zero, whatever their accuracy on ImageNet.
    """
    models = timm_models()
    least = models[ADVERSARY].accuracy[TEST] if dataset == "a" else 0.0
    return [m for m in models.values() if dataset in m.accuracy and m.accuracy[TEST] >= least]
