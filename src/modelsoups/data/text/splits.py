"""Splits a training set by hashes of its texts, alike on every machine and in every format."""

import hashlib
from collections.abc import Sequence

from modelsoups.data.text.examples import Example


def holdout(examples: Sequence[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """Return (rest, hold-out): of each class, about `fraction` of the examples are held out.

    Equal texts stay together, in the class of the first. Both parts keep the order of the examples.
    ValueError if one of the parts would lack a class.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.content, []).append(example)
    by_class: dict[int, list[str]] = {}
    for content, group in groups.items():
        by_class.setdefault(group[0].label, []).append(content)
    held: set[str] = set()
    for contents in by_class.values():
        total = sum(len(groups[content]) for content in contents)
        wanted, taken = round(fraction * total), 0
        for content in sorted(contents, key=lambda content: _rank("holdout", content)):
            if taken >= wanted:
                break
            held.add(content)
            taken += len(groups[content])
    rest = [example for example in examples if example.content not in held]
    return rest, [example for example in examples if example.content in held]


def first(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """Return `limit` examples, chosen by a hash and in their order; null: all."""
    if limit is None or limit >= len(examples):
        return list(examples)
    ranks = [(_rank("limit", example.content), number) for number, example in enumerate(examples)]
    chosen = sorted(number for _, number in sorted(ranks)[:limit])
    return [examples[number] for number in chosen]


def _rank(purpose: str, content: str) -> bytes:
    return hashlib.sha256(f"{purpose} {content}".encode()).digest()
