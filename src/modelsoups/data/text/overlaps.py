"""Finds texts that stand in two data sets, or in one with two labels, by the hashes of the texts.

In one's own data they are errors. In official sets, such as GLUE's, they are kept and counted.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

from modelsoups.data.text.examples import Example

MOST_KEYS = 20  # named in a note; the manifest lists all
Sets = Mapping[str, Sequence[Example]]
REASON = "soups must be trained, chosen and tested on different texts"
OFFICIAL = "data.text.official=true keeps and counts such texts in official sets"


def shared(one: Sequence[Example], other: Sequence[Example]) -> list[tuple[Example, Example]]:
    """Return (example of `one`, of `other`) for each example of `other` with texts of `one`."""
    first = {example.content: example for example in reversed(one)}
    return [(first[example.content], example) for example in other if example.content in first]


def conflicts(examples: Sequence[Example]) -> list[tuple[Example, Example]]:
    """Return pairs of examples with equal texts and different labels."""
    return [(one, other) for one, other in shared(examples, examples) if one.label != other.label]


def refuse(roles: Sequence[str], found: Sets) -> None:
    """Raise ValueError for texts with two labels in one set, or in two of the sets in `roles`."""
    for name, examples in found.items():
        if both := conflicts(examples):
            said = f"{both[0][0].where} and {both[0][1].where} have the same texts and different labels"
            way_out = f"correct one ({OFFICIAL})"
            raise ValueError(f"{said}, one of {len(both):,} such pairs in {name}; {way_out}")
    for one, other in combinations(roles, 2):
        if both := shared(found[one], found[other]):
            said = f"{both[0][0].where} and {both[0][1].where} have the same texts, one of {len(both):,} examples"
            raise ValueError(f"{said} that {one} and {other} share; {REASON}: remove them from one ({OFFICIAL})")


def between(name: str, others: Sequence[str], found: Sets) -> dict[str, list[str]]:
    """Return {other set: content hashes of the examples of `name` whose texts it has too}."""
    both = {other: shared(found[other], found[name]) for other in others if other != name}
    return {other: [example.content for _, example in pairs] for other, pairs in both.items() if pairs}


def notes(name: str, found: Sets, in_others: Mapping[str, Sequence[str]]) -> list[str]:
    """Return sentences on the repeated texts of the set `name`, for its manifest and the report."""
    examples = found[name]
    repeated = len(examples) - len({example.content for example in examples})
    lines = []
    if repeated:
        lines.append(f"{repeated:,} of {len(examples):,} examples repeat the texts of another in this set")
    if both := list(dict.fromkeys(example.content for _, example in conflicts(examples))):
        lines.append(f"{len(both):,} texts have two labels in this set: {_named(both)}")
    for other, contents in in_others.items():
        lines.append(f"{len(contents):,} of {len(examples):,} examples have texts that {other} has too: ")
        lines[-1] += _named(contents)
    return lines


def _named(contents: Sequence[str]) -> str:
    more = f" and {len(contents) - MOST_KEYS:,} more" if len(contents) > MOST_KEYS else ""
    return ", ".join(contents[:MOST_KEYS]) + more
