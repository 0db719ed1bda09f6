"""The results of a text run, from tiny linear models: real soups, outcomes and lines of results.jsonl."""

from functools import cache

import numpy as np
import torch

from modelsoups.recipes.recipe import Recipe
from modelsoups.report.measure import Evidence, RowOutcomes
from modelsoups.report.numbers import Numbers, SetInfo
from modelsoups.report.result_lines import result_lines
from modelsoups.soup.coefficients import Ingredient
from modelsoups.soup.methods import METHODS
from modelsoups.soup.pool import Pool
from modelsoups.stats.text_scores import score_of
from modelsoups.tasks.text_scoring import TextScoring
from modelsoups.weights import state_dicts

COUNTS = {"holdout": 70, "test": 90, "reviews": 50}
MODELS = 5


class Texts(TextScoring):
    """The scoring of the text task, for logits that no network computes."""

    def unused(self, *arguments):
        raise AssertionError("a report runs no model")

    build = example = train_batches = test_batches = inputs = logits = loss = chance_loss = unused

    def project(self, dataset, logits_NC):
        return logits_NC


def task_of(key="matthews", classes=2):
    return Texts(score_of(key, classes))


class World:
    """Features and labels of each set, and linear models of them, all from one seed."""

    def __init__(self, key="matthews", seed=1):
        rng = torch.Generator().manual_seed(seed)
        self.task = task_of(key)
        truth_FC = torch.randn(6, 2, generator=rng)
        self.features, self.labels = {}, {}
        for name, count in COUNTS.items():
            self.features[name] = torch.randn(count, 6, generator=rng)
            noise_NC = torch.randn(count, 2, generator=rng)
            self.labels[name] = (self.features[name] @ truth_FC + noise_NC).argmax(dim=1)
        self.start = {"weight": truth_FC + 3 * torch.randn(6, 2, generator=rng)}
        self.states = [{"weight": truth_FC + torch.randn(6, 2, generator=rng)} for _ in range(MODELS)]

    def logits(self, name, state):
        return self.features[name] @ state["weight"]

    def pool(self, name):
        """The models and their logits on the set on which they are chosen."""
        members = [Ingredient(f"{i:03d}", "", f"{i:064d}", recipe(i)) for i in range(MODELS)]
        return Pool(
            tuple(members),
            tuple(self.logits(name, state) for state in self.states),
            self.labels[name],
            self.states.__getitem__,
            lambda state: self.logits(name, state),
            points=self.task.points,
        )

    def row(self, name, kind, states, **more):
        """A row: one model, or an ensemble of several."""
        outcomes = {}
        for dataset in self.features:
            logits_NC = torch.stack([self.logits(dataset, state) for state in states]).mean(dim=0)
            outcomes[dataset] = self.task.outcomes(logits_NC, self.labels[dataset])
        return RowOutcomes(name, kind, outcomes, inference=len(states), **more)

    def chosen(self, name, method, on="holdout"):
        soup = METHODS[method](self.pool(on))
        states = [self.states[int(member)] for member in soup.ingredients]
        if soup.space == "weights":
            states = [state_dicts.mix(states, soup.coefficients)]
        kind = {"best": "individual", "second_best": "individual", "ensemble": "ensemble"}.get(method, "soup")
        return self.row(name, kind, states, soup=soup)


def recipe(seed):
    return Recipe(10.0 ** (-5 + seed / 4), 0.0, 3, 0.0, 0.0, "minimal", seed, 16 << seed % 2, 0, 1.0)


@cache
def evidence(key="matthews", both=True, shifts=False, chosen_on="holdout"):
    """both: with the rows that are chosen on the test set; shifts: the reviews are a shift."""
    world = World(key)
    rows = {"initialization": world.row("initialization", "initialization", [world.start])}
    for method in ("best", "second_best", "uniform", "greedy", "ensemble"):
        rows[method] = world.chosen(method, method, chosen_on)
    if both:
        rows["best_validation"] = world.chosen("best_validation", "best", "test")
        rows["greedy_validation"] = world.chosen("greedy_validation", "greedy", "test")
    individuals = {}
    for i, state in enumerate(world.states):
        individuals[f"{i:03d}"] = world.row(f"{i:03d}", "individual", [state], recipe=recipe(i))
    sets = [SetInfo("holdout", "made holdout", "holdout", 70), SetInfo("test", "made validation", "test", 90)]
    if shifts:
        sets.append(SetInfo("reviews", "Reviews", "shift", 50))
    else:
        for row in [*rows.values(), *individuals.values()]:
            del row.outcomes["reviews"]
    curve = {k: {m: rows[m] for m in ("best", "uniform", "greedy", "ensemble")} for k in (2, MODELS)}
    texts = [{"title": "made train", "counts": {"acceptable": 200, "unacceptable": 90},
              "notes": ["2 of 290 examples repeat the texts of another in this set"]}]  # fmt: skip
    costs = {"models": MODELS, "images": 4350, "seconds": 9.0, "process_seconds": 9.0}
    return world.task, Evidence("hand", sets, rows, individuals, curve, {}, {}, {"prepare": 1.0},
                                {"config": config(), "costs": costs, "rows": {"best": {"sha256": "0" * 64}}}, [],
                                texts, chosen_on == "test")  # fmt: skip


def config(model="google-bert/bert-base-uncased", data="glue_cola", limit=None):
    about = {"name": data, "library": "text", "limit": limit}
    return {"task": "text", "model": {"name": model}, "data": about, "runs": "runs/hand"}


@cache
def lines_of(key="matthews", **options):
    return result_lines(*evidence(key, **options))


def numbers_of(key="matthews", config=None, **options):
    _, found = evidence(key, **options)
    provenance = found.provenance if config is None else {**found.provenance, "config": config}
    return Numbers(lines_of(key, **options), provenance)


def text_of(numbers, draw):
    """All words of a figure: labels of axes, legend and tooltips."""
    figure = draw(numbers)
    words = [t.get_text() for t in figure.findobj(match=lambda a: hasattr(a, "get_text"))]
    for texts in vars(figure).get("texts_of_marks", {}).values():
        words += texts
    return " ".join(words)


def correlation(labels_N, predictions_N):
    return float(np.corrcoef(labels_N, predictions_N)[0, 1])
