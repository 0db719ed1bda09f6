"""Error landscapes on the plane through the initialization and two fine-tunes (Figures 2 and J.1)."""

from __future__ import annotations

import numpy as np

from modelsoups.analyses.analysis import Analysis, Rows, compared, comparison
from modelsoups.analyses.bench import OWN, Bench, Measures, Member, Point, Unavailable, weights_of
from modelsoups.report.claims import Verdict
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import intervals
from modelsoups.weights.planes import Plane, plane

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
    rows.append(comparison(f"ends - middle, {name}" if barrier else f"middle - ends, {name}", bench, pairs))
    return rows if barrier else [*rows, {"comparison": f"plane - three, {name}", **_gain_of_plane(bench, measured)}]


def _gain_of_plane(bench: Bench, measured: list[Measures]) -> dict[str, dict[str, float]]:
    """Best point of the plane less best of the three models, both chosen on every other image and judged on the rest.

    The best of so many points on the images that judge it would be ahead by chance alone.
    """
    found = {}
    for on, names in (("test", [bench.test]), ("shifts", bench.shifts if bench.all_shifts else [])):
        if names:
            correct = {n: np.array([m[n].correct_N for m in measured], float) for n in names}
            gains = {n: np.zeros(c.shape[1]) for n, c in correct.items()}
            for fold in (0, 1):
                accuracy_P = np.mean([c[:, fold::2].mean(axis=1) for c in correct.values()], axis=0)
                best, model = int(accuracy_P.argmax()), int(accuracy_P[:3].argmax())
                for n, c in correct.items():
                    gains[n][1 - fold :: 2] = (c[best] - c[model])[1 - fold :: 2]
            found[on] = dict(zip(("value", "low", "high"), intervals.mean_interval(list(gains.values())), strict=True))
    return found


def _verdicts(rows: Rows) -> list[Verdict]:
    found = []
    for name in dict.fromkeys(r["landscape"] for r in rows if "landscape" in r):
        figure = "Figure J.1" if name == BARRIER else "Figure 2"
        for on, where in (("test", "in distribution"), ("shifts", "under shift")):
            text = f"Some point of the plane is better than all three models {where} (second model: {name})"
            found += compared(rows, f"plane - three, {name}", on, text, figure)
            text = f"Half way between the two solutions accuracy is above their mean {where} (second model: {name})"
            found += compared(rows, f"middle - ends, {name}", on, text, figure)
            text = f"Half way between the two solutions accuracy is below their mean {where} (second model: {name})"
            found += compared(rows, f"ends - middle, {name}", on, text, figure)
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
