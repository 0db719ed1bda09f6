"""The words of the text miniature and their forms.

The tasks' sets use the first half of each class, the shifted set `words` the second, pre-training
both. A slash separates synonyms, and base=past=participle are the forms of an irregular verb. All
nouns form their plural with -s, and no word begins with a silent h or a long u.
"""

from dataclasses import dataclass
from functools import cache

PEOPLE = (
    "doctor/physician teacher girl boy king farmer lawyer/attorney singer soldier pilot student/pupil guest/visitor"
    " neighbor baker robber/bandit author/writer",
    "gardener actor/performer nurse captain/skipper dancer hunter clerk tailor merchant/trader engineer queen poet"
    " cook/chef worker/laborer stranger/outsider",
)
ANIMALS = (
    "dog/hound cat horse bird rabbit bear lion snake/serpent frog goat duck",
    "tiger monkey turtle parrot pig/hog hen/chicken eagle spider camel cow",
)
THINGS = (
    "car/automobile book stone/rock table ship/vessel letter picture/image garden street/road gift/present coat/jacket"
    " lamp shop/store hat/cap house tree",
    "boat basket bicycle/bike sofa/couch window tower mirror wagon/cart blanket ladder clock drum trail/path forest"
    " hill bridge",
)
NAMES = ("Anna Ben Clara David Emma Felix Greta Henry", "Ida Jack Karl Laura Martin Nora Oscar Paula")
TO_SOMEONE = (  # verbs that need an object: a person or an animal
    "chase/pursue praise/commend thank greet/welcome admire scare/frighten alert blame support invite summon",
    "reward insult protect/shield respect/honor surround amuse mock/ridicule betray rescue escort",
)
TO_SOMETHING = (  # verbs that need an object, a thing, and whose subject is a person
    "purchase/acquire repair/restore describe/depict use/employ locate select mention find=found=found take=took=taken",
    "damage/harm obtain lift/raise destroy/ruin examine/inspect reveal discard conceal throw=threw=thrown",
)
ALONE = (  # verbs that cannot have an object
    "sleep=slept=slept smile wait arrive listen disappear talk emerge cough",
    "laugh wander rise=rose=risen complain sneeze travel snore giggle",
)
ADJECTIVES = (
    "big/large small/little old young clever/smart happy/glad sad quiet/silent rich/wealthy poor tired/weary"
    " strange/odd famous tall angry/furious kind",
    "brave/courageous loud/noisy quick/fast beautiful/pretty proud lazy/idle gentle/tender heavy cold bright dirty"
    " modern",
)
PLACES = "near behind beside"
FEMALE = "girl queen Anna Clara Emma Greta Ida Laura Nora Paula"
MALE = "boy king Ben David Felix Henry Jack Karl Martin Oscar"
TIMES = {  # the tense of a verb -> when; a bar separates groups of synonyms
    "past": "yesterday/the day before|last week|last year|this morning/earlier today",
    "present": "often/frequently|every day/each day|on weekends|in summer",
    "future": "tomorrow/the next day|soon/before long|next week|next year",
}
SINGULAR, PLURAL = "the a this that every one", "the these those many two several"
QUANTITIES = "an single lot of some"
MODALS = "can must should might"
CONJUNCTIONS = "and but because while"
AUXILIARIES = "is are was were be being has have do does did will not never by"
REFLEXIVES = "himself herself itself themselves"

Group = tuple[str, ...]  # a word and its synonyms


@dataclass(frozen=True)
class Words:
    """The words that a set may use, by class. A verb's forms are in `Verb`."""

    people: tuple[Group, ...]
    animals: tuple[Group, ...]
    things: tuple[Group, ...]
    names: tuple[Group, ...]
    to_someone: tuple[Group, ...]
    to_something: tuple[Group, ...]
    alone: tuple[Group, ...]
    adjectives: tuple[Group, ...]


@dataclass(frozen=True)
class Verb:
    """The forms of a verb."""

    base: str
    past: str
    participle: str

    @classmethod
    def of(cls, entry: str) -> "Verb":
        base, *irregular = entry.split("=")
        regular = base + ("d" if base.endswith("e") else "ed")
        past, participle = irregular or (regular, regular)
        return cls(base, past, participle)

    @property
    def third(self) -> str:
        return self.base + "s"

    @property
    def progressive(self) -> str:
        return self.base.removesuffix("e") + "ing"


@cache
def words(*halves: int) -> Words:
    """Return the words of the given halves of the lexicon: 0, 1 or both."""
    classes = (PEOPLE, ANIMALS, THINGS, NAMES, TO_SOMEONE, TO_SOMETHING, ALONE, ADJECTIVES)
    return Words(*(groups(" ".join(entries[half] for half in halves)) for entries in classes))


def groups(entries: str, separator: str | None = None) -> tuple[Group, ...]:
    """Return the groups of synonyms in an entry of the lexicon."""
    return tuple(tuple(entry.split("/")) for entry in entries.split(separator))
