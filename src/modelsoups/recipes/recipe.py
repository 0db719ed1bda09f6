"""Recipe, the hyperparameters of one fine-tuning run; this module does not import torch."""

import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from types import NoneType
from typing import Any, get_args

RANDAUGMENT = re.compile(r"rand-m(\d+)-n(\d+)(-mmax\d+)?")
FORMS = {  # hyperparameter -> form of its values that are not in its list, and that form in words
    "aug": (RANDAUGMENT, "rand-m<M>-n<N>[-mmax<M>]"),
    "init": (re.compile(r"lp-[1-9]\d*"), "lp-<pixels>"),
}
# Not in the files of earlier versions:
LATER = ("steps", "image_size", "crop_ratio", "select", "ema_warmup", "batchnorm", "init", "order_seed")


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
    values; same: every recipe has the default unless the configuration sets another value.
    """
    about = {"sentence": sentence, "within": within, "above": above, "choices": tuple(choices), "same": same}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of one fine-tuning run: h in FineTune(theta_0, h) (section 2, J.2.1).

    Each number in `ema` or `swa` adds one averaged model, which can be in a soup like the trained
    one. A ValueError gives the wrong key, its value and what is allowed.
    """

    lr: float = hyper("learning rate", within=(0.0, 10.0), above=True)
    weight_decay: float = hyper("weight decay", within=(0.0, 100.0))
    epochs: int | None = hyper(
        "number of passes over the training set; null: recipe.steps gives the length", within=(1, 10_000)
    )
    label_smoothing: float = hyper("label smoothing; no effect if recipe.teachers is set", within=(0.0, 0.99))
    mixup: float = hyper("parameter of mixup's Beta distribution; 0: no mixup", within=(0.0, 100.0))
    aug: str = hyper(
        "augmentation: minimal (a large crop, never mirrored), medium (timm's default), strong or rand-m<M>-n<N>"
        " (RandAugment; M is at most 10 or, with -mmax30, 30), inception (only a random crop and flip, J.2.2),"
        " stochastic (minimal, medium or strong at random for each image, L.1), fix (strong, but minimal in the last"
        " epoch, L.2)",
        choices=("minimal", "medium", "strong", "inception", "stochastic", "fix"),
    )
    seed: int = hyper("random seed of training: order of examples, augmentation, mixup, dropout", within=(0, 2**63 - 1))
    batch_size: int = hyper("examples per optimizer step, over all GPUs", 512, within=(1, 2**20), same=True)
    warmup_steps: int = hyper("steps of linear warm-up, at most a tenth of all", 500, within=(0, 10**7), same=True)
    clip: float = hyper("norm to which a larger gradient is clipped", 1.0, within=(0.0, 1e9), above=True, same=True)
    min_crop: float = hyper(
        "smallest area of a random crop, as a fraction of the image", 0.08, within=(0.0, 1.0), above=True, same=True
    )
    flip: float = hyper("probability of mirroring an image horizontally", 0.5, within=(0.0, 1.0), same=True)
    optimizer: str = hyper("optimizer", "adamw", choices=("adamw", "adam", "rmsprop", "sgd", "adafactor"))
    schedule: str = hyper(
        "learning-rate schedule; cosine_restarts runs a full cosine in each epoch",
        "cosine",
        choices=("cosine", "cosine_restarts", "linear", "constant"),
    )
    loss: str = hyper("loss", "softmax", choices=("softmax", "binary"))
    cutmix: float = hyper(
        "parameter of CutMix's Beta distribution; 0: no CutMix; if mixup is not 0, each batch gets one of the two",
        0.0,
        within=(0.0, 100.0),
    )
    sam: float = hyper("radius of sharpness-aware minimization (SAM, L.3); 0: no SAM", 0.0, within=(0.0, 100.0))
    sam_sync: bool = hyper(
        "SAM perturbs weights by the gradient of the full batch; false: of each process's own images (J.2.3)",
        True,
        choices=(True, False),
    )
    trained: str = hyper(
        "which weights are trained; encoder: all but the head (appendix E)", "all", choices=("all", "encoder")
    )
    ema: tuple[float, ...] = hyper("decays of exponential moving averages of the weights (EMA)", (), within=(0.0, 1.0))
    swa: tuple[float, ...] = hyper(
        "fractions of training after which the weights of all epochs are averaged (SWA; L.1: 0.7)",
        (),
        within=(0.0, 1.0),
    )
    teachers: tuple[str, ...] = hyper(
        "folders of fine-tuned models, or weight files, whose ensemble predicts the targets (distillation, L.1)", ()
    )
    steps: int | None = hyper(
        "number of optimizer steps, in place of recipe.epochs (J.2.3: 10,000 or 20,000)",
        None,
        within=(1, 10**9),
    )
    image_size: int | None = hyper(
        "side of the training images in pixels (J.2.2: 289); null: model.image_size",
        None,
        within=(1, 10_000),
    )
    crop_ratio: tuple[float, ...] = hyper(
        "smallest and largest aspect ratio, width / height, of a random crop (J.2.2: [0.95,1.05])",
        (3 / 4, 4 / 3),
        within=(0.0, 100.0),
    )
    select: str = hyper(
        "weights of the ingredient and of each average: those of the last step, or of the step with the best score on"
        " the hold-out (3.3.2); best needs finetune.evaluate_every",
        "last",
        choices=("last", "best"),
    )
    batchnorm: str = hyper(
        "running statistics of BatchNorm: updated in training (live), or those of the initial model (frozen, as in"
        " DomainBed)",
        "live",
        choices=("live", "frozen"),
    )
    ema_warmup: bool = hyper(
        "at step t, the decay of an EMA is (1 + t) / (10 + t) until that exceeds the decay in recipe.ema; then even"
        " 0.9999999 forgets the initial weights",
        False,
        choices=(True, False),
    )
    init: str | None = hyper(
        "initial model of this recipe, in place of heads.init: lp, zeroshot, or a linear probe at a resolution, such as"
        " lp-518 (J.2.3); null: heads.init",
        None,
        choices=("lp", "zeroshot"),
    )
    order_seed: int | None = hyper(
        "random seed of the order of training examples, which recipes may share (finetune.share); null: recipe.seed",
        None,
        within=(0, 2**63 - 1),
    )

    def __post_init__(self) -> None:
        for about in fields(self):
            value = getattr(self, about.name)
            if isinstance(value, list) and isinstance(about.default, tuple):  # as JSON and YAML give them
                object.__setattr__(self, about.name, tuple(value))
            self.check(about.name, value)
        check_length(self.epochs, self.steps)

    @staticmethod
    def check(name: str, value: Any) -> None:
        """Raise ValueError unless `value` is allowed for the hyperparameter `name`."""
        if name not in Recipe.names():
            raise ValueError(f"recipe.{name}: no such key; valid keys: {', '.join(Recipe.names())}")
        about = Recipe.__dataclass_fields__[name]
        if value is None and NoneType in get_args(about.type):
            return
        if expected := _expected(name, value, about.metadata, several=isinstance(about.default, tuple)):
            raise ValueError(f"recipe.{name}={value}: expected {expected}")

    @staticmethod
    def names() -> tuple[str, ...]:
        return tuple(f.name for f in fields(Recipe))

    def to_json(self) -> dict[str, Any]:
        """Return the hyperparameters by name, without those of LATER that have their default.

        So a recipe of an earlier version has the same content, and its run the same fingerprint.
        """
        defaults = {f.name: f.default for f in fields(self)}
        return {name: v for name, v in asdict(self).items() if name not in LATER or v != defaults[name]}

    @property
    def shuffled_by(self) -> int:
        """Return the seed of the order of training examples."""
        return self.seed if self.order_seed is None else self.order_seed

    @property
    def length(self) -> str:
        """Return the length of training in words, such as "10 epochs" or "20000 steps"."""
        return f"{self.epochs} epochs" if self.steps is None else f"{self.steps} steps"

    def total_steps(self, examples: int) -> int:
        """Return the number of optimizer steps on a training set of so many examples."""
        return examples // self.batch_size * (self.epochs or 0) if self.steps is None else self.steps

    def begun_epochs(self, examples: int) -> int:
        """Return the number of epochs on so many examples, a last incomplete one included."""
        return -(-self.total_steps(examples) // (examples // self.batch_size))

    def accumulation(self, ranks: int, at_once: int | None = None) -> int:
        """Return the number of micro-batches into which each process splits its share of a batch.

        A micro-batch has at most `at_once` images. Two images that mixup mixes (i-th from the start
        and from the end of the batch) stay together. Raises ValueError if this is impossible.
        """
        if ranks == 1 and (at_once is None or at_once >= self.batch_size):
            return 1
        if self.batch_size % (2 * ranks) == 0:
            pairs = self.batch_size // (2 * ranks)  # of each rank
            for parts in range(1, pairs + 1):
                if pairs % parts == 0 and (at_once is None or 2 * pairs // parts <= at_once):
                    return parts
        wish = f" with finetune.at_once={at_once}" if at_once is not None else ""
        raise ValueError(
            f"recipe.batch_size={self.batch_size} cannot be split over {ranks} ranks{wish}: "
            f"expected a multiple of {2 * ranks}{' and at_once of at least 2' if wish else ''}; "
            "change cluster.nodes or cluster.ranks_per_node"
        )


def check_length(epochs: int | None, steps: int | None) -> None:
    """Raise ValueError unless exactly one of the two lengths of training is given."""
    if epochs is not None and steps is not None:
        raise ValueError(
            f"recipe.epochs={epochs} and recipe.steps={steps} are both given; set recipe.epochs=null or "
            "recipe.steps=null"
        )
    if epochs is None and steps is None:
        raise ValueError("recipe.epochs=null and recipe.steps=null: training has no length; set one of the two")


def check_select(select: str, every: int | None) -> None:
    """Raise ValueError if the best step is to be selected (recipe.select) but none is evaluated."""
    if select == "best" and every is None:
        raise ValueError(
            "recipe.select=best needs evaluations on the hold-out; set finetune.evaluate_every to the steps between "
            "them"
        )


def _expected(name: str, value: Any, about: Any, several: bool) -> str:
    """Return the allowed values in words, or "" if `value` is allowed; several: value is a list."""
    choices, within = about["choices"], about["within"]
    if choices:
        form, shown = FORMS.get(name, (None, ""))
        names = ", ".join(map(str, choices))
        if value in choices or (form and isinstance(value, str) and form.fullmatch(value)):
            return ""
        return f"{names} or {shown}" if shown else f"one of {names}"
    if name == "crop_ratio":
        return _expected_pair(value)
    if several:
        return _expected_list(value, within)
    low, high = within
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "a number"
    if low <= value <= high and not (about["above"] and value == low):
        return ""
    return f"{'above' if about['above'] else 'at least'} {low:g} and at most {high:g}"


def _expected_pair(value: Any) -> str:
    values = value if isinstance(value, list | tuple) else []
    numbers = [v for v in values if isinstance(v, float | int) and not isinstance(v, bool) and 0 < v <= 100]
    good = len(values) == len(numbers) == 2 and numbers[0] <= numbers[1]
    return "" if good else "[smallest,largest], two numbers above 0 and at most 100"


def _expected_list(value: Any, within: tuple[float, float] | None) -> str:
    values = value if isinstance(value, list | tuple) else [None]
    if within is None:
        good = all(isinstance(v, str) and v for v in values)
        return "" if good else "a list of fine-tuned models' folders or weight files"
    low, high = within
    good = all(isinstance(v, float | int) and low <= v < high for v in values)
    return "" if good else f"a list of numbers of at least {low:g} and below {high:g}"
