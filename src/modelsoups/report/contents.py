"""The sections of an experiment's report, in the order of reading, from its numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelsoups.published import tables
from modelsoups.report import beside, figures
from modelsoups.report.claims import FAILS, HOLDS, Verdict
from modelsoups.report.numbers import MEAN, Difference, Measured, Numbers, Result, interval, percent, signed
from modelsoups.report.sections import Cards, Cell, Part, Photograph, Picture, Section, Source, Table
from modelsoups.report.tables import PAPER_NAMES, Line, accuracies, cells, differences, each_set, label_of, table_3

PAPER = "Wortsman et al. 2022, Table 3 (CLIP ViT-B/32 on ImageNet)"


def sections(numbers: Numbers, verdicts: list[Verdict], contact_png: bytes | None) -> list[Section]:
    """Every section that these numbers allow; call within figures.style(math=False)."""
    made = [_headline(numbers), _table_3(numbers), *_published(numbers), _figures(numbers), _claims(numbers, verdicts)]
    made += [_greedy(numbers), _each_set(numbers), _ingredients(numbers)]
    if contact_png:
        sheet = Photograph("contact", contact_png, "A row of images of each data set")
        made.append(Section("The data", "Images of each set, the training set first.", [sheet]))
    made.append(_costs(numbers))
    return [section for section in made if section.parts]


# ---- numbers with their sources ----


def told(numbers: Numbers, row: Measured, result: Result | None) -> str:
    """What stands behind an accuracy: images, interval, and what made it."""
    if result is None:
        return ""
    images = f"{result.correct:,} of {result.n:,} images. " if result.n and result.correct else ""
    of = f"unweighted mean of {len(numbers.shifts)} sets. " if result.dataset == MEAN else images
    spread = f"95% interval {percent(result.low)} to {percent(result.high)}. " if result.low is not None else ""
    return f"{of}{spread}\nresults.jsonl: {row.name} on {result.dataset}.\n{_source(numbers, row.name)}"


def _source(numbers: Numbers, row: str = "") -> str:
    return str(Source.of(numbers.provenance, row))


def _accuracy(numbers: Numbers, row: Measured, dataset: str) -> Cell:
    result = row.mean if dataset == MEAN else row.results.get(dataset)
    return Cell(percent(result.accuracy if result else None), told(numbers, row, result))


def _over_orders(numbers: Numbers, text: str) -> Cell:
    return Cell(text, f"Mean over random orders, one row each in results.jsonl.\n{_source(numbers)}")


# ---- sections ----


def _headline(numbers: Numbers) -> Section:
    cards = [_card(numbers, d) for d in numbers.headline]
    sentence = (
        "The greedy soup against the best individual model, both chosen on the hold-out, both one model at inference."
    )
    notes: list[str] = [
        *numbers.notes,
        *(f"Ingredient {name} is not in the pool: {why}." for name, why in numbers.failed.items()),
    ]
    return Section("Headline", sentence, [Cards(cards), *notes])


def _card(numbers: Numbers, d: Difference) -> tuple[str, Cell, list[str]]:
    shift = d.on == MEAN
    where = f"Under shift: mean of {len(numbers.shifts)} sets" if shift else f"In distribution: {numbers.title(d.on)}"
    results = [(name, row.mean if shift else row.results[d.on]) for name in (d.a, d.b) if (row := numbers.rows[name])]
    lines = [f"95% interval {interval(d)}"]
    for name, r in results:
        if r is not None:
            lines.append(f"{label_of(name)} {percent(r.accuracy)} ({percent(r.low)} to {percent(r.high)})")
    tip = f"{label_of(d.a)} minus {label_of(d.b)}, paired by image.\n{_source(numbers)}"
    return where, Cell(f"{percent(d.value, True)} points", tip), lines


def _table_3(numbers: Numbers) -> Section:
    head = ["Method", *["Ours", "Paper", "Diff."] * 2, *["Ours", "Paper"] * 2, "Models"]
    gains = [("Gain: test", 2), ("Gain: shifts", 2)]
    groups = [("", 1), (numbers.title(numbers.test), 3), ("Mean of shifts", 3), *gains, ("", 1)]
    rows = [_line(numbers, line) for line in table_3(numbers)]
    caption = (
        "Per cent, top-1; differences and gains in points. In parentheses: standard deviation over random orders. "
        "Gain: over the best individual model of the same table. Models: forward passes an image costs. Everything was "
        "chosen on the hold-out; no test set was looked at before. The paper's numbers are of CLIP ViT-B/32 on ImageNet"
        + ("." if beside.applies(numbers) else ": on other data compare the gains, not the levels.")
    )
    sentence = "Accuracy in distribution and under shift, beside the paper's."
    return Section("Table 3", sentence, [Table("table_3", head, rows, caption, groups, file=False)])


def _line(numbers: Numbers, line: Line) -> list[Cell | str]:
    row = numbers.rows.get(line.row)
    ours: list[Cell | str] = list(accuracies(line))
    if row is not None:
        ours = [_accuracy(numbers, row, numbers.test), _accuracy(numbers, row, MEAN)]
    else:
        ours = [_over_orders(numbers, text) for text in accuracies(line)]
    theirs = [Cell(text, PAPER if text else "") for text in cells(numbers, line)[3:5]]
    apart = differences(line)
    gains = [*_gains(numbers, line, numbers.test, 0), *_gains(numbers, line, MEAN, 1)]
    models = str(row.inference) if row is not None else "1"
    return [line.label, ours[0], theirs[0], apart[0], ours[1], theirs[1], apart[1], *gains, models]


def _gains(numbers: Numbers, line: Line, on: str, column: int) -> list[Cell | str]:
    """Over the best individual model: ours with its test, the paper's."""
    d = numbers.difference(line.row, "best", on)
    ours = Cell(percent(d.value, True), f"{interval(d)}.\n{_source(numbers, line.row)}") if d else Cell("")
    if line.paper is None or line.row == "best":
        return [ours, ""]
    best = tables.paper_table("table_3").rows[PAPER_NAMES["best"]][column]
    assert best is not None, "Table 3 has no empty cells"
    return [ours, Cell(signed(line.paper[column] - best), PAPER)]


def _published(numbers: Numbers) -> list[Section]:
    """Ours beside the released results and the paper's, where they are of the same model and data."""
    if not beside.applies(numbers):
        return []
    head, *body = beside.rows_of(numbers)
    return [Section("Beside the published numbers", "", [Table("published", head, body, beside.NOTE)])]


def _figures(numbers: Numbers) -> Section:
    parts = [
        Picture("figure_1", figures.figure_1(numbers),
                "Figure 1. In distribution against under shift; a dot an ingredient, coloured by learning rate."),
        Picture("figure_shifts", figures.each_shift(numbers),
                "Each test set; lines are 95% intervals of one accuracy (paired differences are surer than these)."),
    ]  # fmt: skip
    if len(numbers.curve) > 1:
        text = "Figure B.1. Accuracy against the number of models, in one random order."
        parts.insert(1, Picture("figure_B1", figures.figure_b1(numbers), text))
    return Section("Figures", "Each is also a PDF and a PNG beside this page.", parts)


def _claims(numbers: Numbers, verdicts: list[Verdict]) -> Section:
    kinds = {HOLDS: "holds", FAILS: "fails"}
    rows = [
        [Cell(v.text), Cell(v.source), Cell(v.verdict, kind=kinds.get(v.verdict, "open")),
         Cell(v.numbers, _source(numbers))] for v in verdicts
    ]  # fmt: skip
    head = ["Claim", "Source", "Verdict", "Difference, 95% interval"]
    sentence = "A claim holds, or does not hold, where the difference is significant at p < 0.05."
    return Section("Claims", sentence, [Table("claims", head, rows, text=2, file=False)] if rows else [])


def _greedy(numbers: Numbers) -> Section:
    greedy = numbers.rows.get("greedy")
    steps = greedy.soup.trace if greedy and greedy.soup else ()
    if not steps:
        return Section("Greedy soup", "", [])
    kept = [s for s in steps if s["kept"]]
    rows: list[list[Cell | str]] = []
    for place, s in enumerate(steps, 1):
        known = s["correct"] is not None
        tip = f"{s['correct']:,} of {s['n']:,} images of the hold-out.\n{_source(numbers, 'greedy')}" if known else ""
        share = Cell(percent(s["correct"] / s["n"]) if known else "stopped early", tip)
        rows.append([str(s["ingredient"]), str(place), share, "joins" if s["kept"] else "left out"])
    head = ["Candidate", "Place", "Hold-out with it", "Decision"]
    sentence = f"Best first, a candidate joins if the soup does not get worse with it: {len(kept)} of {len(steps)} did."
    caption = "Recipe 1 (section 2), step by step."
    parts: list[Part] = [
        Picture("figure_greedy", figures.greedy_trace(numbers), caption),
        Table("greedy", head, rows, file=False),
    ]
    return Section("Greedy soup", sentence, parts)


def _each_set(numbers: Numbers) -> Section:
    names = [*numbers.shifts, *numbers.extra]
    if not names:
        return Section("Each test set", "", [])
    rows: list[list[Cell | str]] = []
    for line, texts in zip(table_3(numbers), each_set(numbers)[1:], strict=True):
        row = numbers.rows.get(line.row)
        ours = (
            [_accuracy(numbers, row, name) for name in names] if row else [_over_orders(numbers, t) for t in texts[1:]]
        )
        rows.append([line.label, *ours])
    head = ["Method", *(numbers.title(name) for name in names)]
    return Section("Each test set", "Accuracy by set, in per cent.", [Table("sets", head, rows, file=False)])


def _ingredients(numbers: Numbers) -> Section:
    head = ["Ingredient", "Learning rate", "Weight decay", "Epochs", "Smoothing", "Mixup", "Augmentation"]
    head += ["Hold-out", "Test", "Shifts"]
    rows: list[list[Cell | str]] = []
    for row in numbers.individuals.values():
        recipe, r = [""] * 6, row.recipe
        if r is not None:
            recipe = [f"{r.lr:.2e}", f"{r.weight_decay:.2g}", str(r.epochs), f"{r.label_smoothing:.2f}"]
            recipe += [f"{r.mixup:.2f}", r.aug]
        measured = [_accuracy(numbers, row, on) for on in (numbers.holdout, numbers.test, MEAN)]
        rows.append([row.name, *recipe, *measured])
    sentence = "Every fine-tuned model of the pool, with its recipe."
    return Section("Ingredients", sentence, [Table("ingredients", head, rows)] if rows else [])


def _costs(numbers: Numbers) -> Section:
    """What it took, and what made it."""
    made = numbers.provenance
    rows: list[list[Cell | str]] = [[key, Cell(amount, _source(numbers))] for key, amount in spent(numbers)]
    packages = ", ".join(f"{k} {v}" for k, v in made.get("packages", {}).items())
    facts = {k: made.get(k) for k in ("command", "commit", "machine", "python", "time")} | {"packages": packages}
    parts: list[Part] = [Table("costs", ["What", "Amount"], rows, file=False)] if rows else []
    parts += [f"{key}: {value}" for key, value in facts.items() if value]
    for name in ("best", "greedy", "greedy_ensemble"):
        if name in numbers.rows and (soup := numbers.rows[name].soup):
            parts.append(f"{label_of(name)}: {', '.join(soup.ingredients)}")
    sentence = "What this took, and everything needed to make it again."
    return Section("Costs and provenance", sentence, parts, Source.of(made))


def spent(numbers: Numbers) -> list[tuple[str, str]]:
    """What, and how much of it."""
    made: Mapping[str, Any] = numbers.provenance
    rows = [(f"Stage {stage}", f"{seconds:,.1f} s") for stage, seconds in made.get("seconds", {}).items()]
    if costs := made.get("costs"):
        rows += [
            ("Models fine-tuned", f"{costs['models']:,}"),
            ("Images of training", f"{costs['images']:,}"),
            ("Hours of training, over all processes (GPU-hours where there are GPUs)",
             f"{costs['process_seconds'] / 3600:,.2g}"),
        ]  # fmt: skip
    if weights := {row["sha256"] for row in made.get("rows", {}).values() if row.get("sha256")}:
        images = len(weights) * sum(s.n for s in numbers.sets)
        rows.append(("Images of evaluation, without the greedy soup's candidates", f"{images:,}"))
    return rows
