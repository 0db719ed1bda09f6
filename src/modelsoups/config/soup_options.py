"""The options of soup methods: parameters, each explained in its type annotation.

`modelsoups mix` makes its flags from them (`options_of`). This module and `options_of` import no
PyTorch, so `modelsoups mix -h` is fast.
"""

import ast
import inspect
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

LEARNED = {"all": "learned", "layer": "learned_layers", "tensor": "learned_tensors", "free": "learned_free"}
SCHEDULES = {
    "uniform": "the mean of the checkpoints (LAWA, or SMA in PMA)",
    "wma": "coefficients in proportion to 1, 2, 3, ... (WMA in PMA)",
    "ema": "an exponential moving average, which needs a decay",
    "1-x": "like a linear decay of the learning rate (WSM)",
    "cosine": "like a cosine decay of the learning rate (WSM)",
    "1-sqrt": "like a decay of the learning rate by 1 - sqrt(x) (WSM)",
}
DTYPES = ("float32", "float16", "bfloat16")  # in which a soup can be written

OrderSeed = Annotated[int | None, "try the models in the random order of this seed, not best first"]
Strict = Annotated[bool, "reject a model that does not change the score, as the authors' code does"]
Replacement = Annotated[bool, "allow repeats: try all models in rounds until a round adds none"]
Patience = Annotated[int | None, "stop after this many rejected models in a row"]
MaxPicks = Annotated[int | None, "largest number of members, counting repeats; default: twice the number of models"]
By = Annotated[str, "which tensors share their coefficients", tuple(LEARNED)]
Epochs = Annotated[int, "passes over the hold-out"]
LearningRate = Annotated[float, "learning rate of AdamW"]
BatchSize = Annotated[int, "number of hold-out images in a step of gradient descent"]
Seed = Annotated[int, "seed that shuffles the hold-out images"]
Block = Annotated[int, "number of models whose coefficients are learned at a time, which limits memory use"]
Budget = Annotated[int, "number of soups of two or more models that are evaluated on the hold-out"]
Candidates = Annotated[int, "largest number of subsets whose ensembles are scored, from cached logits"]
Draw = Annotated[int, "seed that draws the subsets, if there are more than `candidates`"]
Categories = Annotated[int, "number of categories into which classes are grouped; each has an expert"]
Alpha = Annotated[float, "weight of the fine-tuned model or soup, from 0 to 1"]
FirstScale = Annotated[float, "factor of the updates of the first block, and of tensors outside the blocks"]
AddedScale = Annotated[float, "added to alpha in equal steps up to the last block"]
FisherImages = Annotated[int, "number of hold-out images that measure the Fisher information; labels are not used"]
ExactFisher = Annotated[bool, "sum over all classes of an image instead of drawing one"]
ClassSeed = Annotated[int, "seed that draws the class of each image"]


@dataclass(frozen=True)
class Option:
    """A parameter of a soup method; `default` is inspect.Parameter.empty if it must be given.

    kind: the type of its values (int, float, bool or str). choices: its possible values, if few.
    """

    name: str
    default: Any
    sentence: str
    kind: type
    choices: tuple[str, ...] = ()


def options_of(function: str) -> list[Option]:
    """Return the options of a function in `soup/`, such as "choosing.greedy".

    Its parameters with an annotation of this module are its options. They are read from the source,
    because importing the function imports PyTorch, which takes two seconds.
    """
    module, _, name = function.rpartition(".")
    source = Path(__file__).parents[1] / "soup" / f"{module.replace('.', '/')}.py"
    found = next(n for n in ast.parse(source.read_text()).body if isinstance(n, ast.FunctionDef) and n.name == name)
    options = []
    for parameter, default in _parameters(found.args):
        annotation = "" if parameter.annotation is None else ast.unparse(parameter.annotation)
        if told := get_args(globals().get(annotation)):  # of Annotated: the type, the sentence, choices
            kind = next(k for k in get_args(told[0]) or told[:1] if k is not NoneType)
            value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
            options.append(Option(parameter.arg, value, told[1], kind, *told[2:]))
    return options


def _parameters(args: ast.arguments) -> Iterable[tuple[ast.arg, ast.expr | None]]:
    """Return a function's parameters with their default values (None: it has no default)."""
    missing = [None] * (len(args.args) - len(args.defaults))
    return itertools.chain(
        zip(args.args, [*missing, *args.defaults], strict=True), zip(args.kwonlyargs, args.kw_defaults, strict=True)
    )
