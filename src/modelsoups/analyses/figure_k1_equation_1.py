"""Loss of soup minus ensemble: the estimate of equation (1) against the true value (Figure K.1).

Suffixes of tensors give their dimensions: N images, C classes.
"""

import copy
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from modelsoups.analyses.analysis import PAPER, Analysis, Verdicts, correlated, estimated, judged
from modelsoups.analyses.bench import Bench, kept
from modelsoups.analyses.members import OWN, Member, Unavailable
from modelsoups.analyses.pairs import moderate, spread, with_recipes
from modelsoups.analyses.rows import Rows, column, having, nested, pairs_of, select
from modelsoups.disk import storage
from modelsoups.models.classifier import normalise
from modelsoups.report.plotting import panels_of, rate_bar, scatter_by_rate
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import calibration, correlations, equation_1, scores
from modelsoups.stats.projection import project

STEP = 0.05  # of alpha, half of the paper's step; neighbouring alphas share evaluations
CHECKED = 0.5  # the alpha for which the second derivative on the test set is also computed exactly
SOURCE = "section 4, Figure K.1"
Pair = tuple[str, Ingredient, str, Ingredient, float]  # (name, model) twice, larger learning rate
Task = tuple[Pair, str]  # a pair and a data set
COLUMNS = (
    ("loss,\nall learning rates", False, "truth"),
    ("loss, without the\nhighest learning rate", True, "truth"),
    ("top-1 error, without the\nhighest learning rate", True, "error"),
)


def _pairs(bench: Bench) -> list[Pair]:
    """Return the paper's 21 pairs of models (appendix K.4) from the pool `theory`.

    Without that pool, return up to 21 pairs of the run's models, the initialization included.
    """
    own = "theory" not in bench.runs
    pool = OWN if own else "theory"
    start, members = bench.start(pool), with_recipes(bench, pool)
    pairs: list[Pair] = []
    for a, b in itertools.combinations(members, 2):
        if own or _paired(a, b):
            pairs.append((a.name, a.ingredient, b.name, b.ingredient, max(a.lr, b.lr)))
    for m in members:
        if own or _varied(m)["seed"] == 0:
            pairs.append(("initialization", start, m.name, m.ingredient, m.lr))
    return spread(pairs, 21)


def _varied(member: Member) -> dict[str, object]:
    """Return the values of the hyperparameters that vary within the pool `theory`."""
    recipe = member.ingredient.recipe
    assert recipe is not None
    return {"lr": recipe.lr, "aug": (recipe.aug, recipe.mixup), "seed": recipe.seed}


def _paired(one: Member, two: Member) -> bool:
    """Return whether two models differ only in seed, or (both with seed 0) only in lr or aug."""
    a, b = _varied(one), _varied(two)
    differ = [key for key in a if a[key] != b[key]]
    return differ == ["seed"] or (len(differ) == 1 and a["seed"] == b["seed"] == 0)


def _rows(bench: Bench) -> Rows:
    pairs = _pairs(bench)
    if not pairs:
        raise Unavailable("the analysis needs two models whose hyperparameters are known")
    tasks = list(itertools.product(pairs, bench.tests))
    todo = [task for task in tasks if not all(map(Path.exists, _paths(bench, task).values()))]
    bench.run_tasks(_compute, todo, "equation (1)")
    rows: Rows = []
    for (a, one, b, two, lr), name in tasks:
        row = {"a": a, "b": b, "lr": lr}
        more = {"dataset": name, "moderate": moderate(bench, lr)}
        for alpha, path in _paths(bench, ((a, one, b, two, lr), name)).items():
            rows.append({**row, "alpha": alpha, **more, **storage.read_json(path)})
    return rows


def _paths(bench: Bench, task: Task) -> dict[float, Path]:
    """Return alpha -> result file. Alphas 0 and 1 are left out, as equation (1) is zero there."""
    (_, one, _, two, _), name = task
    images = len(bench.images.positions(name, bench.settings.equation_images))
    dataset = bench.images.dataset(name).sha256
    found = {}
    for alpha in bench.settings.alphas:
        if 0 < alpha < 1:
            key = [one.sha256, two.sha256, round(alpha, 9), dataset, images]
            modules = (__name__, equation_1.__name__, calibration.__name__)
            found[alpha] = bench.kept_path(key, *modules)
    return found


# ---- functions that run in the workers ----


def _compute(bench: Bench, task: Task) -> None:
    """Save both sides of equation (1) by alpha; at alpha 0.5 also the exact second derivative."""
    (_, one, _, two, _), name = task
    logits, exact, labels_N = _along(bench, one, two, name)
    for alpha, path in _paths(bench, task).items():
        checked = exact if alpha == CHECKED and name == bench.test else None
        kept(path, functools.partial(_both_sides, logits, labels_N, alpha, checked))


def _both_sides(
    logits: Callable[[float], Tensor], labels_N: Tensor, alpha: float, exact: Callable[[float], float] | None
) -> dict[str, Any]:
    nearby = [logits(alpha + k * STEP) for k in equation_1.STENCIL]
    first_NC, second_NC = equation_1.finite_differences(nearby, STEP)
    soup_NC, zero_NC, one_NC = logits(alpha), logits(0.0), logits(1.0)
    ensemble_NC = (1 - alpha) * zero_NC + alpha * one_NC
    gain = scores.accuracy(ensemble_NC, labels_N) - scores.accuracy(soup_NC, labels_N)
    found: dict[str, Any] = {"error": gain}
    calibrated = calibration.calibrating_beta(soup_NC, labels_N)
    for label, beta in (("calibrated", calibrated), ("plain", 1.0)):
        second = equation_1.curvature_of(soup_NC, first_NC, second_NC, labels_N, beta)
        both = equation_1.approximation(soup_NC, (zero_NC, one_NC), labels_N, alpha, second, beta)
        found[label] = {"beta": beta, "truth": both.truth, "value": both.value}
        found[label] |= {"curvature": second, "variance": both.variance}
    return found if exact is None else {**found, "exact": exact(alpha)}


def _along(
    bench: Bench, one: Ingredient, two: Ingredient, name: str
) -> tuple[Callable[[float], Tensor], Callable[[float], float], Tensor]:
    """Return two functions of alpha for soups (1 - alpha) * one + alpha * two, and the labels (N,).
    In float64, they compute the logits (N, C) and the exact second derivative of the loss in alpha.
    """
    model = copy.deepcopy(bench.images.classifier(name)).double()
    device = model.head.weight.device
    zero, end = _wide(bench.weights(one), device), _wide(bench.weights(two), device)
    pixels, labels_N = bench.images.batches(name, bench.settings.equation_images)
    projection = bench.images.dataset(name).projection

    def line(pixels_BCHW: Tensor) -> equation_1.Line:
        raw = equation_1.line(model, zero, end, normalise(model, pixels_BCHW).double())
        return lambda alpha: project(raw(alpha), projection)

    lines = list(map(line, pixels))

    @functools.cache
    def at(alpha: float) -> Tensor:
        with torch.inference_mode():
            place = torch.tensor(alpha, dtype=torch.float64, device=device)
            return torch.cat([logits(place).cpu() for logits in lines])

    def exact(alpha: float) -> float:
        """Return the second derivative in alpha of the mean loss over all images."""
        total, labels = 0.0, labels_N.to(device).split(list(map(len, pixels)))
        for logits, labels_B in zip(lines, labels, strict=True):
            total += equation_1.curvature(logits, labels_B, alpha) * len(labels_B)
        return total / len(labels_N)

    return (lambda alpha: at(round(alpha, 9))), exact, labels_N


def _wide(state: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {k: (t.double() if t.is_floating_point() else t).to(device) for k, t in state.items()}


# ---- functions that read only rows ----


def _verdicts(rows: Rows) -> Verdicts:
    inner = select(rows, moderate=True)
    models, error = pairs_of(inner), column(inner, "error")
    value, plain = nested(inner, "calibrated", "value"), nested(inner, "plain", "value")
    truth = nested(inner, "calibrated", "truth")
    text = "The approximation is correlated with the true difference in loss"
    found = correlated(text, SOURCE, value, truth, models)
    if any(v and t for v, t in zip(value, truth, strict=True)):
        signs = estimated(correlations.sign_agreement(value, truth, models))
        above_half = {key: share - 0.5 for key, share in signs.items()}
        text = "Approximation and true difference in loss agree in sign (for more than half of the points)"
        found.append(judged(text, SOURCE, above_half))
    text = "The approximation is correlated with the true difference in error"
    found += (goes := correlated(text, SOURCE, value, error, models))
    if goes and len(set(plain)) > 1:
        d = estimated(correlations.correlation_gain(value, plain, error, models))
        text = "The approximation is better correlated with the error difference if beta is calibrated than if it is 1"
        found.append(judged(text, SOURCE, d, unit=""))
    checked = having(rows, "exact")
    exact, finite = column(checked, "exact"), nested(checked, "plain", "curvature")
    text = "Exact and finite-difference second derivatives agree (alpha 0.5)"
    return found + correlated(text, SOURCE, exact, finite, pairs_of(checked))


def _draw(rows: Rows) -> Figure:
    """Draw a row of panels with calibrated beta and, below it, the same panels with beta = 1."""
    figure, panels = panels_of(3, 2.5, 2.3, 2)
    rates, places = column(rows, "lr"), iter(panels)
    for kind, label in (("calibrated", r"$\beta$ calibrated"), ("plain", r"$\beta=1$")):
        for title, only_moderate, against in COLUMNS:
            here = select(rows, moderate=True) if only_moderate else rows
            x, panel = nested(here, kind, "value"), next(places)
            y = nested(here, kind, "truth") if against == "truth" else column(here, "error", 100)
            dots = scatter_by_rate(panel, x, y, column(here, "lr"), rates, s=5, linewidths=0)
            _frame(panel, against)
            panel.set_title(f"{title}\n{label}", fontsize=7.5)
            if kind == "plain":
                panel.set_xlabel("approximation (1)")
    rate_bar(figure, dots, panels, rates, "larger learning rate of the two")
    return figure


def _frame(panel: Axes, against: str) -> None:
    """Draw lines at zero, the vertical axis label and, in panels of the loss, the diagonal."""
    panel.axhline(0, color="grey", linewidth=0.6)
    panel.axvline(0, color="grey", linewidth=0.6)
    if against == "truth":
        panel.axline((0, 0), slope=1, color="grey", linewidth=0.6, linestyle="--")
    what = "error (points)" if against == "error" else "loss (nats)"
    panel.set_ylabel(f"soup - ensemble, {what}")
    panel.tick_params(labelsize=6)


EQUATION_1 = Analysis(**PAPER["figure_K1"], rows=_rows, judge=_verdicts, draw=_draw)
