"""Evaluate candidate soups on the hold-out, and choose the best."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelsoups.soup.coefficients import Soup
from modelsoups.soup.pool import Pool
from modelsoups.weights.state_dicts import EVERYTHING, mix


def best_of(
    pool: Pool, method: str, candidates: Sequence[Sequence[int]], about: Sequence[Mapping[str, Any]] = ()
) -> Soup:
    """Return the candidate with the best hold-out score as a Soup; of equals, the first.

    A candidate is a list of indices of ingredients, whose mean is evaluated; an index may repeat. One
    model alone has its known score. The trace has a step for each candidate, "kept" if it was the best
    so far, with the entries of `about`, if any. Raises ValueError for logits that are not finite.
    """
    best: float | None = None
    chosen: Sequence[int] = ()
    trace = []
    for number, picks in enumerate(candidates):
        name = label_of(pool, picks)
        score = _score(pool, picks, f"soup of {name}")
        kept = best is None or score > best
        if kept:
            best, chosen = score, picks
        step = {"ingredient": name, "correct": score, "n": len(pool.labels_N), "kept": kept, "best": best}
        trace.append({**step, **(about[number] if about else {})})
    return pool.soup(method, chosen, trace=trace)


def label_of(pool: Pool, picks: Sequence[int]) -> str:
    """Return the names of a mean's members, with their shares if these differ: "0.3 a + 0.7 b"."""
    counts = {i: picks.count(i) for i in picks}
    equal = len(set(counts.values())) == 1
    names = [pool.ingredients[i].id for i in counts]
    shares = [count / len(picks) for count in counts.values()]
    return " + ".join(name if equal else f"{share:g} {name}" for name, share in zip(names, shares, strict=True))


def _score(pool: Pool, picks: Sequence[int], whose: str) -> float:
    members = list(dict.fromkeys(picks))
    if len(members) == 1:
        return pool.individual_scores[members[0]]
    row = [picks.count(i) / len(picks) for i in members]
    return pool.score_of(pool.evaluate(mix([pool.state(i) for i in members], {EVERYTHING: row})), whose)
