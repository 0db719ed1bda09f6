"""Models that differ by their seed alone: calibration (Figure B.2), and soup and ensemble of 1 to k (Figure G.4)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from modelsoups.analyses.analysis import Analysis, Rows, accuracies, compared, comparison
from modelsoups.analyses.bench import Bench, Member, Unavailable, kept_path, mean_of, weights_of
from modelsoups.analyses.curves import need_holdout
from modelsoups.analyses.forward import forward_part, looked_at, part_logits
from modelsoups.config.schema import Config
from modelsoups.disk import storage
from modelsoups.experiment.sets import open_set
from modelsoups.report.claims import Verdict
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import calibration, scores
from modelsoups.stats.scores import Logits
from modelsoups.weights.state_dicts import EVERYTHING, State, mix
from modelsoups.workers.processes import run_tasks, worker_count

METHODS = ("soup", "ensemble", "calibrated soup", "calibrated ensemble")


def _members(bench: Bench, choosing: bool = False) -> list[Member]:
    members = bench.pool("seeds")
    if len(members) < 2:
        raise Unavailable("it needs two models that differ by their seed alone (analyse.pools.seeds)")
    bench.evaluate([m.ingredient for m in members], choosing)
    return members


def _budget(bench: Bench) -> Rows:
    members = _members(bench)
    counts = range(1, len(members) + 1)
    soups = bench.measure([mean_of(members[:k]) for k in counts], "figure G.4")
    rows: Rows = []
    each = [bench.individual(m.ingredient) for m in members]
    ensembles = [bench.ensemble([m.ingredient for m in members[:k]]) for k in counts]
    for k, soup, individual, ensemble in zip(counts, soups, each, ensembles, strict=True):
        for method, measures in (("individual", individual), ("soup", soup), ("ensemble", ensemble)):
            rows.append({"k": k, "method": method, **accuracies(bench, measures)})
    rows.append(comparison("soup - individuals", bench, [(soups[-1], one) for one in each]))
    rows.append(comparison("ensemble - individuals", bench, [(ensembles[-1], one) for one in each]))
    return rows


def _budget_verdicts(rows: Rows) -> list[Verdict]:
    claims = (
        (f"{a} - individuals", on, f"The {a} of all seeds beats the mean of its models {where}")
        for a in ("soup", "ensemble")
        for on, where in (("test", "in distribution"), ("shifts", "under shift"))
    )
    return [v for name, on, text in claims for v in compared(rows, name, on, text, "Figure G.4")]


# ---- calibration ----


def _calibration(bench: Bench) -> Rows:
    need_holdout(bench)
    cfg, ingredients = bench.cfg, tuple(m.ingredient for m in _members(bench, choosing=True))
    job = functools.partial(_of_count, cfg, ingredients, bench.tests)
    made = dict(
        run_tasks(job, range(1, len(ingredients) + 1), worker_count(cfg.finetune.parallel), "analyse: calibration")
    )
    rows: Rows = [row for count in sorted(made) for row in made[count]]
    for row in rows:
        row["role"] = "test" if row["dataset"] == bench.test else "shift"
    return rows + _differences(bench, ingredients)


def _of_count(cfg: Config, ingredients: tuple[Ingredient, ...], names: list[str], count: int) -> Rows:
    """Accuracy, ECE and loss of the first models by every method on every set, kept in a file."""
    key = [[i.sha256 for i in ingredients[:count]], [[n, _images(cfg, n)] for n in names]]
    holdout = open_set(cfg.data.dir, cfg.data.holdout).sha256
    path = kept_path(cfg, [*key, holdout], "analyses/seeds", "stats/calibration")
    if not path.exists():
        rows = []
        for method in METHODS:
            for name in names:
                logits = _logits(cfg, ingredients[:count], method, name)
                rows.append({"k": count, "method": method, "dataset": name, **_measured(logits)})
        storage.write_json(path, rows)
    return list(storage.read_json(path))


def _images(cfg: Config, name: str) -> list[Any]:
    return [open_set(cfg.data.dir, name).sha256, len(looked_at(cfg, name))]


def _measured(logits: Logits) -> dict[str, float]:
    logits_NC, labels_N = logits.logits_NC, logits.labels_N
    return {
        "accuracy": scores.accuracy(logits_NC, labels_N),
        "ece": calibration.ece(logits_NC, labels_N, _bins(labels_N)),
        "ece_sweep": calibration.ece_sweep(logits_NC, labels_N),
        "loss": scores.cross_entropy(logits_NC, labels_N),
    }


def _bins(labels_N: Tensor) -> int:
    return min(calibration.BINS, len(labels_N))


def _beta(cfg: Config, ingredient: Ingredient) -> float:
    """The inverse temperature that calibrates a model on the hold-out."""
    holdout = part_logits(cfg, cfg.data.holdout, ingredient)
    return calibration.calibrating_beta(holdout.logits_NC, holdout.labels_N)


def _logits(cfg: Config, ingredients: Sequence[Ingredient], method: str, name: str) -> Logits:
    """Of the ensemble, or of the soup of models whose heads carry their temperatures."""
    betas = [_beta(cfg, i) if method.startswith("calibrated") else 1.0 for i in ingredients]
    if method.endswith("ensemble"):
        each = [part_logits(cfg, name, i) for i in ingredients]
        mixed_NC = scores.ensemble([b * x.logits_NC for b, x in zip(betas, each, strict=True)])
        return Logits(name, mixed_NC, each[0].labels_N)
    states = [_tempered(weights_of(i), b) for i, b in zip(ingredients, betas, strict=True)]
    return forward_part(cfg, name, mix(states, {EVERYTHING: [1 / len(states)] * len(states)}))


def _tempered(state: State, beta: float) -> State:
    """A model whose logits are beta times those of the state: its head, weights and bias, times beta."""
    return state if beta == 1 else {k: t * beta if k.startswith("head.") else t for k, t in state.items()}


def _differences(bench: Bench, ingredients: tuple[Ingredient, ...]) -> Rows:
    """ECE on the test set: the mean of the models less the soup and the ensemble of all, and soup less ensemble."""
    found = {m: [_logits(bench.cfg, ingredients, m, bench.test)] for m in ("soup", "ensemble")}
    found["individuals"] = [bench.logits(i, bench.test) for i in ingredients]
    sides = {m: [calibration.confidence(x.logits_NC, x.labels_N) for x in all_] for m, all_ in found.items()}
    bins = _bins(found["soup"][0].labels_N)
    rows: Rows = []
    for one, two in (("individuals", "ensemble"), ("soup", "individuals"), ("soup", "ensemble")):
        value, low, high = calibration.ece_difference(sides[one], sides[two], bins)
        rows.append({"comparison": f"ECE, {one} - {two}", "test": {"value": value, "low": low, "high": high}})
    return rows


def _calibration_verdicts(rows: Rows) -> list[Verdict]:
    claims = (
        ("individuals - ensemble", "Ensembling improves calibration (ECE, mean of the models less the ensemble)"),
        ("soup - ensemble", "Souping improves calibration less than ensembling (ECE, soup less ensemble)"),
        ("soup - individuals", "Souping makes calibration no better, but worse (ECE, soup less mean of the models)"),
    )
    return [v for name, text in claims for v in compared(rows, f"ECE, {name}", "test", text, "Figure B.2")]


BUDGET = Analysis(
    "figure_G4",
    "Figure G.4. Seeds only",
    "appendix G",
    "With only the seed varied, soup and ensemble of CLIP models improve on the individuals and go together.",
    _budget,
    _budget_verdicts,
)
CALIBRATION = Analysis(
    "figure_B2",
    "Figure B.2. Calibration",
    "section 5, appendix B",
    "Like ensembling, souping improves accuracy; unlike ensembling, it does not improve calibration.",
    _calibration,
    _calibration_verdicts,
)
