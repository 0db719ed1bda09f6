"""Recipe: the hyperparameters of one fine-tuning run. Loads without torch."""

import re
from dataclasses import dataclass, fields
from typing import Any

AUGMENTATIONS = ("minimal", "medium", "strong", "stochastic", "fix")
RANDAUGMENT = re.compile(r"rand-m(\d+)-n(\d+)")


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of one fine-tuning run (section 2: h in FineTune(theta_0, h); ranges in
    J.2.1).

    aug is one of
    - minimal: a crop of 90 to 100% of the area, never mirrored
    - medium: timm's default
    - strong: RandAugment with N = 2 and M = 15
    - rand-m<M>-n<N>: RandAugment in timm's notation
    - stochastic: minimal, medium or strong, drawn for each image (L.1)
    - fix: strong, and minimal in the last epoch (L.2).
    Each decay of ema and each share of swa gives a further ingredient beside the model itself. With
    teachers the model learns what their ensemble predicts instead of the labels (L.1), so
    label_smoothing has no effect. Raises ValueError naming the field, its value and what is
    allowed.
    """

    lr: float
    weight_decay: float
    epochs: int  # passes over the training set
    label_smoothing: float
    mixup: float  # of Beta(mixup, mixup); 0: none
    aug: str
    seed: int
    batch_size: int  # images in a step, over all devices
    warmup_steps: int  # at most a tenth of the run
    clip: float  # largest norm of the gradient
    min_crop: float = 0.08  # smallest share of the area that a random crop keeps
    flip: float = 0.5  # probability of mirroring an image
    optimizer: str = "adamw"
    schedule: str = "cosine"
    loss: str = "softmax"
    cutmix: float = 0.0  # of Beta(cutmix, cutmix); with mixup each batch takes one of them
    sam: float = 0.0  # radius of sharpness-aware minimization (L.3); 0: none
    sam_sync: bool = True  # False: each rank perturbs by the gradient of its own images (J.2.3)
    trained: str = "all"  # or encoder, which leaves the head unchanged (appendix E)
    ema: tuple[float, ...] = ()  # decays of moving averages of the weights
    swa: tuple[float, ...] = ()  # shares of the run after which averaging starts (L.1: 0.7)
    teachers: tuple[str, ...] = ()  # folders of ingredients, or weight files

    def __post_init__(self) -> None:
        for name in (*LISTS, "teachers"):
            if isinstance(getattr(self, name), list):  # as JSON and YAML give them
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for f in fields(self):
            self.check(f.name, getattr(self, f.name))

    @staticmethod
    def check(name: str, value: Any) -> None:
        """Raise ValueError unless this value is allowed for this key."""
        expected = ""
        several = value if isinstance(value, list | tuple) else None
        if name in ALLOWED:
            if value not in ALLOWED[name]:
                expected = f"one of {', '.join(map(str, ALLOWED[name]))}"
        elif name == "aug":
            if value not in AUGMENTATIONS and not (isinstance(value, str) and RANDAUGMENT.fullmatch(value)):
                expected = f"{', '.join(AUGMENTATIONS)} or rand-m<M>-n<N>"
        elif name in LISTS:
            low, high = LISTS[name]
            if several is None or not all(isinstance(v, float | int) and low <= v < high for v in several):
                expected = f"a list of numbers from {low:g} to below {high:g}"
        elif name == "teachers":
            if several is None or not all(isinstance(v, str) and v for v in several):
                expected = "a list of ingredient folders or weight files"
        elif name in RANGES:
            low, high, open_low = RANGES[name]
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                expected = "a number"
            elif not (low < value <= high if open_low else low <= value <= high):
                expected = f"{'above' if open_low else 'at least'} {low:g} and at most {high:g}"
        else:
            raise ValueError(f"recipe.{name}: no such key; valid keys: {', '.join(Recipe.names())}")
        if expected:
            raise ValueError(f"recipe.{name}={value}: expected {expected}")

    @staticmethod
    def names() -> tuple[str, ...]:
        return tuple(f.name for f in fields(Recipe))

    def accumulation(self, ranks: int, at_once: int | None = None) -> int:
        """Into how many parts each of `ranks` processes splits its share of a batch.

        A part has at most `at_once` images. It holds whole pairs, because mixup pairs image i of a
        batch with the i-th from its end. Raises ValueError when the batch cannot be split so.
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
LISTS = {"ema": (0.0, 1.0), "swa": (0.0, 1.0)}  # least value, and what values stay below
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
