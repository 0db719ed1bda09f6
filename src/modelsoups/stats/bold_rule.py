"""The rule for the bold numbers of Table 4, and its oracle row (the best model on each set)."""

from collections.abc import Mapping, Sequence

import numpy as np

from modelsoups.stats import paired_tests, scores
from modelsoups.stats.paired_tests import Pair

ALPHA = 0.05  # significance level


def oracle(accuracies: Mapping[str, Mapping[str, float]], shifts: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Return the name and accuracy of the best model on each data set; key "mean": over the shifts.

    accuracies[model][data set] is from 0 to 1. Ties go to the first model. ValueError if it is empty.
    """
    if not accuracies:
        raise ValueError("oracle: no individual models")
    best: dict[str, tuple[str, float]] = {}
    for model, row in accuracies.items():
        columns = {**row, "mean": scores.shift_mean(row, shifts)} if shifts else row
        for name, accuracy in columns.items():
            if name not in best or accuracy > best[name][1]:
                best[name] = model, accuracy
    return best


def bold(rows: Mapping[str, Sequence[object]], seed: int = 0) -> set[str]:
    """Return the names of the rows that are not significantly worse than the best (bold in Table 4).

    rows[name]: for each data set, a boolean array of which images are classified correctly. Each row
    is compared with the best by an exact McNemar test (one data set) or a permutation test (several).
    """
    if not rows:
        return set()
    means = {}
    for name, sets in rows.items():
        means[name] = float(np.mean([np.asarray(correct).mean() for correct in sets]))
    best = max(means, key=means.__getitem__)
    kept = {best}
    for name in rows.keys() - kept:
        pairs: list[Pair] = list(zip(rows[best], rows[name], strict=True))
        test = paired_tests.mcnemar_exact(*pairs[0]) if len(pairs) == 1 else paired_tests.paired_mean_test(pairs, seed)
        if test.p >= ALPHA:
            kept.add(name)
    return kept
