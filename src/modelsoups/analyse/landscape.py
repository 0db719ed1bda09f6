"""Error landscapes on the plane through the initialization and two fine-tunes (Figures 2 and J.1)."""

from __future__ import annotations

from modelsoups.analyse.bench import OWN, Bench, Member, Point, Unavailable, weights_of
from modelsoups.analyse.finding import Analysis, Rows, compared, comparison, counted
from modelsoups.core.plane import Plane, plane
from modelsoups.core.types import Ingredient
from modelsoups.reporting.claims import Verdict

MARKED = ("theta_0", "theta_1", "theta_2", "middle")
BARRIER = "learning rate x 10"  # where the paper sees error rise between the two solutions


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
            (BARRIER, start, one, high),
        ]
    members = sorted((m for m in bench.pool(OWN) if m.lr == m.lr), key=lambda m: m.lr)
    if len(members) < 2:
        raise Unavailable("it needs two models with a recipe")
    return [("lowest and highest learning rate", bench.start(OWN), members[-1], members[0])]


def _landscape(bench: Bench, name: str, three: tuple[Ingredient, ...], found: Plane) -> Rows:
    xs, ys = found.grid(bench.cfg.analyse.grid)
    middle = tuple((a + b) / 2 for a, b in zip(*found.points[1:], strict=True))
    places = [*found.points, middle, *((x, y) for y in ys for x in xs)]
    points = [Point(three, found.coefficients(*place)) for place in places]
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
                "model": MARKED[i] if i < len(MARKED) else None,
                "train_loss": m[train[0]].loss if train else None,
                "test_error": 1 - m[bench.test].accuracy,
                "shift_error": None if shift != shift else 1 - shift,
                "angle": found.angle,
            }
        )
    _, one, two, mid = measured[:4]
    barrier = name == BARRIER
    pairs = [(end, mid) for end in (one, two)] if barrier else [(mid, end) for end in (one, two)]
    return [*rows, comparison(f"ends - middle, {name}" if barrier else f"middle - ends, {name}", bench, pairs)]


def _verdicts(rows: Rows) -> list[Verdict]:
    better = total = 0
    names = list(dict.fromkeys(r["landscape"] for r in rows if "landscape" in r))
    for name in names:
        here = [r for r in rows if r.get("landscape") == name]
        for key in ("test_error", "shift_error"):
            if here[0][key] is not None:
                total += 1
                three = min(r[key] for r in here if r["model"] in MARKED[:3])
                better += min(r[key] for r in here if r["model"] not in MARKED[:3]) < three
    text = "Some point of the plane has a lower error than the three models (landscapes, test and shifts)"
    found = [counted(text, "Figure 2", better, total)]
    for name in names:
        for on, where in (("test", "in distribution"), ("shifts", "under shift")):
            text = f"Half way between the two solutions accuracy is above their mean {where} ({name})"
            found += compared(rows, f"middle - ends, {name}", on, text, "Figure 2")
            text = f"Half way between the two solutions accuracy is below their mean {where} ({name})"
            found += compared(rows, f"ends - middle, {name}", on, text, "Figure J.1")
    return found


LANDSCAPE = Analysis(
    "figure_2",
    "Figures 2 and J.1. Error landscapes",
    "section 3.2, J.1",
    "Loss and error are basin-shaped and none of the three points is optimal; with a ten times larger learning rate "
    "error rises on the path between the two solutions.",
    _rows,
    _verdicts,
)
