"""Table 4's bold rule and its oracle row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modelsoups.stats import paired_tests, scores
from modelsoups.stats.paired_tests import Pair

ALPHA = 0.05


def oracle(accuracies: Mapping[str, Mapping[str, float]], shifts: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Best individual on each test set: its name and accuracy, by data set; "mean" is the best average over shifts.

    accuracies[model][data set]. Ties go to the model that is listed first. Raises ValueError when there is no model.
    """
    if not accuracies:
        raise ValueError("oracle: no individual models")
    sets = list(next(iter(accuracies.values())))
    columns = {name: {model: row[name] for model, row in accuracies.items()} for name in sets}
    if shifts:
        columns["mean"] = {model: scores.shift_mean(row, shifts) for model, row in accuracies.items()}
    return {name: max(column.items(), key=lambda item: item[1]) for name, column in columns.items()}


def bold(rows: Mapping[str, Sequence[object]], seed: int = 0) -> set[str]:
    """Rows not significantly different from the best: exact McNemar on one data set, permutation test on several.

    rows[name] holds the row's correctness on each data set, as boolean arrays; the quantity is their unweighted mean.
    """
    if not rows:
        return set()
    means = {name: float(np.mean([np.asarray(c).mean() for c in sets])) for name, sets in rows.items()}
    best = max(means, key=means.__getitem__)
    return {name for name in rows if name == best or _p(rows[best], rows[name], seed) >= ALPHA}


def _p(one: Sequence[object], two: Sequence[object], seed: int) -> float:
    pairs: list[Pair] = list(zip(one, two, strict=True))
    return paired_tests.mcnemar_exact(*pairs[0]).p if len(pairs) == 1 else paired_tests.paired_mean_test(pairs, seed).p
