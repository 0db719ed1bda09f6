"""Models that differ by their seed alone: calibration (Figure B.2), and soup and ensemble of 1 to k (Figure G.4)."""

from __future__ import annotations

from torch import Tensor

from modelsoups.analyse.bench import Bench, Member, Unavailable, mean_of
from modelsoups.analyse.curves import need_holdout
from modelsoups.analyse.finding import Analysis, Rows, accuracies, compared, comparison, judged
from modelsoups.analyse.forward import forward_part
from modelsoups.core import calibration, metrics
from modelsoups.core.types import EVERYTHING
from modelsoups.core.weights import State, mix
from modelsoups.pool import load_weights
from modelsoups.reporting.claims import OPEN, Verdict

METHODS = ("soup", "ensemble", "calibrated soup", "calibrated ensemble")


def _members(bench: Bench) -> list[Member]:
    members = bench.pool("seeds")
    if len(members) < 2:
        raise Unavailable("it needs two models that differ by their seed alone (analyse.pools.seeds)")
    bench.evaluate([m.ingredient for m in members])
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
    members, rows = _members(bench), []
    betas = [_beta(bench, m) for m in members]
    for k in range(1, len(members) + 1):
        for method in METHODS:
            scales = betas[:k] if method.startswith("calibrated") else [1.0] * k
            for name in bench.tests:
                logits_NC = _logits(bench, members[:k], method.rpartition(" ")[2], scales, name)
                labels_N = bench.logits(members[0].ingredient, name).labels_N
                rows.append(
                    {
                        "k": k,
                        "method": method,
                        "dataset": name,
                        "accuracy": metrics.accuracy(logits_NC, labels_N),
                        "ece": calibration.ece(logits_NC, labels_N, min(calibration.BINS, len(labels_N))),
                        "ece_sweep": calibration.ece_sweep(logits_NC, labels_N),
                        "loss": metrics.cross_entropy(logits_NC, labels_N),
                    }
                )
    for row in rows:
        row["role"] = "test" if row["dataset"] == bench.test else "shift"
    return rows


def _beta(bench: Bench, member: Member) -> float:
    """The inverse temperature that calibrates a model on the hold-out."""
    holdout = bench.logits(member.ingredient, bench.cfg.data.holdout)
    return calibration.calibrating_beta(holdout.logits_NC, holdout.labels_N)


def _logits(bench: Bench, members: list[Member], method: str, betas: list[float], name: str) -> Tensor:
    """Of the ensemble, or of the soup of models whose heads carry their temperatures."""
    if method == "ensemble":
        each = [b * bench.logits(m.ingredient, name).logits_NC for b, m in zip(betas, members, strict=True)]
        return metrics.ensemble(each)
    states = [_tempered(load_weights(m.ingredient), b) for m, b in zip(members, betas, strict=True)]
    state = mix(states, {EVERYTHING: [1 / len(states)] * len(states)})
    return forward_part(bench.cfg, name, state).logits_NC


def _tempered(state: State, beta: float) -> State:
    """A model whose logits are beta times those of the state: its head, weights and bias, times beta."""
    return state if beta == 1 else {k: t * beta if k.startswith("head.") else t for k, t in state.items()}


def _calibration_verdicts(rows: Rows) -> list[Verdict]:
    found = []
    last = max(r["k"] for r in rows)
    tested = [r for r in rows if r["role"] == "test"]

    def value(method: str, k: int, key: str) -> float:
        return float(next(r[key] for r in tested if r["method"] == method and r["k"] == k))

    singles = value("soup", 1, "ece")
    for method, text in (
        ("ensemble", "Ensembling improves calibration (ECE of one model less that of all seeds)"),
        ("soup", "Souping does not improve calibration (ECE of all seeds less that of one)"),
    ):
        gain = (singles - value(method, last, "ece")) * (1 if method == "ensemble" else -1)
        found.append(_plain(text, gain))
    return found


def _plain(text: str, gain: float) -> Verdict:
    """ECE has no simple interval: a change below half a point is not called."""
    v = judged(text, "Figure B.2", gain, gain - 0.005, gain + 0.005)
    return Verdict(v.text, v.source, v.verdict if abs(gain) > 0.005 else OPEN, f"{100 * gain:+.2f} points")


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
