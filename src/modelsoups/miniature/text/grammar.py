"""A grammar of English sentences whose parts know how they could be wrong.

A sentence is a list of parts. A part is its correct text and, for each kind of error, texts that make
the sentence ungrammatical. So a label is right by construction.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelsoups.miniature.text import lexicon
from modelsoups.miniature.text.lexicon import CONJUNCTIONS, MODALS, PLACES, PLURAL, SINGULAR, Verb, Words

Wrong = dict[str, tuple[str, ...]]
OTHER_NUMBER = {"is": "are", "was": "were", "has": "have", "does": "do"}
OTHER_NUMBER |= {several: one for one, several in OTHER_NUMBER.items()}
ERRORS = ("agreement", "determiner", "form", "object", "order", "reflexive")


@dataclass(frozen=True)
class Part:
    """A part of a sentence: its correct text, and wrong texts by kind of error."""

    text: str
    wrong: Wrong = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """How often sentences have optional parts, as probabilities."""

    modifier: float = 0.5  # a subject with a place or a relative clause
    second: float = 0.2  # a second clause
    adjective: float = 0.4


SHORT, LONG = Shape(), Shape(modifier=1.0, second=0.8, adjective=0.6)


class Draws:
    """Random choices, the same with every version of Python: all come from Random.random()."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def index(self, count: int) -> int:
        return int(self.random.random() * count)

    def one(self, choices: Sequence[Any]) -> Any:
        return choices[self.index(len(choices))]

    def word(self, choices: Sequence[Sequence[str]]) -> str:
        """Return a random synonym of a random group."""
        found: str = self.one(self.one(choices))
        return found


class Grammar:
    """Draws random correct sentences from some words."""

    def __init__(self, words: Words, shape: Shape, draws: Draws) -> None:
        self.words, self.shape, self.draws = words, shape, draws

    def sentence(self) -> list[Part]:
        parts = self.clause()
        if not self.draws.chance(self.shape.second):
            return parts
        # "She thanked and he praised the cat" is correct: no object is missing before a conjunction
        parts = [replace(part, wrong={k: v for k, v in part.wrong.items() if "" not in v}) for part in parts]
        return [*parts, Part(self.draws.one(CONJUNCTIONS.split())), *self.clause()]

    def clause(self) -> list[Part]:
        """Return a subject, which a place or a relative clause may follow, and what it is or does."""
        draws, words = self.draws, self.words
        is_person, plural = draws.chance(0.6), draws.chance(0.5)
        if is_person and not plural and draws.chance(0.2):
            name = draws.word(words.names)
            return [Part(name), *self.predicate(False, self._pronoun(name, True))]
        noun = draws.word(words.people if is_person else words.animals)
        subject = [self.noun_phrase(plural, noun)]
        if draws.chance(self.shape.modifier):
            subject += self.modifier(plural)
        return subject + self.predicate(plural, self._pronoun(noun, is_person))

    def modifier(self, plural: bool) -> list[Part]:
        """Return "near the trees", "that sees the trees" or "that the trees see", for the subject."""
        draws, other = self.draws, self.draws.chance(0.5)
        kind = draws.index(3)
        if kind == 0:
            return [Part(draws.one(PLACES.split())), self.noun_phrase(other, draws.word(self.words.things))]
        verb, noun = Verb.of(draws.word(self.words.to_someone)), self._someone()
        if kind == 1:
            return [Part("that"), self.verb(verb, plural), self.noun_phrase(other, noun)]
        return [Part("that"), self.noun_phrase(other, noun), self.verb(verb, other)]

    def predicate(self, plural: bool, pronoun: str) -> list[Part]:
        """Return "is old", "walks", "sees the tree", "sees the girl" or "sees itself"."""
        draws, words = self.draws, self.words
        kind = draws.index(5)
        if kind == 0:
            return [self.copula(plural), Part(draws.word(words.adjectives))]
        if kind == 1:
            verb = self.verb(Verb.of(draws.word(words.alone)), plural, has_object=False)
            extra = self.noun_phrase(draws.chance(0.5), self._someone()).text
            return [verb, Part("", {"object": (extra,)})]
        to_thing = pronoun != "itself" and kind == 2
        verb = self.verb(Verb.of(draws.word(words.to_something if to_thing else words.to_someone)), plural)
        if kind == 3:
            return [verb, reflexive(plural, pronoun)]
        noun = draws.word(words.things) if to_thing else self._someone()
        target = self.noun_phrase(draws.chance(0.5), noun)
        return [verb, Part(target.text, target.wrong | {"object": ("",)})]

    def _someone(self) -> str:
        return self.draws.word(self.words.people + self.words.animals)

    def _pronoun(self, noun: str, is_person: bool) -> str:
        if noun in lexicon.FEMALE.split():
            return "herself"
        if noun in lexicon.MALE.split():
            return "himself"
        return str(self.draws.one(("himself", "herself"))) if is_person else "itself"

    # ---- parts ----

    def noun_phrase(self, plural: bool, noun: str) -> Part:
        """Return "the old trees". Wrong: "this old trees", "trees the old", "old the trees"."""
        draws = self.draws
        noun = noun + ("s" if plural else "")
        adjective = [draws.word(self.words.adjectives)] if draws.chance(self.shape.adjective) else []
        determiner = draws.one((PLURAL if plural else SINGULAR).split())
        rest = [*adjective, noun]
        others = [word for word in (SINGULAR if plural else PLURAL).split() if word != "the"]
        orders = [[noun, determiner, *adjective]]
        if adjective:
            orders += [[determiner, noun, *adjective], [*adjective, determiner, noun]]
        wrong = {
            "determiner": tuple(phrase([other, *rest]) for other in others),
            "order": tuple(phrase(order) for order in orders),
        }
        return Part(phrase([determiner, *rest]), wrong)

    def copula(self, plural: bool) -> Part:
        kind = self.draws.index(3)
        if kind == 2:
            modal = self.draws.one(MODALS.split())
            return Part(f"{modal} be", {"form": (f"{modal} is", f"{modal} being"), "order": (f"be {modal}",)})
        right, other = _numbers(plural, *(("is", "are"), ("was", "were"))[kind])
        negation = " not" if self.draws.chance(0.3) else ""
        wrong: Wrong = {"agreement": (other + negation,)}
        if negation:
            wrong["order"] = (f"not {right}",)
        return Part(right + negation, wrong)

    def verb(self, verb: Verb, plural: bool, has_object: bool = True) -> Part:
        """Return a verb with its auxiliaries, such as "has not seen", and how they could be wrong."""
        draws = self.draws
        negation = [draws.one(("not", "never"))] if draws.chance(0.3) else []
        kind = draws.index(6)
        if kind == 0 and not negation:
            right, other = _numbers(plural, verb.third, verb.base)
            return Part(right, {"agreement": (other,)})
        if kind == 5 and not negation:
            return Part(verb.past)
        if kind in (0, 5):  # the auxiliary "do" is only needed with "not"
            auxiliary = "did" if kind == 5 else "do" if plural else "does"
            return _with_auxiliary(auxiliary, ["not"], verb, verb.base)
        if kind == 1:
            return _with_auxiliary(draws.one(MODALS.split()), negation, verb, verb.base)
        one = ("is", "was", "has")[kind - 2]
        auxiliary = OTHER_NUMBER[one] if plural else one
        right = verb.participle if one == "has" else verb.progressive
        return _with_auxiliary(auxiliary, negation, verb, right, has_object)


def reflexive(plural: bool, pronoun: str) -> Part:
    right, other = _numbers(plural, pronoun, "themselves")
    return Part(right, {"reflexive": (other,), "object": ("",)})


def _numbers(plural: bool, one: str, several: str) -> tuple[str, str]:
    """Return the form for this number, and the form for the other."""
    return (several, one) if plural else (one, several)


def _with_auxiliary(auxiliary: str, negation: list[str], verb: Verb, right: str, has_object: bool = True) -> Part:
    """Return an auxiliary and a verb in its form `right`."""
    forms = {verb.base, verb.third, verb.progressive, verb.past, verb.participle} - {right}
    if right == verb.progressive:
        forms -= {verb.participle}  # "is seen", the passive
    if right != verb.base and not has_object:
        forms -= {verb.base, verb.third, verb.past}  # "has sleep" and "are smiles": these are nouns
    start = [auxiliary, *negation]
    wrong: Wrong = {}
    if forms:
        wrong["form"] = tuple(" ".join([*start, form]) for form in sorted(forms))
    if right == verb.base:
        wrong["order"] = (" ".join([right, *start]),)
    elif negation == ["not"]:
        wrong["order"] = (" ".join(["not", auxiliary, right]),)
    if auxiliary in OTHER_NUMBER:
        wrong["agreement"] = (" ".join([OTHER_NUMBER[auxiliary], *negation, right]),)
    return Part(" ".join([*start, right]), wrong)


def phrase(words: Sequence[str]) -> str:
    """Join words; "a" before a vowel becomes "an"."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    return " ".join("an" if word == "a" and after[:1] in "aeiou" and after else word for word, after in pairs)


def written(texts: Sequence[str]) -> str:
    """Return the sentence of these texts, with a capital and a full stop."""
    joined = " ".join(text for text in texts if text)
    return joined[0].upper() + joined[1:] + "."
