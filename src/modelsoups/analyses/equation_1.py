"""The approximation (1) of the loss difference between soup and ensemble, against the truth (section 4, Figure K.1)."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups.analyses.analysis import Analysis, Rows, correlated, judged
from modelsoups.analyses.bench import OWN, Bench, Member, Unavailable, kept_path, weights_of
from modelsoups.analyses.forward import inputs_of, looked_at
from modelsoups.analyses.pairs import TOO_HIGH, spread
from modelsoups.config.schema import Config
from modelsoups.disk import storage
from modelsoups.experiment.logits import shell
from modelsoups.experiment.sets import open_set
from modelsoups.models.classifier import Classifier, normalise
from modelsoups.report.claims import Verdict
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import correlations, equation_1, projection, scores
from modelsoups.stats.calibration import calibrating_beta
from modelsoups.workers.processes import run_tasks, worker_count

STEP = 0.05  # of the finite differences, in alpha: half of the paper's, so that its points share their neighbours
CHECKED = 0.5  # where, on the test set, the second derivative is computed exactly too
Pair = tuple[str, Ingredient, str, Ingredient, float]  # names, models, the larger learning rate
Task = tuple[Pair, str]  # with a data set


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
    tasks = [(p, name) for p in pairs for name in bench.tests]
    todo = [t for t in tasks if _missing(bench.cfg, t, inner)]
    for _ in run_tasks(
        functools.partial(_compute, bench.cfg, inner),
        todo,
        worker_count(bench.cfg.finetune.parallel),
        "analyse: equation (1)",
    ):
        pass
    rows: Rows = []
    for (a, one, b, two, lr), name in tasks:
        for alpha in inner:
            content = storage.read_json(_path(bench.cfg, ((a, one, b, two, lr), name), alpha))
            moderate = lr < TOO_HIGH * bench.cfg.analyse.rates[0]
            rows.append({"a": a, "b": b, "lr": lr, "alpha": alpha, "dataset": name, "moderate": moderate, **content})
    return rows


def _path(cfg: Config, task: Task, alpha: float) -> Path:
    (_, one, _, two, _), name = task
    dataset = open_set(cfg.data.dir, name)
    images = len(looked_at(cfg, name, cfg.analyse.equation_images))
    key = [one.sha256, two.sha256, round(alpha, 9), dataset.sha256, images]
    return kept_path(cfg, key, "analyses/equation_1", "stats/equation_1", "stats/calibration")


def _missing(cfg: Config, task: Task, alphas: Sequence[float]) -> list[float]:
    return [alpha for alpha in alphas if not _path(cfg, task, alpha).exists()]


# ---- in the workers ----


def _compute(cfg: Config, alphas: Sequence[float], task: Task) -> None:
    """Both sides of equation (1) of a pair on a data set, and at CHECKED its second derivative exactly."""
    (_, one, _, two, _), name = task
    logits, exact, labels_N = _along(cfg, one, two, name)
    for alpha in _missing(cfg, task, alphas):
        first_NC, second_NC = equation_1.finite_differences(
            [logits(alpha + k * STEP) for k in equation_1.STENCIL], STEP
        )
        soup_NC, zero_NC, one_NC = logits(alpha), logits(0.0), logits(1.0)
        ensemble_NC = (1 - alpha) * zero_NC + alpha * one_NC
        found: dict[str, Any] = {"error": scores.accuracy(ensemble_NC, labels_N) - scores.accuracy(soup_NC, labels_N)}
        for label, beta in (("calibrated", calibrating_beta(soup_NC, labels_N)), ("plain", 1.0)):
            second = equation_1.curvature_of(soup_NC, first_NC, second_NC, labels_N, beta)
            both = equation_1.approximation(soup_NC, (zero_NC, one_NC), labels_N, alpha, second, beta)
            found[label] = {
                "beta": beta,
                "truth": both.truth,
                "value": both.value,
                "curvature": second,
                "variance": both.variance,
            }
        if alpha == CHECKED and name == cfg.data.test:
            found["exact"] = exact(alpha)
        storage.write_json(_path(cfg, task, alpha), found)


def _along(
    cfg: Config, one: Ingredient, two: Ingredient, name: str
) -> tuple[Callable[[float], Tensor], Callable[[float], float], Tensor]:
    """The soup's logits_NC at an alpha, each computed once; its loss's exact second derivative; labels_N (float64)."""
    dataset = open_set(cfg.data.dir, name)
    model = _double(cfg, len(dataset.classes))
    device = model.head.weight.device
    zero, end = ({k: _wide(t).to(device) for k, t in weights_of(i).items()} for i in (one, two))
    pixels_NCHW, labels_N = inputs_of(cfg, name, cfg.analyse.equation_images)
    parts = [normalise(model, part).double() for part in pixels_NCHW.split(cfg.evaluate.batch_size)]
    lines = [equation_1.line(model, zero, end, part) for part in parts]

    def projected(line: equation_1.Line) -> equation_1.Line:
        return lambda a: projection.project(line(a), dataset.projection)

    @functools.cache
    def at(alpha: float) -> Tensor:
        with torch.inference_mode():
            place = torch.tensor(alpha, dtype=torch.float64, device=device)
            return torch.cat([projected(line)(place).cpu() for line in lines])

    def exact(alpha: float) -> float:
        """A batch at a time: the mean of the batches', weighted by their images."""
        labels = labels_N.to(device).split(cfg.evaluate.batch_size)
        batches = zip(lines, labels, strict=True)
        each = [equation_1.curvature(projected(line), labels_B, alpha) * len(labels_B) for line, labels_B in batches]
        return sum(each) / len(labels_N)

    return (lambda alpha: at(round(alpha, 9))), exact, labels_N


def _wide(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


_DOUBLE: dict[str, Classifier] = {}


def _double(cfg: Config, classes: int) -> Classifier:
    """The experiment's classifier in float64, built once a process."""
    key = f"{cfg.model} {classes}"
    if key not in _DOUBLE:
        _DOUBLE[key] = copy.deepcopy(shell(cfg, classes)).double()
    return _DOUBLE[key]


def _verdicts(rows: Rows) -> list[Verdict]:
    kept = [r for r in rows if r["moderate"] and 0 < r["alpha"] < 1]
    models = [(r["a"], r["b"]) for r in kept]
    value = [r["calibrated"]["value"] for r in kept]
    truth = [r["calibrated"]["truth"] for r in kept]
    source = "section 4, Figure K.1"
    error = [r["error"] for r in kept]
    found = correlated("The approximation goes with the true difference in loss", source, value, truth, models)
    if any(v and t for v, t in zip(value, truth, strict=True)):
        signs = correlations.sign_agreement(value, truth, models)
        text = "Approximation and true difference in loss agree in sign (share above one half)"
        found.append(judged(text, source, signs.value - 0.5, signs.low - 0.5, signs.high - 0.5))
    text = "The approximation goes with the true difference in error"
    found += (goes := correlated(text, source, value, error, models))
    plain = [r["plain"]["value"] for r in kept]
    if goes and len(set(plain)) > 1:
        d = correlations.correlation_gain(value, plain, error, models)
        text = "With beta calibrated it goes with the difference in error better than with beta 1 (correlations)"
        found.append(judged(text, source, d.value, d.low, d.high, unit=""))
    checked = [r for r in rows if "exact" in r]
    exact, finite = ([r["exact"] for r in checked], [r["plain"]["curvature"] for r in checked])
    text = "Exact and finite-difference second derivatives agree (alpha 0.5)"
    return found + correlated(text, source, exact, finite, [(r["a"], r["b"]) for r in checked])


EQUATION_1 = Analysis(
    "figure_K1",
    "Section 4 and Figure K.1. Soup against ensemble, predicted",
    "section 4, appendix K",
    "Without the highest learning rate, approximation (1) is strongly correlated with the true difference in loss and "
    "in error, and mostly agrees in sign; with beta fixed to 1 it predicts the error far less well.",
    _rows,
    _verdicts,
)
