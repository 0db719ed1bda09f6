"""The task "acceptability": is a sentence grammatical? In the place of CoLA.

An unacceptable sentence has one error: in the agreement of subject and verb, the determiner, the form
of a verb, its object, the order of words, or a reflexive pronoun.
"""

from modelsoups.miniature.text.grammar import ERRORS, LONG, SHORT, Draws, Grammar, Part, Shape, written
from modelsoups.miniature.text.lexicon import words

OPTIONS = ("acceptable", "unacceptable")


def example(draws: Draws, half: int, is_long: bool) -> tuple[dict[str, str], int]:
    """Return a random sentence and its label, the index of an option. half: of the lexicon."""
    shape: Shape = LONG if is_long else SHORT
    parts = Grammar(words(half), shape, draws).sentence()
    label = draws.index(2)
    texts = [part.text for part in parts] if label == 0 else broken(parts, draws)
    return {"sentence": written(texts)}, label


def broken(parts: list[Part], draws: Draws) -> list[str]:
    """Return the texts of the parts with one error, of a random kind among those that are possible."""
    kind = draws.one([kind for kind in ERRORS if any(kind in part.wrong for part in parts)])
    place = draws.one([place for place, part in enumerate(parts) if kind in part.wrong])
    texts = [part.text for part in parts]
    texts[place] = draws.one(parts[place].wrong[kind])
    return texts
