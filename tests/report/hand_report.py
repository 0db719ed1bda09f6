"""A hand-made Evidence with numbers that can be worked out by hand, and its page."""

from pathlib import Path

import numpy as np

from modelsoups.data.crops import CropStore
from modelsoups.recipes.recipe import Recipe
from modelsoups.report import claims, experiment_sections, figures, plotting, templates
from modelsoups.report.measure import Evidence, RowOutcomes
from modelsoups.report.numbers import Numbers, SetInfo
from modelsoups.report.result_lines import result_lines
from modelsoups.soup.coefficients import Soup
from modelsoups.tasks.images import ImageClassification

NASTY = "<script>alert(1)</script> & $x_1$ | **bold** %"
SHIFTS = ["v2", "r"]


def correct(n, k):
    """The first k of n images right."""
    return np.arange(n) < k


def row(name, test, v2, r, kind="soup", **more):
    by_set = {"holdout": correct(50, test // 2), "test": correct(100, test)}
    by_set |= {"v2": correct(10, v2), "r": correct(20, r)}
    return RowOutcomes(name, kind, by_set, **more)


def recipe(lr):
    return Recipe(lr, 0.1, 4, 0.0, 0.0, "minimal", 0, 64, 40, 1.0)


def evidence(**changes):
    soup = Soup("greedy", ("000", "001"), ("a" * 64, "b" * 64), {"*": [0.5, 0.5]},
                trace=({"ingredient": "000", "correct": 30, "n": 50, "kept": True, "best": 30},))  # fmt: skip
    individuals = {"000": row("000", 60, 5, 8, "individual", recipe=recipe(1e-4)),
                   "001": row("001", 50, 4, 6, "individual", recipe=recipe(1e-3))}  # fmt: skip
    rows = {
        "initialization": row("initialization", 40, 5, 10, "initialization"),
        "best": row("best", 60, 5, 8, "individual"),
        "second_best": row("second_best", 50, 4, 6, "individual"),
        "uniform": row("uniform", 58, 6, 9),
        "greedy": row("greedy", 70, 6, 9, soup=soup),
        "greedy_random_0": row("greedy_random_0", 60, 6, 9),
        "greedy_random_1": row("greedy_random_1", 64, 6, 11),
        "ensemble": row("ensemble", 66, 5, 9, "ensemble", inference=2),
        "wise_ft_best_0.5": row("wise_ft_best_0.5", 55, 7, 12, "interpolation"),
    }
    sets = [SetInfo("holdout", "Hold", "holdout", 50), SetInfo("test", "Test", "test", 100),
            SetInfo("v2", "V2", "shift", 10), SetInfo("r", "R", "shift", 20)]  # fmt: skip
    curve = {k: {m: rows[m] for m in ("best", "uniform", "greedy", "ensemble")} for k in (1, 2)}
    fields = {"name": "hand", "sets": sets, "rows": rows, "individuals": individuals, "curve": curve, "failed": {},
              "contact": {"Test": np.zeros((3, 4, 4, 3), np.uint8)}, "timings": {"prepare": 1.5},
              "provenance": {}}  # fmt: skip
    return Evidence(**{**fields, **changes})


def images():
    """The task of the page: it scores by the images that are right."""
    return ImageClassification(CropStore(Path("none")), 128)


def numbers_of(evidence):
    return Numbers(result_lines(images(), evidence), evidence.provenance)


def html(numbers):
    verdicts = claims.check(numbers)
    with plotting.style(math=False):
        sheet = figures.contact_sheet(evidence().contact)
        made = experiment_sections.sections(numbers, verdicts, plotting.save(sheet, "png"))
        title = f"Model soups: {numbers.name}"
        return templates.render("report.html", title=title, sections=made, links=[])
