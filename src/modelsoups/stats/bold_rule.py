"""Table 4: the rule for its bold numbers, and its oracle row (the best model on each data set)."""

from collections.abc import Mapping, Sequence

import numpy as np

from modelsoups.stats import paired_tests, scores
from modelsoups.stats.paired_tests import Pair

ALPHA = 0.05  # significance level


def oracle(accuracies: Mapping[str, Mapping[str, float]], shifts: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Return data set -> name and accuracy of its best model; key "mean": best mean of the shifts.

    accuracies[model][data set] is from 0 to 1. In a tie the first model wins. ValueError if empty.
    """
    if not accuracies:
        raise ValueError("oracle: there are no individual models to choose the best from")
    best: dict[str, tuple[str, float]] = {}
    for model, row in accuracies.items():
        columns = {**row, "mean": scores.shift_mean(row, shifts)} if shifts else row
        for name, accuracy in columns.items():
            if name not in best or accuracy > best[name][1]:
                best[name] = model, accuracy
    return best


def bold(rows: Mapping[str, Sequence[object]], seed: int = 0) -> set[str]:
    """Return the rows that Table 4 prints bold: those not significantly below the best.

    rows[name]: for each data set, a boolean array of which images are classified correctly. Tests
    against the best: exact McNemar (one data set) or a paired permutation test (several).
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
