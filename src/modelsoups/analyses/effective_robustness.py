"""Effective robustness of a run's soups, beside the models whose accuracies timm publishes.

Beyond the paper. On each shifted set of ImageNet a line is fitted to timm's models (stats/logit_fit.py);
what a soup has above it is its effective robustness. All of timm's models count, also those that were
pre-trained on more than ImageNet, while the line of Taori et al. (2020) is that of models trained on
ImageNet alone. Those bend the points on ImageNet-R and -Sketch upwards at the right: there a line fits
less well, and around 80% it lies above most of timm's models. As in the paper's figures, the accuracy
in distribution is that on all 1,000 classes, for ImageNet-R and -A too.

The run's accuracies are those of its report, which need no image. Without any model,
`modelsoups analyse experiment=released 'analyse.which=[robustness]'` shows the authors' released
accuracies: those of the uniform and greedy soups and of 72 models. For learned soups the authors give
only a mean over five sets, of which timm has four.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from modelsoups.analyses.analysis import PAPER, Analysis, Verdicts, judged
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.members import Unavailable
from modelsoups.analyses.rows import Rows, Table, having, interval, select
from modelsoups.data.imagenet.metadata import SETS
from modelsoups.disk.paths import RESULTS
from modelsoups.published import timm_results
from modelsoups.published.timm_results import SAME_CLIP, SHIFTED, TEST
from modelsoups.report import released_results
from modelsoups.report.numbers import Numbers, RowResults, percent
from modelsoups.report.plotting import INK, SKY, SPECIAL, legend, panels_of
from modelsoups.report.table_3 import label_of
from modelsoups.stats.logit_fit import LogitFit, Place, expit, logit

SHOWN = ("initialization", "best", "uniform", "greedy", "learned", "learned_layers", "ensemble", "greedy_ensemble")
LABELS = {SAME_CLIP: "timm's fine-tune of CLIP ViT-B/32"}
MARKS = {**SPECIAL, SAME_CLIP: ("v", INK)}
BETWEEN = (0.75, 0.85, 0.95)
TICKS = sorted([0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, *BETWEEN])
MOST_TICKS = 8
LEFT = 0.7  # accuracy on ImageNet at which the figure begins
GREY = "#9a9a9a"


def _rows(bench: Bench) -> Rows:
    """Return for each set a row with the line and the points around it, rows of models, and comparisons."""
    config = bench.experiment.config
    if config.data.library != "imagenet":
        raise Unavailable(f"the analysis needs ImageNet and its shifts, but data.library={config.data.library}")
    numbers = _numbers(bench)
    rows: Rows = []
    for name in SHIFTED:
        measured = {row: r for row, r in numbers.rows.items() if row in SHOWN and _has_both(r, name)}
        if measured:
            rows += _on(name, measured, numbers)
    if not rows:
        raise Unavailable(f"the analysis needs accuracies on ImageNet and one of {', '.join(SHIFTED)}")
    return rows


def _numbers(bench: Bench) -> Numbers:
    """Return the numbers of the run's report, or the authors' if their models are not here."""
    if bench.published:
        config = bench.experiment.config
        return Numbers(released_results.result_lines(config.name, config.recipe))
    if not (bench.files.results / RESULTS).exists():
        raise Unavailable("the analysis needs the numbers of the report: run modelsoups report first")
    return Numbers.read(bench.files.results)


def _on(name: str, measured: dict[str, RowResults], numbers: Numbers) -> Iterator[dict[str, Any]]:
    """Yield the rows of one shifted set. measured: the models and soups with an accuracy on it."""
    baseline = [(m.accuracy[TEST], m.accuracy[name]) for m in timm_results.baseline(name)]
    individuals = [_place(r, name) for r in numbers.individuals.values() if _has_both(r, name)]
    fit = LogitFit.of(*zip(*baseline, strict=True))
    around = {"timm": baseline, "run": [(place.test, place.shift) for place in individuals]}
    yield {"set": name, "title": SETS[name].title, "fit": asdict(fit), **around}
    places = {row: _place(measured[row], name) for row in SHOWN if row in measured}
    places[SAME_CLIP] = _published_place(timm_results.timm_models()[SAME_CLIP], name)
    above = sorted(shift - fit.predict(test) for test, shift in baseline)
    for row, place in places.items():
        effective = fit.effective(place)
        below = sum(value < effective[0] for value in above) / len(above)
        accuracies = {"test": place.test, "shift": place.shift, "predicted": fit.predict(place.test)}
        yield {"set": name, "model": row, **accuracies, "effective": interval(effective), "below": below}
    for other in ("best", SAME_CLIP):
        if {"greedy", other} <= places.keys():
            more = fit.difference(places["greedy"], places[other])
            yield {"set": name, "greedy_above": other, "effective": interval(more)}


def _has_both(row: RowResults, name: str) -> bool:
    """Return whether a model has an accuracy on ImageNet, with a logit, and one on the shifted set."""
    return {TEST, name} <= row.results.keys() and 0 < row.accuracy(TEST) < 1


def _place(row: RowResults, name: str) -> Place:
    test, shift = row.results[TEST], row.results[name]
    return Place(test.accuracy, shift.accuracy, test.n, shift.n)


def _published_place(model: timm_results.TimmModel, name: str) -> Place:
    images = map(released_results.images, (TEST, name))
    return Place(model.accuracy[TEST], model.accuracy[name], *images)


def _label(row: str) -> str:
    return LABELS.get(row) or label_of(row)


def _verdicts(rows: Rows) -> Verdicts:
    titles = {row["set"]: row["title"] for row in having(rows, "fit")}
    found = []
    for row in select(rows, model="greedy"):
        text = f"The greedy soup is more accurate on {titles[row['set']]} than its ImageNet accuracy predicts"
        found.append(judged(text, "beyond the paper", row["effective"]))
    for row in having(rows, "greedy_above"):
        text = f"The greedy soup has higher effective robustness on {titles[row['set']]} than "
        other = {"best": "the best individual model"}.get(row["greedy_above"]) or _label(row["greedy_above"])
        found.append(judged(text + other, "beyond the paper", row["effective"]))
    return found


def _table(rows: Rows) -> Table:
    """Return a line for each set and model, below a line on the fit of the set."""
    table = [["Set", "Model", "ImageNet", "On the set", "Predicted", "Effective robustness", "Timm's models below"]]
    for on in having(rows, "fit"):
        fit = on["fit"]
        line = f"Line of {fit['models']:,} models of timm: slope {fit['slope']:.2f}, R² {fit['explained']:.2f}"
        table.append([on["title"], line, *[""] * 5])
        for row in having(select(rows, set=on["set"]), "model"):
            ends = ", ".join(percent(row["effective"][end], True) for end in ("low", "high"))
            effective = f"{percent(row['effective']['value'], True)} [{ends}]"
            shares = [percent(row[key]) for key in ("test", "shift", "predicted")]
            table.append([on["title"], _label(row["model"]), *shares, effective, f"{100 * row['below']:.0f}%"])
    return table


def _draw(rows: Rows) -> Figure:
    sets = having(rows, "fit")
    lines = 1 if len(sets) < 3 else 2
    figure, panels = panels_of(math.ceil(len(sets) / lines), 3.2, 2.9, lines)
    for panel, on in zip(panels, sets, strict=False):
        _draw_set(panel, on, having(select(rows, set=on["set"]), "model"))
    for panel in panels[len(sets) :]:
        panel.set_axis_off()
    legend(figure, panels[0], 3)
    return figure


def _draw_set(panel: Axes, on: dict[str, Any], models: Rows) -> None:
    """Draw the models of timm, their line, the run's models, and the soups, on axes of logits.

    The axes show the range above `LEFT`, or above the run's models if one of them is less accurate.
    """
    timm, run = (_logits(on[key]) for key in ("timm", "run"))
    places = {row["model"]: place for row in models for place in _logits([(row["test"], row["shift"])])}
    left = min([logit(LEFT), *(x for x, _ in [*run, *places.values()])])
    seen = [place for place in [*timm, *run, *places.values()] if place[0] >= left]
    panel.scatter(*_axes(timm), s=4, color=GREY, linewidths=0, alpha=0.6, label="Models of timm", rasterized=True)
    fit, ends = LogitFit(**on["fit"]), (max(left, min(timm)[0]), max(timm)[0])
    line = [fit.intercept + fit.slope * x for x in ends]
    panel.plot(ends, line, color=INK, linewidth=0.9, label="Their least-squares line")
    panel.scatter(*_axes(run), s=9, color=SKY, linewidths=0, label="Individual models", zorder=2)
    for row, (marker, colour) in MARKS.items():
        if row in places:
            look: dict[str, Any] = {"marker": marker, "color": colour, "edgecolors": "white", "linewidths": 0.5}
            panel.scatter(*places[row], s=40, label=_label(row), zorder=4 if row == "greedy" else 3, **look)
    panel.set(title=on["title"], xlabel="ImageNet (accuracy, %)", ylabel=f"{on['title']} (accuracy, %)")
    for axis, values in zip("xy", _axes(seen), strict=True):
        room = 0.04 * (max(values) - min(values))
        ends = min(values) - room, max(values) + room
        panel.set(**{f"{axis}lim": ends})
        _accuracy_axis(getattr(panel, f"{axis}axis"), *ends)


def _logits(shares: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return pairs of accuracies as logits, without those on a shifted set that are 0 or 1."""
    return [(logit(test), logit(shift)) for test, shift in shares if 0 < shift < 1]


def _axes(places: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return the horizontal and the vertical coordinates of points."""
    return [x for x, _ in places], [y for _, y in places]


def _accuracy_axis(axis: Any, low: float, high: float) -> None:
    """Label an axis of logits with accuracies in percent; a long range has fewer."""
    ticks = [share for share in TICKS if low <= logit(share) <= high]
    if len(ticks) > MOST_TICKS:
        ticks = [share for share in ticks if share not in BETWEEN]
    axis.set_major_locator(FixedLocator(list(map(logit, ticks))))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda x, _: f"{100 * expit(x):.0f}")


ROBUSTNESS = Analysis(**PAPER["robustness"], rows=_rows, judge=_verdicts, draw=_draw, table=_table)
