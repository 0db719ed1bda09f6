"""The options of soup methods: keyword parameters, each explained in its type annotation.

`modelsoups mix -h` shows these explanations (`options_of`).
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

OrderSeed = Annotated[int | None, "try the models in the random order of this seed, not best first"]
Strict = Annotated[bool, "reject a model that does not change the score, as the authors' code does"]
Replacement = Annotated[bool, "allow repeats: try all models in rounds until a round adds none"]
Patience = Annotated[int | None, "stop after this many rejected models in a row"]
MaxPicks = Annotated[int | None, "largest number of members, counting repeats; default: twice the number of models"]
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


@dataclass(frozen=True)
class Option:
    """A keyword parameter of a soup method; if required, `default` is inspect.Parameter.empty."""

    name: str
    default: Any
    sentence: str


def options_of(method: Callable[..., Any]) -> list[Option]:
    """Return a soup method's keyword-only parameters, with their explanations ("" if missing)."""
    hints = get_type_hints(method, include_extras=True)
    found = []
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            sentence = next(iter(getattr(hints.get(name), "__metadata__", ())), "")
            found.append(Option(name, parameter.default, sentence))
    return found
