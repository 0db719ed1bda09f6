"""The options of soup methods: keyword parameters, each with a sentence in its annotation.

The command line and the documentation list them with `options_of`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

OrderSeed = Annotated[int | None, "take the candidates in the random order of this seed, not best first"]
Strict = Annotated[bool, "refuse a candidate that leaves the score equal, as the authors' code does"]
Replacement = Annotated[bool, "repeat rounds over all candidates until one adds no model"]
Patience = Annotated[int | None, "stop after this many rejected candidates in a row"]
MaxPicks = Annotated[int | None, "stop at this number of picks; default: twice the number of models"]
Epochs = Annotated[int, "passes over the hold-out"]
LearningRate = Annotated[float, "learning rate of AdamW"]
BatchSize = Annotated[int, "hold-out images in a step"]
Seed = Annotated[int, "seed of the order of the hold-out images"]
Alpha = Annotated[float, "weight of the fine-tuned model or soup, from 0 to 1"]


@dataclass(frozen=True)
class Option:
    """A keyword parameter of a method; `default` is inspect.Parameter.empty if it must be given."""

    name: str
    default: Any
    sentence: str


def options_of(method: Callable[..., Any]) -> list[Option]:
    """Return a method's keyword-only parameters; the sentence is "" if there is none."""
    hints = get_type_hints(method, include_extras=True)
    found = []
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            sentence = next(iter(getattr(hints.get(name), "__metadata__", ())), "")
            found.append(Option(name, parameter.default, sentence))
    return found
