"""The approximation (1) of the loss difference between soup and ensemble, against the truth (section 4, Figure K.1)."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from torch import Tensor

from modelsoups import runs
from modelsoups.analyse.bench import OWN, Bench, Member, Unavailable, weights_of
from modelsoups.analyse.finding import Analysis, Rows, correlated, judged
from modelsoups.analyse.forward import forward_part, inputs_of, looked_at
from modelsoups.analyse.pairs import TOO_HIGH, spread
from modelsoups.core import approximation as eq1
from modelsoups.core import metrics, relations, weights
from modelsoups.core.calibration import calibrated_loss, calibrating_beta
from modelsoups.core.types import Ingredient
from modelsoups.evaluate import normalise, open_set, shell, workers
from modelsoups.parallel import run_tasks
from modelsoups.reporting.claims import Verdict
from modelsoups.schema import Config

STEP = 0.05  # of the finite differences, in alpha: float32 logits allow no smaller one
Pair = tuple[str, Ingredient, str, Ingredient, float]  # names, models, the larger learning rate
Task = tuple[Pair, float, str]


def _pairs(bench: Bench) -> list[Pair]:
    """The paper's 21 (K.4) of the pool `theory`; else the run's own models in pairs and with the initialization."""
    own = "theory" not in bench.configs
    members = bench.pool(OWN) if own else bench.pool("theory")
    start = bench.start(OWN if own else "theory")
    members = [m for m in members if m.ingredient.recipe is not None]
    chosen = [(a, b) for a, b in itertools.combinations(members, 2) if own or _paired(a, b)]
    pairs = [(a.name, a.ingredient, b.name, b.ingredient, max(a.lr, b.lr)) for a, b in chosen]
    first = members if own else [m for m in members if _recipe(m)["seed"] == 0]
    pairs += [("initialization", start, m.name, m.ingredient, m.lr) for m in first]
    return spread(pairs, 21)


def _recipe(member: Member) -> dict[str, object]:
    recipe = member.ingredient.recipe
    assert recipe is not None
    return {"lr": recipe.lr, "aug": (recipe.aug, recipe.mixup), "seed": recipe.seed}


def _paired(one: Member, two: Member) -> bool:
    """Differing in one thing alone: learning rate or augmentation at seed 0, or the seed."""
    a, b = _recipe(one), _recipe(two)
    differ = [key for key in a if a[key] != b[key]]
    return differ == ["seed"] or (len(differ) == 1 and a["seed"] == b["seed"] == 0)


def _rows(bench: Bench) -> Rows:
    pairs = _pairs(bench)
    if not pairs:
        raise Unavailable("it needs two models with a recipe")
    inner = [alpha for alpha in bench.cfg.analyse.alphas if 0 < alpha < 1]  # at the ends both sides are zero
    tasks = [(p, alpha, name) for p in pairs for alpha in inner for name in bench.tests]
    todo = [t for t in tasks if not bench.cfg.run.point(_key(bench.cfg, t)).exists()]
    for _ in run_tasks(functools.partial(_compute, bench.cfg), todo, workers(bench.cfg), "analyse: equation (1)"):
        pass
    rows: Rows = []
    for task in tasks:
        (a, _, b, _, lr), alpha, name = task
        content = runs.read_json(bench.cfg.run.point(_key(bench.cfg, task)))
        rows.append(
            {
                "a": a,
                "b": b,
                "lr": lr,
                "alpha": alpha,
                "dataset": name,
                "moderate": lr < TOO_HIGH * bench.cfg.analyse.rates[0] * 0.999,
                **content,
            }
        )
    return rows


def _key(cfg: Config, task: Task) -> str:
    (_, one, _, two, _), alpha, name = task
    dataset = open_set(cfg.data.dir, name)
    images = len(looked_at(cfg, name, cfg.analyse.equation_images))
    return runs.fingerprint(["equation 1", one.sha256, two.sha256, round(alpha, 9), dataset.sha256, images, STEP])


def _compute(cfg: Config, task: Task) -> None:
    (_, one, _, two, _), alpha, name = task
    pixels_NCHW, labels_N = inputs_of(cfg, name, cfg.analyse.equation_images)
    parts = pixels_NCHW.split(cfg.evaluate.batch_size)
    ends = (weights_of(one), weights_of(two))

    def logits(a: float) -> Tensor:
        return forward_part(cfg, name, weights.interpolate(*ends, a), cfg.analyse.equation_images).logits_NC

    soup_NC, zero_NC, one_NC = logits(alpha), logits(0.0), logits(1.0)
    ensemble_NC = (1 - alpha) * zero_NC.double() + alpha * one_NC.double()
    found: dict[str, Any] = {"error": metrics.accuracy(ensemble_NC, labels_N) - metrics.accuracy(soup_NC, labels_N)}
    beta = calibrating_beta(soup_NC, labels_N)
    for label, b in (("calibrated", beta), ("plain", 1.0)):
        second = _curvature(cfg, name, ends, parts, labels_N, alpha, b)
        both = eq1.approximation(soup_NC, zero_NC, one_NC, labels_N, alpha, second, b)
        found[label] = {
            "beta": b,
            "truth": both.truth,
            "value": both.value,
            "curvature": second,
            "variance": both.variance,
        }
    if alpha == 0.5:
        found["finite_difference"] = eq1.finite_difference(lambda a: calibrated_loss(logits(a), labels_N), alpha, STEP)
    runs.write_json(cfg.run.point(_key(cfg, task)), found)


def _curvature(
    cfg: Config,
    name: str,
    ends: tuple[dict[str, Tensor], dict[str, Tensor]],
    parts: tuple[Tensor, ...],
    labels_N: Tensor,
    alpha: float,
    beta: float,
) -> float:
    """d^2 loss / d alpha^2, a batch at a time: the mean of the batches', weighted by their images."""
    dataset = open_set(cfg.data.dir, name)
    model = shell(cfg, len(dataset.classes))
    device = model.head.weight.device
    zero, one = ({k: t.to(device) for k, t in state.items()} for state in ends)
    total = 0.0
    for part, labels_B in zip(parts, labels_N.split(len(parts[0])), strict=True):
        inner = eq1.line(model, zero, one, normalise(model, part))

        def projected(a: Tensor, inner: eq1.Line = inner) -> Tensor:
            return metrics.project(inner(a), dataset.projection)

        total += eq1.curvature(projected, labels_B.to(device), alpha, beta) * len(part)
    return total / len(labels_N)


def _verdicts(rows: Rows) -> list[Verdict]:
    kept = [r for r in rows if r["moderate"] and 0 < r["alpha"] < 1]
    models = [(r["a"], r["b"]) for r in kept]
    value = [r["calibrated"]["value"] for r in kept]
    truth = [r["calibrated"]["truth"] for r in kept]
    source = "section 4, Figure K.1"
    error = [r["error"] for r in kept]
    found = correlated("The approximation goes with the true difference in loss", source, value, truth, models)
    if any(v and t for v, t in zip(value, truth, strict=True)):
        signs = relations.sign_agreement(value, truth, models)
        text = "Approximation and true difference in loss agree in sign (share above one half)"
        found.append(judged(text, source, signs.value - 0.5, signs.low - 0.5, signs.high - 0.5))
    found += correlated(
        "The approximation goes with the difference in error, beta calibrated", source, value, error, models
    )
    plain = [r["plain"]["value"] for r in kept]
    found += correlated("The approximation goes with the difference in error, beta 1", source, plain, error, models)
    exact, finite = (
        zip(*((r["plain"]["curvature"], r["finite_difference"]) for r in rows if "finite_difference" in r), strict=True)
        if any("finite_difference" in r for r in rows)
        else ((), ())
    )
    return found + correlated(
        "Exact and finite-difference second derivatives agree (alpha 0.5)",
        source,
        exact,
        finite,
        [(r["a"], r["b"]) for r in rows if "finite_difference" in r],
    )


EQUATION_1 = Analysis(
    "figure_K1",
    "Section 4 and Figure K.1. Soup against ensemble, predicted",
    "section 4, appendix K",
    "Without the highest learning rate, approximation (1) is strongly correlated with the true difference in loss and "
    "in error, and mostly agrees in sign; with beta fixed to 1 it predicts the error far less well.",
    _rows,
    _verdicts,
)
