"""Recipe, the hyperparameters of one fine-tuning run; this module does not import torch."""

import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

RANDAUGMENT = re.compile(r"rand-m(\d+)-n(\d+)")


def hyper(
    sentence: str,
    default: Any = MISSING,
    *,
    within: tuple[float, float] | None = None,
    above: bool = False,
    choices: Sequence[Any] = (),
    same: bool = False,
) -> Any:
    """Return a dataclass field with the explanation, default and bounds of a hyperparameter.

    within: smallest and largest value; above: the smallest itself is excluded; choices: the allowed
    values; same: all runs of a sweep use one value, while a search may draw other hyperparameters.
    """
    about = {"sentence": sentence, "within": within, "above": above, "choices": tuple(choices), "same": same}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of one fine-tuning run (h in FineTune(theta_0, h), section 2; J.2.1).

    Each number in `ema` or `swa` adds one averaged model, which is an ingredient like the trained
    model. A ValueError gives the wrong key, its value and what is allowed.
    """

    lr: float = hyper("learning rate", within=(0.0, 10.0), above=True)
    weight_decay: float = hyper("weight decay", within=(0.0, 100.0))
    epochs: int = hyper("passes over the training set", within=(1, 10_000))
    label_smoothing: float = hyper("label smoothing; without effect with teachers", within=(0.0, 0.99))
    mixup: float = hyper("parameter of mixup's Beta distribution; 0: no mixup", within=(0.0, 100.0))
    aug: str = hyper(
        "augmentation: a large crop, never mirrored (minimal), timm's default (medium), RandAugment (strong,"
        " rand-m<M>-n<N>), one of the three for each image (stochastic, L.1), strong but minimal in the last epoch"
        " (fix, L.2)",
        choices=("minimal", "medium", "strong", "stochastic", "fix"),
    )
    seed: int = hyper("seed of the order of images and of all random draws", within=(0, 2**63 - 1))
    batch_size: int = hyper("images in a step, over all devices", 512, within=(1, 2**20), same=True)
    warmup_steps: int = hyper("steps of warm-up, at most a tenth of the run", 500, within=(0, 10**7), same=True)
    clip: float = hyper("largest norm of the gradient", 1.0, within=(0.0, 1e9), above=True, same=True)
    min_crop: float = hyper(
        "smallest fraction of the area in a random crop", 0.08, within=(0.0, 1.0), above=True, same=True
    )
    flip: float = hyper("probability of mirroring an image", 0.5, within=(0.0, 1.0), same=True)
    optimizer: str = hyper("optimizer", "adamw", choices=("adamw", "adam", "rmsprop", "sgd", "adafactor"))
    schedule: str = hyper(
        "schedule of the learning rate; cosine_restarts has a cycle in each epoch",
        "cosine",
        choices=("cosine", "cosine_restarts", "linear", "constant"),
    )
    loss: str = hyper("loss", "softmax", choices=("softmax", "binary"))
    cutmix: float = hyper(
        "parameter of CutMix's Beta distribution; 0: none; with mixup, each batch takes one of the two",
        0.0,
        within=(0.0, 100.0),
    )
    sam: float = hyper("radius of sharpness-aware minimization (L.3); 0: none", 0.0, within=(0.0, 100.0))
    sam_sync: bool = hyper(
        "perturb by the gradient of the full batch; false: of each process's own images (J.2.3)",
        True,
        choices=(True, False),
    )
    trained: str = hyper(
        "what is trained; encoder leaves the head unchanged (appendix E)", "all", choices=("all", "encoder")
    )
    ema: tuple[float, ...] = hyper("decays of moving averages of the weights", (), within=(0.0, 1.0))
    swa: tuple[float, ...] = hyper(
        "fractions of the run after which averaging over epochs starts (L.1: 0.7)", (), within=(0.0, 1.0)
    )
    teachers: tuple[str, ...] = hyper(
        "folders of ingredients, or weight files, whose ensemble replaces the labels (L.1)", ()
    )

    def __post_init__(self) -> None:
        for about in fields(self):
            value = getattr(self, about.name)
            if isinstance(value, list) and about.default == ():  # as JSON and YAML give them
                object.__setattr__(self, about.name, tuple(value))
            self.check(about.name, value)

    @staticmethod
    def check(name: str, value: Any) -> None:
        """Raise ValueError unless `value` is allowed for the hyperparameter `name`."""
        if name not in Recipe.names():
            raise ValueError(f"recipe.{name}: no such key; valid keys: {', '.join(Recipe.names())}")
        about = Recipe.__dataclass_fields__[name]
        if expected := _expected(name, value, about.metadata, several=about.default == ()):
            raise ValueError(f"recipe.{name}={value}: expected {expected}")

    @staticmethod
    def names() -> tuple[str, ...]:
        return tuple(f.name for f in fields(Recipe))

    def accumulation(self, ranks: int, at_once: int | None = None) -> int:
        """Return the number of micro-batches in which each process computes its share of a batch.

        A micro-batch has at most `at_once` images, and mixup's pairs (image i, and i-th from the
        end of the batch) stay in one micro-batch. Raises ValueError if the batch cannot be split
        so.
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


def _expected(name: str, value: Any, about: Any, several: bool) -> str:
    """Return the allowed values in words, or "" if `value` is allowed; several: value is a list."""
    choices, within = about["choices"], about["within"]
    if choices:
        drawn = name == "aug" and isinstance(value, str) and RANDAUGMENT.fullmatch(value)
        names = ", ".join(map(str, choices))
        if value in choices or drawn:
            return ""
        return f"{names} or rand-m<M>-n<N>" if name == "aug" else f"one of {names}"
    if several:
        return _expected_list(value, within)
    low, high = within
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "a number"
    if low <= value <= high and not (about["above"] and value == low):
        return ""
    return f"{'above' if about['above'] else 'at least'} {low:g} and at most {high:g}"


def _expected_list(value: Any, within: tuple[float, float] | None) -> str:
    values = value if isinstance(value, list | tuple) else [None]
    if within is None:
        good = all(isinstance(v, str) and v for v in values)
        return "" if good else "a list of ingredient folders or weight files"
    low, high = within
    good = all(isinstance(v, float | int) and low <= v < high for v in values)
    return "" if good else f"a list of numbers from {low:g} to below {high:g}"
