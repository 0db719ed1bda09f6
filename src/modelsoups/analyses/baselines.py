"""Appendix L: distillation, stochastic and fix augmentation, EMA and SWA, SAM, each with its soups."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from modelsoups.analyses.analysis import Analysis, Rows, accuracies, compared, comparison
from modelsoups.analyses.bench import Bench, Measures, Member, Unavailable, mean_of
from modelsoups.report.claims import Verdict
from modelsoups.train.averages import average_name

THREE = ("minimal", "medium", "strong")
PAPER = {  # ImageNet and mean of shifts, for the larger and the smaller learning rate (Tables L.1, L.2)
    "Individual model, minimal aug": ((76.42, 43.21), (77.19, 47.98)),
    "Individual model, medium aug": ((78.83, 43.55), (79.51, 46.74)),
    "Individual model, strong aug": ((79.08, 43.75), (79.33, 46.62)),
    "Individual model, stochastic aug": ((78.94, 45.04), (79.48, 48.07)),
    "Individual model, stochastic aug, 3x epochs": ((78.38, 42.18), (79.59, 46.89)),
    "Distillation from the ensemble, no aug": ((78.59, 43.45), (79.13, 47.28)),
    "Distillation from the ensemble, stochastic aug": ((79.79, 45.63), (79.88, 47.49)),
    "Soup of minimal, medium and strong aug": ((80.24, 47.97), (80.08, 49.75)),
    "Ensemble of minimal, medium and strong aug": ((80.19, 46.33), (80.17, 49.36)),
    "Individual model, fix aug": ((79.43, 45.46), (79.70, 48.18)),
    "Individual model, fix aug, 4x epochs": ((78.57, 41.53), (79.96, 45.86)),
    "Soup of minimal, medium, strong and fix aug": ((80.41, 48.14), (80.17, 49.71)),
    "Vanilla fine-tuning, seed 0": ((79.32, 45.09),),
    "Vanilla fine-tuning, seed 1": ((79.16, 45.12),),
    "SAM fine-tuning, seed 0": ((79.61, 43.78),),
    "SAM fine-tuning, seed 1": ((79.59, 43.79),),
    "Soup of vanilla fine-tuning, seeds 0 and 1": ((79.78, 46.46),),
    "Soup of SAM fine-tuning, seeds 0 and 1": ((79.85, 44.44),),
    "Soup of vanilla and SAM fine-tuning, seed 0": ((80.04, 45.38),),
}
Line = tuple[str, Callable[[], Measures]]


def _table(bench: Bench, rate: int, lines: Sequence[Line]) -> tuple[Rows, dict[str, Measures]]:
    """A row a line that can be made; what cannot is a row that says why."""
    rows: Rows = []
    found: dict[str, Measures] = {}
    lr = bench.cfg.analyse.rates[rate]
    for label, make in lines:
        paper = dict(zip(("paper_test", "paper_shifts"), PAPER[label][rate], strict=True))
        try:
            found[label] = make()
        except Unavailable as error:
            rows.append({"row": label, "lr": lr, "missing": str(error), **paper})
        else:
            rows.append({"row": label, "lr": lr, **accuracies(bench, found[label]), **paper})
    if not found:
        raise Unavailable(str(rows[0]["missing"]) if rows else "nothing to show")
    return rows, found


def _one(bench: Bench, **wanted: Any) -> Callable[[], Measures]:
    return lambda: _individual(bench, bench.find("lp", **wanted))


def _individual(bench: Bench, member: Member) -> Measures:
    bench.evaluate([member.ingredient])
    return bench.individual(member.ingredient)


def _soup(bench: Bench, *specs: dict[str, Any]) -> Callable[[], Measures]:
    return lambda: bench.measure([mean_of([bench.find("lp", **s) for s in specs])], "appendix L")[0]


def _ensemble(bench: Bench, *specs: dict[str, Any]) -> Callable[[], Measures]:
    def make() -> Measures:
        members = [bench.find("lp", **s).ingredient for s in specs]
        bench.evaluate(members)
        return bench.ensemble(members)

    return make


SOUP = "Soup of minimal, medium and strong aug"
FIXED = "Soup of minimal, medium, strong and fix aug"
RIVALS = {  # what the paper compares that soup with, and what it calls it
    "Individual model, stochastic aug": "stochastic augmentation",
    "Individual model, stochastic aug, 3x epochs": "stochastic augmentation for three times the epochs",
    "Distillation from the ensemble, no aug": "distillation from the ensemble",
    "Distillation from the ensemble, stochastic aug": "distillation with stochastic augmentation",
    "Individual model, fix aug": "fix-aug",
    "Individual model, fix aug, 4x epochs": "fix-aug for four times the epochs",
}


def _augmentations(bench: Bench, fix: bool) -> Rows:
    """Table L.1 (distillation and stochastic augmentation) or L.2 (fix-aug)."""
    wanted = ("standard_lp", "augmentations") if fix else ("standard_lp", "augmentations", *_distilled_pools(bench))
    bench.evaluate([m.ingredient for m in bench.pool(*(name for name in wanted if name in bench.configs))])
    rows: Rows = []
    for rate, lr in enumerate(bench.cfg.analyse.rates):
        three = [{"lr": lr, "aug": aug} for aug in THREE]
        lines: list[Line] = [(f"Individual model, {s['aug']} aug", _one(bench, **s)) for s in three]
        lines += _fix_lines(bench, lr, three) if fix else _distillation_lines(bench, lr, three)
        made, found = _table(bench, rate, [*lines, (SOUP, _soup(bench, *three))])
        rows += made
        pairs = [(SOUP, label, f"The soup of augmentations beats {said}") for label, said in RIVALS.items()]
        pairs.append((FIXED, SOUP, "With fix-aug in it the soup is better than without"))
        rows += [
            {"lr": lr, "said": said, **comparison(f"{a} - {b}", bench, [(found[a], found[b])])}
            for a, b, said in pairs
            if a in found and b in found
        ]
    return rows


def _fix_lines(bench: Bench, lr: float, three: list[dict[str, Any]]) -> list[Line]:
    fix, epochs = {"lr": lr, "aug": "fix"}, bench.cfg.analyse.epochs
    return [
        ("Individual model, fix aug", _one(bench, **fix)),
        ("Individual model, fix aug, 4x epochs", _one(bench, **fix, epochs=4 * epochs)),
        (FIXED, _soup(bench, *three, fix)),
    ]


def _distillation_lines(bench: Bench, lr: float, three: list[dict[str, Any]]) -> list[Line]:
    stochastic, epochs = {"lr": lr, "aug": "stochastic"}, bench.cfg.analyse.epochs
    return [
        ("Individual model, stochastic aug", _one(bench, **stochastic)),
        ("Individual model, stochastic aug, 3x epochs", _one(bench, **stochastic, epochs=3 * epochs)),
        ("Distillation from the ensemble, no aug", _distilled(bench, lr, "minimal")),
        ("Distillation from the ensemble, stochastic aug", _distilled(bench, lr, "stochastic")),
        ("Ensemble of minimal, medium and strong aug", _ensemble(bench, *three)),
    ]


def _distilled(bench: Bench, lr: float, aug: str) -> Callable[[], Measures]:
    """The model of a pool whose name begins with distilled, with this rate and augmentation."""

    def make() -> Measures:
        for member in bench.pool(*(_distilled_pools(bench) or ["distilled"])):
            recipe = member.ingredient.recipe
            if recipe is not None and recipe.aug == aug and abs(recipe.lr - lr) <= 1e-6 * lr:
                return _individual(bench, member)
        raise Unavailable(f"no pool named distilled... has a model with lr={lr:g}, aug={aug}")

    return make


def _distilled_pools(bench: Bench) -> list[str]:
    return [name for name in bench.configs if name.startswith("distilled")]


def _sam(bench: Bench) -> Rows:
    members = bench.pool("sam")
    bench.evaluate([m.ingredient for m in members])
    recipe = next((m.ingredient.recipe for m in members if m.ingredient.recipe and m.ingredient.recipe.sam), None)
    if recipe is None:
        raise Unavailable("the pool sam has no model with recipe.sam above 0")
    lr, radius = recipe.lr, recipe.sam
    vanilla = [{"lr": lr, "aug": recipe.aug, "seed": seed} for seed in (0, 1)]
    sam = [{**spec, "sam": radius} for spec in vanilla]
    lines = [(f"Vanilla fine-tuning, seed {i}", _one(bench, **vanilla[i])) for i in (0, 1)]
    lines += [(f"SAM fine-tuning, seed {i}", _one(bench, **sam[i])) for i in (0, 1)]
    lines += [
        ("Soup of vanilla fine-tuning, seeds 0 and 1", _soup(bench, *vanilla)),
        ("Soup of SAM fine-tuning, seeds 0 and 1", _soup(bench, *sam)),
        ("Soup of vanilla and SAM fine-tuning, seed 0", _soup(bench, vanilla[0], sam[0])),
    ]
    rows, found = _table(bench, 0, lines)
    rows = [{**row, "lr": lr} for row in rows]
    if len(found) < len(lines):
        return rows
    vanilla_, sam_ = ([found[label] for label, _ in lines[i : i + 2]] for i in (0, 2))
    soups = {name: found[label] for name, (label, _) in zip(("vanilla", "SAM", "mixed"), lines[4:], strict=True)}
    gains = [*((soups["vanilla"], m) for m in vanilla_), *((m, soups["SAM"]) for m in sam_)]
    pairs: list[tuple[str, list[tuple[Measures, Measures]]]] = [
        ("SAM improves over vanilla fine-tuning", list(zip(sam_, vanilla_, strict=True))),
        ("The soup of two SAM models improves over the two", [(soups["SAM"], m) for m in sam_]),
        ("The soup of two vanilla models improves over the two", [(soups["vanilla"], m) for m in vanilla_]),
        ("Souping gains less with SAM than with vanilla fine-tuning (half of the difference)", gains),
        ("The soup of a vanilla and a SAM model beats that of two vanilla ones", [(soups["mixed"], soups["vanilla"])]),
        ("The soup of a vanilla and a SAM model beats that of two SAM ones", [(soups["mixed"], soups["SAM"])]),
    ]
    return rows + [{"said": said, **comparison(said, bench, of)} for said, of in pairs]


# ---- Figures L.1 and L.2: averages along the run ----


def _trajectory(bench: Bench, pool: str) -> Rows:
    members = bench.pool(pool, averages=True)
    if bench.configs[pool].model != bench.cfg.model:
        bench = Bench(bench.configs[pool], {})  # which builds and evaluates that pool's own model
    bench.evaluate([m.ingredient for m in members])
    groups: dict[tuple[str, float, str], list[Member]] = {}
    for m in members:
        assert m.ingredient.recipe is not None
        groups.setdefault((m.ingredient.recipe.schedule, m.lr, m.average), []).append(m)
    soups = bench.measure([mean_of(group) for group in groups.values()], "averages along the run")
    rows: Rows = []
    for (schedule, lr, average), group, soup in zip(groups, groups.values(), soups, strict=True):
        key = {"schedule": schedule, "lr": lr, "average": average or "none"}
        each = [bench.individual(m.ingredient) for m in group]
        for m, measures in zip(group, each, strict=True):
            aug = m.ingredient.recipe.aug if m.ingredient.recipe else None
            rows.append({**key, "model": aug, **accuracies(bench, measures)})
        rows.append({**key, "model": "soup", **accuracies(bench, soup)})
        said = f"The soup improves over the mean of its models ({schedule.replace('_', ' ')}, {average_name(average)})"
        rows.append({**key, "said": said, **comparison("soup - individuals", bench, [(soup, one) for one in each])})
    return rows


def _verdicts(rows: Rows, source: str) -> list[Verdict]:
    found = []
    for row in rows:
        if "comparison" in row:
            lr = f", learning rate {row['lr']:.1e}" if "lr" in row else ""
            for on, where in (("test", "in distribution"), ("shifts", "under shift")):
                found += compared([row], row["comparison"], on, f"{row['said']}, {where}{lr}", source)
    return found


def _analysis(name: str, title: str, paper: str, rows: Callable[[Bench], Rows]) -> Analysis:
    source = title.partition(". ")[0]  # of "Table L.1. Distillation"
    return Analysis(name, title, "appendix L", paper, rows, functools.partial(_verdicts, source=source))


TABLE_L1 = _analysis(
    "table_L1",
    "Table L.1. Distillation",
    "Soups of three augmentations compare favourably with "
    "distillation from their ensemble and with stochastic augmentation.",
    functools.partial(_augmentations, fix=False),
)
TABLE_L2 = _analysis(
    "table_L2",
    "Table L.2. Fix-aug",
    "The soup of augmentations beats fix-aug, also with four times "
    "the epochs; adding fix-aug to the soup helps a little.",
    functools.partial(_augmentations, fix=True),
)
TABLE_L3 = _analysis(
    "table_L3",
    "Table L.3. Sharpness-aware minimization",
    "SAM improves accuracy over vanilla fine-tuning; souping two models trained with SAM improves over either, by less "
    "than for vanilla fine-tuning; souping one of each is better than two of a kind.",
    _sam,
)
TRAJECTORY = _analysis(
    "figure_L1",
    "Figure L.1. EMA and SWA",
    "EMA and SWA can improve a single model; soups improve on models that are averages along their run already.",
    functools.partial(_trajectory, pool="trajectory"),
)
TRAJECTORY_LABELS = _analysis(
    "figure_L2",
    "Figure L.2. EMA and SWA, pre-trained on labels",
    "The same holds for a model that was pre-trained on ImageNet-21k's labels, not on captions.",
    functools.partial(_trajectory, pool="trajectory_labels"),
)
