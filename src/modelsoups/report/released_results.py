"""Creates the lines of results.jsonl from the authors' released accuracies, without any model.

Which images are correct was not released, so differences have no significance test. The only soups
and ensembles are those that were released: uniform soup, greedy soup and ensemble.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from modelsoups.data.imagenet.metadata import SETS
from modelsoups.published import tables
from modelsoups.published.later import later_soups
from modelsoups.recipes.recipe import Recipe
from modelsoups.report.numbers import MEAN, Difference, Numbers, Result, SetInfo
from modelsoups.report.result_lines import compared_rows, mean_line
from modelsoups.stats import intervals

Accuracies = Mapping[str, float]  # data set -> accuracy, from 0 to 1

HOLDOUT_IMAGES = 26_000
NOTES = [
    "This page uses only the authors' released results; no model was evaluated here. The best and second best "
    "models are chosen by the released hold-out accuracies of the 72 models. The accuracies of soups and ensemble "
    "are those released.",
    "To evaluate the released models (in folder DIR) yourself: modelsoups import-released DIR, "
    "then modelsoups experiment=released data.root=...",
]
GREEDY = "The released greedy soup consists of models {}, in the order in which they were added."


def applies(numbers: Numbers) -> bool:
    """Return whether the report shows only the authors' released accuracies, not a run of ours."""
    return numbers.notes[: len(NOTES)] == NOTES


def result_lines(name: str, recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of results.jsonl for the authors' 72 released models and their soups.

    name: name of the experiment. recipe: values of the hyperparameters that were not released.
    """
    models = {f"{m.index:03d}": m for m in tables.released_models()}
    best, second = tables.by_holdout()[:2]
    initial = models["000"].accuracy
    chosen = {"best": best.accuracy, "second_best": second.accuracy, "initialization": initial}
    whole_rows = {row: found for row, found in tables.released_rows().items() if len(found) == len(tables.SETS)}
    rows: dict[str, Accuracies] = {**whole_rows, **chosen}
    greedy = ", ".join(map(str, tables.greedy_ingredients()))
    about = {
        "name": name,
        "sets": [asdict(SetInfo(x, SETS[x].title, SETS[x].role, images(x))) for x in tables.SETS.values()],
        "rows": list(rows),
        "individuals": list(models),
        "curve": {},
        "failed": {},
        "notes": [*NOTES, GREEDY.format(greedy), later_soups()["mehl"].note],
    }
    made: list[dict[str, Any]] = [{"experiment": about}]
    for row, accuracies in rows.items():
        made += _accuracies(row, "individual" if row in ("best", "second_best") else row, accuracies)
        forwards = tables.MODELS if row == "ensemble" else 1
        made.append({"model": row, "inference": forwards, "recipe": None})
    for row, model in models.items():
        made += _accuracies(row, "individual", model.accuracy)
        whole = Recipe(**{**recipe, **model.recipe}).to_json() if model.recipe else None
        made.append({"model": row, "inference": 1, "recipe": whole})
    for a, b in compared_rows(rows):
        for on in ("val", MEAN):
            value = _accuracy(rows[a], on) - _accuracy(rows[b], on)
            made.append({"comparison": asdict(Difference(a, b, on, value))})
    return made


def images(name: str) -> int:
    found = HOLDOUT_IMAGES if name == "holdout" else SETS[name].images
    assert found is not None, f"the number of images of the data set {name} is not known"
    return found


def _accuracies(row: str, kind: str, accuracies: Accuracies) -> Iterator[dict[str, Any]]:
    """Yield a line of results.jsonl for each data set, then one for the mean over the shifts."""
    for name, share in accuracies.items():
        n = images(name)
        correct = round(share * n)
        ends = intervals.wilson(correct, n)
        yield vars(Result(kind, row, name, n, correct, share, *ends))
    shifts = [(accuracies[name], images(name)) for name in tables.SHIFTS]
    yield mean_line(kind, row, [(p, p * (1 - p) / n) for p, n in shifts])


def _accuracy(accuracies: Accuracies, on: str) -> float:
    if on != MEAN:
        return accuracies[on]
    return sum(map(accuracies.__getitem__, tables.SHIFTS)) / len(tables.SHIFTS)
