"""Soups against distillation, stochastic augmentation and fix-aug (Tables L.1 and L.2)."""

import functools
import math
from collections.abc import Sequence

from modelsoups.analyses.analysis import PAPER, Analysis, comparison
from modelsoups.analyses.appendix_l import Line, Recipe, beside_paper, line, made
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.figure_f1_grids import AUGMENTATIONS
from modelsoups.analyses.members import Unavailable, models_of
from modelsoups.analyses.points import Measures
from modelsoups.analyses.rows import Rows
from modelsoups.soup.coefficients import Ingredient

SOUP = "Soup of minimal, medium and strong aug"
FIXED = "Soup of minimal, medium, strong and fix aug"
RIVALS = {  # rows that the paper compares with SOUP -> their words in the claim
    "Individual model, stochastic aug": "stochastic augmentation",
    "Individual model, stochastic aug, 3x epochs": "stochastic augmentation for three times the epochs",
    "Distillation from the ensemble, no aug": "distillation from the ensemble",
    "Distillation from the ensemble, stochastic aug": "distillation with stochastic augmentation",
    "Individual model, fix aug": "fix-aug",
    "Individual model, fix aug, 4x epochs": "fix-aug for four times the epochs",
}


def _rows(bench: Bench, fix: bool) -> Rows:
    """Return the data rows of Table L.1 (distillation) or, if `fix`, of Table L.2 (fix-aug)."""
    bench = bench.whole()
    bench.evaluate(_compared(bench, [] if fix else _distilled_pools(bench)))
    rows: Rows = []
    for rate, lr in enumerate(bench.settings.rates):
        three = [{"lr": lr, "aug": aug} for aug in AUGMENTATIONS]
        lines = {f"Individual model, {r['aug']} aug": line(bench, "individual", r) for r in three}
        lines |= (_fix_lines if fix else _distillation_lines)(bench, lr, three)
        lines[SOUP] = line(bench, "soup", *three)
        table, found = made(bench, lines, rate, lr)
        rows += table + _comparisons(bench, found, lr)
    return rows


def _compared(bench: Bench, distilled: Sequence[str]) -> list[Ingredient]:
    """Return the models that the table may compare: of its learning rates, and all distilled ones."""
    names = [name for name in ("standard_lp", "augmentations", *distilled) if name in bench.runs]
    rates = bench.settings.rates
    compared = [m for m in bench.pool(*names) if m.pool in distilled or any(math.isclose(m.lr, lr) for lr in rates)]
    return models_of(compared)


def _comparisons(bench: Bench, found: dict[str, Measures], lr: float) -> Rows:
    pairs = [(SOUP, label, f"The soup of augmentations beats {name}") for label, name in RIVALS.items()]
    pairs.append((FIXED, SOUP, "The soup is better if it also contains the model with fix-aug"))
    rows: Rows = []
    for a, b, said in pairs:
        if a in found and b in found:
            measures = [(found[a], found[b])]
            rows.append(comparison(f"{a} - {b}", bench, measures, lr=lr, said=said))
    return rows


def _fix_lines(bench: Bench, lr: float, three: Sequence[Recipe]) -> dict[str, Line]:
    fix = {"lr": lr, "aug": "fix"}
    longer = {**fix, "epochs": 4 * bench.settings.epochs}
    return {
        "Individual model, fix aug": line(bench, "individual", fix),
        "Individual model, fix aug, 4x epochs": line(bench, "individual", longer),
        FIXED: line(bench, "soup", *three, fix),
    }


def _distillation_lines(bench: Bench, lr: float, three: Sequence[Recipe]) -> dict[str, Line]:
    stochastic = {"lr": lr, "aug": "stochastic"}
    longer = {**stochastic, "epochs": 3 * bench.settings.epochs}
    distillation = "Distillation from the ensemble"
    return {
        "Individual model, stochastic aug": line(bench, "individual", stochastic),
        "Individual model, stochastic aug, 3x epochs": line(bench, "individual", longer),
        f"{distillation}, no aug": functools.partial(_distilled, bench, lr, "minimal"),
        f"{distillation}, stochastic aug": functools.partial(_distilled, bench, lr, "stochastic"),
        "Ensemble of minimal, medium and strong aug": line(bench, "ensemble", *three),
    }


def _distilled(bench: Bench, lr: float, aug: str) -> Measures:
    """Evaluate the distilled model with this learning rate and augmentation on the test sets."""
    for member in bench.pool(*(_distilled_pools(bench) or ["distilled"])):
        if member.has({"lr": lr, "aug": aug}):
            bench.evaluate([member.ingredient])
            return bench.individual(member.ingredient)
    raise Unavailable(f"the analysis needs a model with lr={lr:g}, aug={aug} in a pool named distilled*")


def _distilled_pools(bench: Bench) -> list[str]:
    return [name for name in bench.runs if name.startswith("distilled")]


TABLE_L1 = Analysis(**PAPER["table_L1"], rows=functools.partial(_rows, fix=False), table=beside_paper)
TABLE_L2 = Analysis(**PAPER["table_L2"], rows=functools.partial(_rows, fix=True), table=beside_paper)
