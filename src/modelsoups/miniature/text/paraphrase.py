"""The task "paraphrase": do two sentences say the same? In the place of MRPC.

Both sentences tell an event. Paraphrases use other synonyms, the passive, or another place for the
time; in the other pairs the second sentence tells an event after five to seven random changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelsoups.miniature.text.grammar import Draws, phrase, written
from modelsoups.miniature.text.lexicon import TIMES, Group, Verb, Words, groups, words

OPTIONS = ("equivalent", "not equivalent")
TENSES = tuple(TIMES)
LEAST, MOST = 5, 7  # changes of a pair that is not equivalent; with 2 to 3 PhraseBERT is right in only 75%
CHANGES = ("roles", "agent", "action", "patient", "adjective", "owner", "negation", "tense", "when", "number")
DETERMINERS = (("the",), ("this",), ("a",), ("one", "a single"))
PLURALS = (("the",), ("these",), ("two",), ("many", "a lot of"), ("several", "some"))
DEFINITE = 2  # the first two determiners; with others, the passive of a negated sentence could say something else


@dataclass(frozen=True)
class Someone:
    """Who or what takes part in an event; words are groups of synonyms."""

    noun: Group
    determiner: Group
    plural: bool
    adjective: Group = ()

    def text(self, draws: Draws) -> str:
        adjective = [draws.one(self.adjective)] if self.adjective else []
        noun = draws.one(self.noun) + ("s" if self.plural else "")
        return phrase([draws.one(self.determiner), *adjective, noun])


@dataclass(frozen=True)
class Event:
    """Who does what to whom, and when."""

    agent: Someone
    action: Group
    patient: Someone
    tense: str
    is_negated: bool
    when: Group = ()

    def text(self, draws: Draws) -> str:
        """Return a random sentence that tells this event."""
        verb, is_passive = Verb.of(draws.one(self.action)), draws.chance(0.4)
        agent, patient = self.agent.text(draws), self.patient.text(draws)
        told = [agent, self._active(verb), patient]
        if is_passive:
            told = [patient, self._passive(verb), "by", agent]
        if self.when:
            when = draws.one(self.when)
            told = [when, *told] if draws.chance(0.5) else [*told, when]
        return written(told)

    def _active(self, verb: Verb) -> str:
        plural = self.agent.plural
        if self.tense == "future":
            return f"will not {verb.base}" if self.is_negated else f"will {verb.base}"
        if self.is_negated:
            did = "did" if self.tense == "past" else "do" if plural else "does"
            return f"{did} not {verb.base}"
        return verb.past if self.tense == "past" else verb.base if plural else verb.third

    def _passive(self, verb: Verb) -> str:
        past, present = ("were", "are") if self.patient.plural else ("was", "is")
        negation = " not" if self.is_negated else ""
        auxiliary = {"past": f"{past}{negation}", "present": f"{present}{negation}", "future": f"will{negation} be"}
        return f"{auxiliary[self.tense]} {verb.participle}"


def example(draws: Draws, half: int, is_long: bool) -> tuple[dict[str, str], int]:
    """Return a random pair of sentences and its label, the index of an option. half: of the lexicon.

    is_long: whether all events have adjectives and a time.
    """
    event = random_event(words(half), draws, 1.0 if is_long else 0.5)
    label = draws.index(2)
    other = event
    while label == 1 and other == event:  # changes can cancel out
        for _ in range(LEAST + draws.index(MOST - LEAST + 1)):
            other = changed(other, words(half), draws)
    while True:
        first, second = event.text(draws), other.text(draws)
        if first != second:
            return {"sentence1": first, "sentence2": second}, label


def random_event(known: Words, draws: Draws, detail: float) -> Event:
    """Return a random event. detail: the probability of each adjective and of the time."""
    to_someone = draws.chance(0.7)
    is_negated = draws.chance(0.2)
    agents = known.people + known.animals if to_someone else known.people
    patients = known.people + known.animals if to_someone else known.things
    agent = _someone(draws.one(agents), known, draws, detail, is_negated)
    other = _other(patients, draws, agent.noun)
    patient = _someone(other, known, draws, detail, is_negated)
    action = draws.one(known.to_someone if to_someone else known.to_something)
    tense = draws.one(TENSES)
    when = draws.one(groups(TIMES[tense], "|")) if draws.chance(detail) else ()
    return Event(agent, action, patient, tense, is_negated, when)


def _someone(noun: Group, known: Words, draws: Draws, detail: float, is_definite: bool) -> Someone:
    plural = draws.chance(0.4)
    determiners = PLURALS if plural else DETERMINERS
    determiner = draws.one(determiners[:DEFINITE] if is_definite else determiners)
    adjective = draws.one(known.adjectives) if draws.chance(detail) else ()
    return Someone(noun, determiner, plural, adjective)


def changed(event: Event, known: Words, draws: Draws) -> Event:
    """Return an event that differs from `event` in one respect, chosen at random."""
    while True:
        other = change(event, draws.one(CHANGES), known, draws)
        if other != event:
            return other


def change(event: Event, what: str, known: Words, draws: Draws) -> Event:
    """Return the event with one change; the same event if there is nothing of that kind to change."""
    agent, patient = event.agent, event.patient
    someone = known.people + known.animals
    to_someone = event.action in known.to_someone
    if what == "roles":
        return replace(event, agent=patient, patient=agent) if to_someone else event
    if what == "agent":
        nouns = someone if to_someone else known.people
        return replace(event, agent=replace(agent, noun=_other(nouns, draws, agent.noun, patient.noun)))
    if what == "patient":
        nouns = someone if to_someone else known.things
        return replace(event, patient=replace(patient, noun=_other(nouns, draws, agent.noun, patient.noun)))
    if what == "action":
        actions = known.to_someone if to_someone else known.to_something
        return replace(event, action=_other(actions, draws, event.action))
    if what == "adjective" and agent.adjective:
        return replace(event, agent=replace(agent, adjective=_other(known.adjectives, draws, agent.adjective)))
    if what == "owner":  # the adjectives change places
        swapped = replace(agent, adjective=patient.adjective), replace(patient, adjective=agent.adjective)
        return replace(event, agent=swapped[0], patient=swapped[1])
    if what == "negation":
        return replace(event, is_negated=not event.is_negated)
    if what == "tense" and not event.when:
        return replace(event, tense=draws.one([tense for tense in TENSES if tense != event.tense]))
    if what == "when" and event.when:
        return replace(event, when=_other(groups(TIMES[event.tense], "|"), draws, event.when))
    if what == "number":
        determiners = DETERMINERS if patient.plural else PLURALS
        number = replace(patient, plural=not patient.plural, determiner=draws.one(determiners))
        return replace(event, patient=number)
    return event


def _other(choices: Sequence[Group], draws: Draws, *without: Group) -> Group:
    found: Group = draws.one([choice for choice in choices if choice not in without])
    return found
