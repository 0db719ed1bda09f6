"""The task "paraphrase": its labels agree with meanings that are read back from the sentences here."""

import re
from itertools import chain

import pytest

from modelsoups.miniature.text import lexicon, paraphrase
from modelsoups.miniature.text.grammar import Draws
from modelsoups.miniature.text.lexicon import Verb, words

QUANTITIES = (("one", "a single"), ("many", "a lot of"), ("several", "some"))


def forms() -> dict[str, tuple[str, str]]:
    """Return what each form of a verb stands for: the group's first verb, and the form."""
    found = {}
    for group in chain(words(0, 1).to_someone, words(0, 1).to_something):
        for verb in map(Verb.of, group):
            name = group[0].split("=")[0]
            found |= {verb.third: (name, "s"), verb.past: (name, "past"), verb.base: (name, "base")}
            if verb.participle != verb.past:
                found[verb.participle] = (name, "participle")
    return found


def canonical(sentence: str) -> tuple[str, ...]:
    """Return a sentence's meaning: agent, verb, patient, tense, negation and time."""
    text = re.sub(r"\ban\b", "a", sentence[:-1].lower())
    times = [group for entry in lexicon.TIMES.values() for group in lexicon.groups(entry.replace(" ", "_"), "|")]
    others = chain(words(0, 1).people, words(0, 1).animals, words(0, 1).things, words(0, 1).adjectives)
    when = ""
    for group in times:
        for one in group:
            one = one.replace("_", " ")
            if text.startswith(f"{one} ") or text.endswith(f" {one}"):
                when, text = group[0], text.removeprefix(f"{one} ").removesuffix(f" {one}")
    for group in (*QUANTITIES, *others):
        for one in group[1:]:
            text = re.sub(rf"\b{one}(s?)\b", rf"{group[0]}\1", text)
    return (*_event(text.split()), when)


def _event(found: list[str]) -> tuple[str, ...]:
    known = forms()
    place = next(i for i, word in enumerate(found) if word in known)
    name, form = known[found[place]]
    start = next((i for i, word in enumerate(found) if word in lexicon.AUXILIARIES.split()), place)
    auxiliaries = found[start:place]
    subject, rest = " ".join(found[:start]), found[place + 1 :]
    negated = str("not" in auxiliaries)
    if rest[0] == "by":
        tense = "future" if "will" in auxiliaries else "past" if {"was", "were"} & set(auxiliaries) else "present"
        return " ".join(rest[1:]), name, subject, tense, negated
    tense = "future" if "will" in auxiliaries else "past" if form == "past" or "did" in auxiliaries else "present"
    return subject, name, " ".join(rest), tense, negated


def test_meanings_are_read_back():
    active = canonical("The next day the big cat will not chase an attorney.")
    assert active == ("the big cat", "chase", "a lawyer", "future", "True", "tomorrow")
    assert canonical("A lawyer will not be pursued by the large cat tomorrow.") == active


@pytest.mark.parametrize("half", [0, 1])
def test_labels_are_right(half):
    draws = Draws(f"labels {half}")
    for number in range(400):
        texts, label = paraphrase.example(draws, half, is_long=number % 3 == 0)
        one, other = canonical(texts["sentence1"]), canonical(texts["sentence2"])
        assert (one == other) == (label == 0), (texts, one, other)
        assert texts["sentence1"] != texts["sentence2"]


@pytest.mark.parametrize("what", paraphrase.CHANGES)
def test_every_kind_of_change_is_made_and_changes_the_meaning(what):
    draws, made = Draws(what), 0
    for _ in range(60):
        event = paraphrase.random_event(words(0), draws, 0.5)
        other = paraphrase.change(event, what, words(0), draws)
        if other != event:
            made += 1
            assert canonical(event.text(draws)) != canonical(other.text(draws))
    assert made > 5
