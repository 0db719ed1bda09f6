"""The lines of results.jsonl from the authors' released results: accuracies, without which images were right.

So differences have no test, and mixtures are those that were released: uniform soup, greedy soup and ensemble.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from modelsoups.config.schema import Config
from modelsoups.data.imagenet.metadata import SETS
from modelsoups.published import tables
from modelsoups.recipes.recipe import Recipe
from modelsoups.report.numbers import MEAN, PAIRS, Difference, Numbers, mean_half
from modelsoups.stats import intervals

HOLDOUT_IMAGES = 26_000
NOTES = [
    "From the authors' released results alone: no model was evaluated here. Best and second best follow from the 72 "
    "models' accuracies, chosen on the hold-out; soups and ensemble are as released.",
    "For accuracies of your own: modelsoups import-released DIR, then modelsoups experiment=released data.root=...",
]
GREEDY = "The released greedy soup holds models {}, in the order in which they joined."


def applies(numbers: Numbers) -> bool:
    """Whether the numbers are these."""
    return numbers.notes[: len(NOTES)] == NOTES


def lines(cfg: Config) -> list[dict[str, Any]]:
    """As `compare.measure` makes them of a run."""
    models = {f"{m.index:03d}": m.accuracy for m in tables.released_models()}
    best, second = tables.by_holdout()[:2]
    chosen = {"best": best.accuracy, "second_best": second.accuracy, "initialization": models["000"]}
    rows = {row: chosen.get(row, accuracy) for row, accuracy in tables.released_rows().items()}
    recipes = {f"{m.index:03d}": Recipe(**{**cfg.recipe, **m.recipe}) for m in tables.released_models() if m.recipe}
    greedy = ", ".join(map(str, tables.greedy_ingredients()))
    about = {
        "name": cfg.name,
        "sets": [_set(name) for name in tables.SETS.values()],
        "rows": list(rows),
        "individuals": list(models),
        "curve": {},
        "failed": {},
        "notes": [*NOTES, GREEDY.format(greedy)],
    }
    made: list[dict[str, Any]] = [{"experiment": about}]
    for name, accuracy in {**rows, **models}.items():
        kind = "individual" if name in models or name in ("best", "second_best") else name
        made += _accuracies(name, kind, accuracy)
        recipe = asdict(recipes[name]) if name in recipes else None
        forwards = tables.MODELS if name == "ensemble" else 1
        made.append({"model": name, "inference": forwards, "recipe": recipe})
    pairs = [*((row, "best") for row in rows if row != "best"), *((a, b) for a, b in PAIRS if a in rows and b in rows)]
    return made + [{"comparison": asdict(_difference(rows, a, b, on))} for a, b in pairs for on in ("val", MEAN)]


def images(name: str) -> int:
    """Images that an accuracy on a set is of."""
    found = HOLDOUT_IMAGES if name == "holdout" else SETS[name].images
    assert found is not None, "every set of Table 3 has a known number of images"
    return found


def _set(name: str) -> dict[str, Any]:
    spec = SETS[name]
    return {"name": name, "title": spec.title, "role": spec.role, "n": images(name)}


def _accuracies(row: str, kind: str, accuracy: Mapping[str, float]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for name, share in accuracy.items():
        n = images(name)
        low, high = intervals.wilson(round(share * n), n)
        counted = {"n": n, "correct": round(share * n), "accuracy": share, "low": low, "high": high}
        made.append({"kind": kind, "row": row, "dataset": name, **counted})
    mean = _mean(accuracy)
    half = mean_half([(accuracy[name], images(name)) for name in tables.SHIFTS])
    return [
        *made,
        {"kind": kind, "row": row, "dataset": MEAN, "accuracy": mean, "low": mean - half, "high": mean + half},
    ]


def _mean(accuracy: Mapping[str, float]) -> float:
    return sum(accuracy[name] for name in tables.SHIFTS) / len(tables.SHIFTS)


def _difference(rows: Mapping[str, Mapping[str, float]], a: str, b: str, on: str) -> Difference:
    values = [_mean(rows[x]) if on == MEAN else rows[x][on] for x in (a, b)]
    return Difference(a, b, on, values[0] - values[1])
