"""Figure G.4 has a half for each pre-training that the run has seeds of; each half has verdicts of its own."""

from types import SimpleNamespace

import numpy as np
import pytest

from modelsoups.analyses.figure_g4_seeds import SEEDS
from modelsoups.analyses.members import Unavailable
from modelsoups.analyses.points import Measured
from modelsoups.analyses.rows import select


class Bench:
    """Stands for a Bench: model i of a pool is right on the first `correct[pool] + i` of 100 images, soups on more."""

    def __init__(self, **correct):
        self.correct, self.runs, self.evaluated = correct, correct, []
        self.columns = {"test": ["test"]}

    def ingredients(self, pool):
        return [SimpleNamespace(pool=pool, number=i) for i in range(3)] if pool in self.runs else []

    def for_pool(self, pool):
        return self

    def evaluate(self, seeds, choosing=False):
        self.evaluated.append((seeds[0].pool, choosing))

    def individual(self, seed):
        return measures(self.correct[seed.pool] + seed.number)

    def measure(self, points, label):
        return [measures(self.correct[p.ingredients[0].pool] + 5 + len(p.ingredients)) for p in points]

    def ensemble(self, seeds):
        return measures(self.correct[seeds[0].pool] + 10)

    def accuracies(self, measures):
        return {"test": measures["test"].accuracy, "shifts": None}


def measures(correct):
    return {"test": Measured(0.0, np.arange(100) < correct)}


def test_both_halves_are_made_if_there_are_seeds_of_both():
    bench = Bench(seeds=60, seeds_labels=40)
    rows = SEEDS.rows(bench)
    assert bench.evaluated == [("seeds", False), ("seeds_labels", False)]
    assert [row["test"] for row in select(rows, pool="seeds_labels", method="soup")] == [0.46, 0.47, 0.48]
    assert [row["test"] for row in select(rows, pool="seeds", method="individual")] == [0.6, 0.61, 0.62]
    claims = [verdict.text for verdict in SEEDS.verdicts(rows)]
    assert "The soup of all seeds beats the mean of its models in distribution" in claims
    assert "The soup of all seeds beats the mean of its models (pre-trained on labels), in distribution" in claims
    figure = SEEDS.draw(rows)
    assert [panel.get_title() for panel in figure.axes] == ["", "pre-trained on labels"]


def test_without_seeds_of_the_other_pre_training_the_figure_has_one_half():
    rows = SEEDS.rows(Bench(seeds=60))
    assert {row["pool"] for row in rows if "pool" in row} == {"seeds"}
    assert len(SEEDS.draw(rows).axes) == 1
    with pytest.raises(Unavailable, match=r"differ only in their seed, in analyse\.pools\.seeds$"):
        SEEDS.rows(Bench(seeds_labels=40))
