"""The report's question and its answer in words, for a reader who has not read the paper."""

from modelsoups.report.claims import ALPHA
from modelsoups.report.numbers import MEAN, Difference, Numbers, RowResults, percent
from modelsoups.report.table_3 import label_of

RIVALS = ("initialization", "uniform", "ensemble")  # mentioned beside the greedy soup
LEVEL = "95% interval"


def question(numbers: Numbers) -> str:
    """Return the question that the run asks, with the number of its fine-tuned models."""
    count = len(numbers.individuals)
    return (
        f"{count} models were fine-tuned from one initialization with different hyperparameters. Does an average of "
        "their weights (a soup), which costs no more to run than one model, beat the best of them?"
    )


def answer(numbers: Numbers) -> list[str]:
    """Return the answer in sentences: the greedy soup's gain, and which other methods score higher.

    The list is empty if the run has no greedy soup or no best model.
    """
    if not {"greedy", "best"} <= set(numbers.rows):
        return []
    members = numbers.greedy_members
    if members == 1:
        where = "test set itself" if numbers.chosen_on_test else "hold-out"
        alone = (
            "No: the greedy soup is the best individual model alone, because adding another model never "
            f"helped on the {where}."
        )
        places = [numbers.test, MEAN] if _result(numbers.rows["greedy"], MEAN) else [numbers.test]
        levels = " and ".join(f"{_level(numbers, 'greedy', on)} on {_place(numbers, on)}" for on in places)
        sentences = [alone, f"It scores {levels}."]
    else:
        sentences = [_gain(numbers, d, members) for d in numbers.headline]
    last = MEAN if _result(numbers.rows["greedy"], MEAN) else numbers.test
    return [*sentences, *_rivals(numbers, last)]


def gained(d: Difference) -> str:
    """Return a difference in words, such as "a gain of 0.92 points (95% interval +0.39 to +1.44)"."""
    amount = f"{abs(100 * d.value):.2f} points"
    if d.low is None or d.high is None or d.p is None:
        kind = "a loss of" if d.value < 0 else "a gain of"
        return f"{kind} {amount}, untested, because the prediction for each example is not known"
    if d.low == d.high == d.value == 0:
        return "no difference on any example"
    ends = f"{LEVEL} {percent(d.low, True)} to {percent(d.high, True)}"
    if d.p >= ALPHA:
        return f"no clear difference, {percent(d.value, True)} points ({ends})"
    return f"{'a gain' if d.value > 0 else 'a loss'} of {amount} ({ends})"


def _gain(numbers: Numbers, d: Difference, members: int) -> str:
    of = f", an average of {members} of the {len(numbers.individuals)} models," if members and d.on != MEAN else ""
    levels = f"scores {_level(numbers, 'greedy', d.on)} and the best individual model {_level(numbers, 'best', d.on)}"
    return f"On {_place(numbers, d.on)}, the greedy soup{of} {levels}: {gained(d)}."


def _rivals(numbers: Numbers, on: str) -> list[str]:
    """Return a sentence each for the methods that score higher than the greedy soup, and lower."""
    rows = {name: numbers.rows[name] for name in RIVALS if name in numbers.rows}
    greedy = _score(numbers.rows["greedy"], on)
    higher: list[str] = []
    lower: list[str] = []
    for name, row in rows.items():
        (higher if _score(row, on) > greedy else lower).append(f"{_named(row)} ({_level(numbers, name, on)})")
    found = []
    place = "Under shift" if on == MEAN else f"On {numbers.title(on)}"
    if higher:
        found.append(f"{place}, {_and(higher)} {_verb(higher)} higher than the greedy soup.")
    if lower:
        found.append(f"{place}, {_and(lower)} {_verb(lower)} no higher than the greedy soup.")
    return found


def _named(row: RowResults) -> str:
    name = f"the {label_of(row.name).lower()}"
    return f"{name} of {row.inference} models" if row.inference > 1 else name


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _verb(names: list[str]) -> str:
    return "scores" if len(names) == 1 else "score"


def _place(numbers: Numbers, on: str) -> str:
    if on != MEAN:
        return numbers.title(on)
    several = f"average over {len(numbers.shifts)} sets under distribution shift"
    return f"{numbers.title(numbers.shifts[0])} (distribution shift)" if len(numbers.shifts) == 1 else several


def _result(row: RowResults, on: str) -> object | None:
    return row.mean if on == MEAN else row.results.get(on)


def _score(row: RowResults, on: str) -> float:
    found = row.shift_mean if on == MEAN else row.accuracy(on)
    return float("-inf") if found is None else found


def _level(numbers: Numbers, name: str, on: str) -> str:
    return numbers.scored(_score(numbers.rows[name], on))
