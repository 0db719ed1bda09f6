"""The five things that flow through the pipeline: Recipe, Ingredient, Soup, Logits, Result."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # recipes and soups can be read without loading torch
    pass

AUGMENTATIONS = ("minimal", "medium", "strong", "stochastic", "fix")
RANDAUGMENT = re.compile(r"rand-m(\d+)-n(\d+)")


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of one fine-tuning run (section 2: h in FineTune(theta_0, h); ranges in J.2.1).

    aug is "minimal" (a crop of 90 to 100% of the area), "medium" (timm's default), "strong" (RandAugment N=2, M=15),
    timm's "rand-m{M}-n{N}", "stochastic" (one of the first three, drawn for each image, L.1) or "fix" (strong, and
    minimal in the last epoch, L.2). epochs counts passes over the training split, batch_size images a step over all
    devices, warmup_steps steps (at most a tenth of the run), mixup is Beta(mixup, mixup)'s parameter, min_crop the
    smallest share of the area that a random crop keeps and flip the probability of mirroring (timm's 0.08 and 0.5;
    "minimal" has its own crop and never mirrors). cutmix is Beta(cutmix, cutmix)'s parameter; where mixup is given too,
    each batch takes one of the two with equal chance, as in timm. sam is the radius of sharpness-aware minimization
    (L.3), 0 for none; without sam_sync each rank perturbs by the gradient of its own images (J.2.3). trained is "all",
    or "encoder", which leaves the head as it is (appendix E). ema lists decays of moving averages, swa the shares of
    the run after which averaging begins (0, and 0.7 for "SWA 70%", L.1): each gives an ingredient of its own beside the
    model. teachers are folders of ingredients or weight files: the model then learns what their ensemble predicts
    instead of the labels (L.1), so label_smoothing is without effect.
    Raises ValueError naming the field, its value and what is allowed.
    """

    lr: float
    weight_decay: float
    epochs: int
    label_smoothing: float
    mixup: float
    aug: str
    seed: int
    batch_size: int
    warmup_steps: int
    clip: float
    min_crop: float = 0.08
    flip: float = 0.5
    optimizer: str = "adamw"
    schedule: str = "cosine"
    loss: str = "softmax"
    cutmix: float = 0.0
    sam: float = 0.0
    sam_sync: bool = True
    trained: str = "all"
    ema: tuple[float, ...] = ()
    swa: tuple[float, ...] = ()
    teachers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*LISTS, "teachers"):
            if isinstance(getattr(self, name), list):  # where they come from JSON or YAML
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for f in fields(self):
            self.check(f.name, getattr(self, f.name))

    @staticmethod
    def check(name: str, value: Any) -> None:
        """Refuse a value that no recipe may have."""
        if name in ALLOWED:
            if value not in ALLOWED[name]:
                raise ValueError(f"recipe.{name}={value}: expected one of {', '.join(map(str, ALLOWED[name]))}")
        elif name == "aug":
            if value not in AUGMENTATIONS and not (isinstance(value, str) and RANDAUGMENT.fullmatch(value)):
                raise ValueError(f"recipe.aug={value}: expected {', '.join(AUGMENTATIONS)} or rand-m<M>-n<N>")
        elif name in LISTS:
            low, high = LISTS[name]
            numbers = isinstance(value, list | tuple) and all(isinstance(v, float | int) for v in value)
            if not numbers or not all(low <= v < high for v in value):
                raise ValueError(f"recipe.{name}={value}: expected a list of numbers from {low:g} to below {high:g}")
        elif name == "teachers":
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v for v in value):
                raise ValueError(f"recipe.teachers={value}: expected a list of ingredient folders or weight files")
        elif name in RANGES:
            low, high, open_low = RANGES[name]
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"recipe.{name}={value}: expected a number")
            if not (low < value <= high if open_low else low <= value <= high):
                bracket = "above" if open_low else "at least"
                raise ValueError(f"recipe.{name}={value}: expected {bracket} {low:g} and at most {high:g}")
        else:
            raise ValueError(f"recipe.{name}: no such key; valid keys: {', '.join(Recipe.names())}")

    @staticmethod
    def names() -> tuple[str, ...]:
        return tuple(f.name for f in fields(Recipe))

    def accumulation(self, ranks: int, at_once: int | None = None) -> int:
        """Parts of a batch that each of `ranks` processes takes one after the other, at most `at_once` images each.

        The batch stays the recipe's whatever the number of ranks. A part holds whole pairs, since mixup pairs image i
        of a batch with the i-th from its end; ValueError when the batch cannot be split so.
        """
        if ranks == 1 and (at_once is None or at_once >= self.batch_size):
            return 1
        if self.batch_size % (2 * ranks) == 0:
            pairs = self.batch_size // (2 * ranks)  # of each rank
            for parts in range(1, pairs + 1):
                if pairs % parts == 0 and (at_once is None or 2 * pairs // parts <= at_once):
                    return parts
        wish = f", at most {at_once} images at once" if at_once is not None else ""
        raise ValueError(
            f"recipe.batch_size={self.batch_size} cannot be split over {ranks} ranks{wish}: expected a multiple of "
            f"{2 * ranks}{' and at least 2 at once' if wish else ''}; change cluster.nodes or cluster.ranks_per_node"
        )


ALLOWED: dict[str, tuple[object, ...]] = {
    "optimizer": ("adamw", "adam", "rmsprop", "sgd", "adafactor"),
    "schedule": ("cosine", "cosine_restarts", "linear", "constant"),
    "loss": ("softmax", "binary"),
    "trained": ("all", "encoder"),
    "sam_sync": (True, False),
}
LISTS = {"ema": (0.0, 1.0), "swa": (0.0, 1.0)}  # name -> the least, and what each must stay below
RANGES: dict[str, tuple[float, float, bool]] = {  # low, high, whether low itself is excluded
    "lr": (0.0, 10.0, True),
    "weight_decay": (0.0, 100.0, False),
    "epochs": (1, 10_000, False),
    "label_smoothing": (0.0, 0.99, False),
    "mixup": (0.0, 100.0, False),
    "cutmix": (0.0, 100.0, False),
    "sam": (0.0, 100.0, False),
    "seed": (0, 2**63 - 1, False),
    "batch_size": (1, 2**20, False),
    "warmup_steps": (0, 10**7, False),
    "clip": (0.0, 1e9, True),
    "min_crop": (0.0, 1.0, True),
    "flip": (0.0, 1.0, False),
}
