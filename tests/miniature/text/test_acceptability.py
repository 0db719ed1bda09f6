"""The task "acceptability": its labels agree with a recogniser of the grammar that is written anew here."""

import re
from functools import cache
from itertools import chain

from modelsoups.miniature.text import acceptability, lexicon
from modelsoups.miniature.text.grammar import ERRORS, LONG, SHORT, Draws, Grammar, phrase, written
from modelsoups.miniature.text.lexicon import Verb


def any_of(words) -> str:
    return f"(?:{'|'.join(words)})"


def all_words(entries) -> list[str]:
    return list(chain.from_iterable(lexicon.groups(" ".join(entries))))


def verbs(entries, number: str) -> str:
    """Every form of a verb with its auxiliaries, for a subject in this number."""
    known = [Verb.of(entry) for entry in all_words(entries)]
    base, progressive = any_of(v.base for v in known), any_of(v.progressive for v in known)
    participle, past = any_of(v.participle for v in known), any_of(v.past for v in known)
    third = any_of(v.third for v in known)
    singular = number == "one"
    be, have, do = ("(?:is|was)", "has", "does") if singular else ("(?:are|were)", "have", "do")
    no = "(?: not| never)?"
    forms = (past, third if singular else base, f"{be}{no} {progressive}", f"{have}{no} {participle}")
    return any_of([*forms, f"(?:can|must|should|might){no} {base}", f"(?:did|{do}) not {base}"])


@cache
def sentences() -> re.Pattern[str]:
    people, animals, things, adjectives = map(
        all_words, (lexicon.PEOPLE, lexicon.ANIMALS, lexicon.THINGS, lexicon.ADJECTIVES)
    )
    old = f"(?:{any_of(adjectives)} )?"

    def phrases(nouns, number: str) -> str:
        if number == "one":
            return f"(?:the|a|this|that|every|one) {old}{any_of(nouns)}"
        return f"(?:the|these|those|many|two|several) {old}{any_of(nouns)}s"

    one, many = (phrases(people + animals, number) for number in ("one", "many"))
    someone, something = any_of((one, many)), any_of(phrases(things, n) for n in ("one", "many"))
    to_one, to_many = (verbs(lexicon.TO_SOMEONE, number) for number in ("one", "many"))

    def rest(number: str) -> str:
        own, be = (to_one, "(?:is|was)") if number == "one" else (to_many, "(?:are|were)")
        itself = "(?:itself|himself|herself)" if number == "one" else "themselves"
        be_old = f"(?:{be}(?: not)?|(?:can|must|should|might) be) {any_of(adjectives)}"
        using = f"{verbs(lexicon.TO_SOMETHING, number)} {any_of((something, itself))}"
        return any_of((be_old, verbs(lexicon.ALONE, number), f"{own} {any_of((someone, itself))}", using))

    def clause(subject: str, number: str) -> str:
        own = to_one if number == "one" else to_many
        which = (f"that {own} {someone}", f"that {one} {to_one}", f"that {many} {to_many}")
        place = f"(?:near|behind|beside) {something}"
        return f"{subject}(?: {any_of((*which, place))})? {rest(number)}"

    named = f"{any_of(all_words(lexicon.NAMES))} {rest('one')}".lower()
    clauses = any_of((named, clause(one, "one"), clause(many, "many")))
    return re.compile(f"{clauses}(?: (?:and|but|because|while) {clauses})?")


def is_correct(sentence: str) -> bool:
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    return sentences().fullmatch(re.sub(r"\ban\b", "a", sentence[:-1].lower())) is not None


def test_the_recogniser_knows_right_from_wrong():
    assert is_correct("The old dog that the girls have seen sleeps.".replace("seen", "thanked"))
    assert not is_correct("The old dog that the girls has thanked sleeps.")
    assert not is_correct("The dog sleep.")


def test_labels_are_right():
    draws = Draws("labels")
    for number in range(600):
        texts, label = acceptability.example(draws, number % 2, is_long=number % 3 == 0)
        assert is_correct(texts["sentence"]) == (label == 0), texts


def test_every_wrong_text_of_every_part_makes_the_sentence_wrong():
    draws, seen = Draws("wrong"), set()
    for number in range(60):
        parts = Grammar(lexicon.words(0, 1), LONG if number % 2 else SHORT, draws).sentence()
        texts = [part.text for part in parts]
        for place, part in enumerate(parts):
            for kind, wrong in part.wrong.items():
                seen.add(kind)
                for text in wrong:
                    changed = written([*texts[:place], text, *texts[place + 1 :]])
                    assert not is_correct(changed), (kind, changed)
    assert seen == set(ERRORS)


def test_a_becomes_an_before_a_vowel():
    assert phrase(["a", "old", "attorney"]) == "an old attorney"
    assert phrase(["a", "tall", "attorney"]) == "a tall attorney"


def test_forms_of_verbs():
    assert Verb.of("chase") == Verb("chase", "chased", "chased")
    assert Verb.of("take=took=taken") == Verb("take", "took", "taken")
    assert (Verb.of("chase").progressive, Verb.of("thank").progressive) == ("chasing", "thanking")
