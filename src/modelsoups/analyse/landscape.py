"""Error landscapes on the plane through the initialization and two fine-tunes (Figures 2 and J.1)."""

from __future__ import annotations

from modelsoups.analyse.bench import OWN, Bench, Member, Point, Unavailable, weights_of
from modelsoups.analyse.finding import Analysis, Rows, counted
from modelsoups.core.plane import Plane, plane
from modelsoups.core.types import Ingredient
from modelsoups.reporting.claims import Verdict


def _rows(bench: Bench) -> Rows:
    rows: Rows = []
    for name, start, one, two in _triples(bench):
        states = [weights_of(i) for i in (start, one.ingredient, two.ingredient)]
        rows += _landscape(bench, name, (start, one.ingredient, two.ingredient), plane(*states))
    return rows


def _triples(bench: Bench) -> list[tuple[str, Ingredient, Member, Member]]:
    """Two seeds of a rate, and that rate with ten times less and ten times more; else two models of the run itself."""
    rate = bench.cfg.analyse.rates[0]
    for init in ("zeroshot", "lp"):
        try:
            one, twin = (bench.find(init, lr=rate, aug="minimal", seed=seed) for seed in (0, 1))
            low, high = (bench.find(init, lr=rate * factor, aug="minimal") for factor in (0.1, 10.0))
        except Unavailable:
            continue
        start = bench.start(one.pool)
        return [
            ("another seed", start, one, twin),
            ("learning rate x 0.1", start, one, low),
            ("learning rate x 10", start, one, high),
        ]
    members = sorted((m for m in bench.pool(OWN) if m.lr == m.lr), key=lambda m: m.lr)
    if len(members) < 2:
        raise Unavailable("it needs two models with a recipe")
    return [("lowest and highest learning rate", bench.start(OWN), members[-1], members[0])]


def _landscape(bench: Bench, name: str, three: tuple[Ingredient, ...], found: Plane) -> Rows:
    xs, ys = found.grid(bench.cfg.analyse.grid)
    places = [*found.points, *((x, y) for y in ys for x in xs)]
    points = [Point(three, found.coefficients(x, y)) for x, y in places]
    train = [bench.cfg.data.train] if bench.has_train() else []
    measured = bench.measure(points, f"landscape, {name}", [*train, *bench.tests])
    rows: Rows = []
    for i, ((x, y), m) in enumerate(zip(places, measured, strict=True)):
        shift = bench.shift_accuracy(m)
        rows.append(
            {
                "landscape": name,
                "x": x,
                "y": y,
                "model": ("theta_0", "theta_1", "theta_2")[i] if i < 3 else None,
                "train_loss": m[train[0]].loss if train else None,
                "test_error": 1 - m[bench.test].accuracy,
                "shift_error": None if shift != shift else 1 - shift,
                "angle": found.angle,
            }
        )
    return rows


def _verdicts(rows: Rows) -> list[Verdict]:
    better = total = 0
    for name in dict.fromkeys(r["landscape"] for r in rows):
        here = [r for r in rows if r["landscape"] == name]
        for key in ("test_error", "shift_error"):
            if here[0][key] is not None:
                total += 1
                three = min(r[key] for r in here if r["model"])
                better += min(r[key] for r in here if not r["model"]) < three
    text = "Some point of the plane has a lower error than the three models (landscapes, test and shifts)"
    return [counted(text, "Figure 2", better, total)]


LANDSCAPE = Analysis(
    "figure_2",
    "Figures 2 and J.1. Error landscapes",
    "section 3.2, J.1",
    "Loss and error are basin-shaped and none of the three points is optimal; with a ten times larger learning rate "
    "error rises on the path between the two solutions.",
    _rows,
    _verdicts,
)
