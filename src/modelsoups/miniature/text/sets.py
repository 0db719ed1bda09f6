"""The data sets of the text miniature's two tasks: sizes, words and shape of each.

All sets of a task come from one stream of random draws, in the order of SETS. A sentence that was
drawn before is skipped, so no sentence is in two sets, or twice in one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from modelsoups.disk import storage
from modelsoups.miniature.text import acceptability, lexicon, paraphrase
from modelsoups.miniature.text.grammar import Draws

Example = tuple[dict[str, str], int]  # texts by field, label


@dataclass(frozen=True)
class PhraseTask:
    """A task: the names of its texts, its options, and a function that draws an example."""

    fields: tuple[str, ...]
    options: tuple[str, ...]
    example: Callable[[Draws, int, bool], Example]


@dataclass(frozen=True)
class PhraseSet:
    """One data set of each task. half: of the lexicon; is_long: all sentences have optional parts."""

    role: str  # train, holdout, test or shift
    title: str
    count: int
    half: int = 0
    is_long: bool = False


TASKS = {
    "acceptability": PhraseTask(("sentence",), acceptability.OPTIONS, acceptability.example),
    "paraphrase": PhraseTask(("sentence1", "sentence2"), paraphrase.OPTIONS, paraphrase.example),
}
SETS = {
    "train": PhraseSet("train", "train", 1024),
    "holdout": PhraseSet("holdout", "hold-out", 800),
    "validation": PhraseSet("test", "validation", 800),
    "words": PhraseSet("shift", "other words", 400, half=1),
    "long": PhraseSet("shift", "longer sentences", 400, is_long=True),
}
GRAMMAR = 2  # increase if the grammar or the order of its draws changes
VERSION = storage.fingerprint([GRAMMAR, repr(SETS), repr(lexicon.words(0)), repr(lexicon.words(1)), lexicon.TIMES])


def phrase_set(name: str) -> PhraseSet:
    """Return the data set of this name; a ValueError for an unknown name lists the valid names."""
    if name not in SETS:
        raise ValueError(f"data set {name}: the generated texts have only {', '.join(SETS)}")
    return SETS[name]


@cache
def generate(task: str, seed: int) -> dict[str, list[Example]]:
    """Return the examples of all sets of a task, which depend only on the seed."""
    draws, example = Draws(f"{task} {seed}"), TASKS[task].example
    seen: set[str] = set()
    made: dict[str, list[Example]] = {}
    for name, wanted in SETS.items():
        made[name] = []
        while len(made[name]) < wanted.count:
            texts, label = example(draws, wanted.half, wanted.is_long)
            if seen.isdisjoint(texts.values()):
                seen.update(texts.values())
                made[name].append((texts, label))
    return made
