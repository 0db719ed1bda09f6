"""Builds the sections of a run's report page from the contents of results.jsonl (`Numbers`)."""

from modelsoups.published.tables import printed
from modelsoups.report import beside_published, figures, table_3
from modelsoups.report.claims import CLASSES, Verdict
from modelsoups.report.numbers import MEAN, Difference, Numbers, RowResults, interval, percent, signed
from modelsoups.report.sections import Cards, Cell, Content, Photograph, Picture, Section, Table, origin
from modelsoups.report.table_3 import MethodRow, label_of

PAPER = "Wortsman et al. 2022, Table 3 (CLIP ViT-B/32 on ImageNet)"
Cells = list[Cell | str]


def sections(numbers: Numbers, verdicts: list[Verdict], contact: bytes | None) -> list[Section]:
    """Return the page's sections that have data, in order; call inside plotting.style(math=False).

    contact: a PNG with sample images of each data set, or None.
    """
    made = [_headline(numbers), _table_3(numbers), _published(numbers), _figures(numbers)]
    made += [_claims(numbers, verdicts), _greedy(numbers), _each_set(numbers), _ingredients(numbers)]
    if contact:
        sheet = Photograph("contact", contact, "A row of images of each data set")
        made.append(Section("The data", "Images of each set, the training set first.", [sheet]))
    made.append(_costs(numbers))
    return [section for section in made if section.contents]


def _accuracy(numbers: Numbers, row: RowResults, dataset: str) -> Cell:
    """Return a table cell with an accuracy; its tooltip: image counts, 95% interval and commit."""
    result = row.mean if dataset == MEAN else row.results.get(dataset)
    if result is None:
        return Cell(percent(None))
    tip = f"{result.correct:,} of {result.n:,} images. " if result.n and result.correct else ""
    if dataset == MEAN:
        tip = f"unweighted mean of {len(numbers.shifts)} sets. "
    tip += f"95% interval {percent(result.low)} to {percent(result.high)}. "
    tip += f"\nresults.jsonl: {row.name} on {dataset}.\n{origin(numbers.provenance, row.name)}"
    return Cell(percent(result.accuracy), tip)


def _accuracies(numbers: Numbers, method: MethodRow, sets: list[str], texts: list[str]) -> Cells:
    """Return a cell per data set: a method's accuracy, or without a row its text in `texts`."""
    if row := numbers.rows.get(method.row):
        return [_accuracy(numbers, row, name) for name in sets]
    tip = f"Mean over random orders, one row each in results.jsonl.\n{origin(numbers.provenance)}"
    return [Cell(text, tip) for text in texts]


def _headline(numbers: Numbers) -> Section:
    cards = [_card(numbers, d) for d in numbers.headline]
    both = "both chosen on the hold-out, both one model at inference"
    notes = list(numbers.notes)
    for name, why in numbers.failed.items():
        notes.append(f"Ingredient {name} is not in the pool: {why}.")
    return Section("Headline", f"The greedy soup against the best individual model, {both}.", [Cards(cards), *notes])


def _card(numbers: Numbers, d: Difference) -> tuple[str, Cell, list[str]]:
    shift = d.on == MEAN
    title = f"Under shift: mean of {len(numbers.shifts)} sets" if shift else f"In distribution: {numbers.title(d.on)}"
    lines = [f"95% interval {interval(d)}"]
    for name in (d.a, d.b):
        row = numbers.rows[name]
        if r := row.mean if shift else row.results[d.on]:
            ends = f"({percent(r.low)} to {percent(r.high)})"
            lines.append(f"{label_of(name)} {percent(r.accuracy)} {ends}")
    tip = f"{label_of(d.a)} minus {label_of(d.b)}, paired by image.\n{origin(numbers.provenance)}"
    return title, Cell(f"{percent(d.value, True)} points", tip), lines


def _table_3(numbers: Numbers) -> Section:
    head = ["Method", *["Ours", "Paper", "Diff."] * 2, *["Ours", "Paper"] * 2, "Models"]
    groups = [("", 1), (numbers.title(numbers.test), 3), ("Mean of shifts", 3)]
    groups += [("Gain: test", 2), ("Gain: shifts", 2), ("", 1)]
    rows = [_table_3_row(numbers, row) for row in table_3.method_rows(numbers)]
    other_data = "" if beside_published.applies(numbers) else ": on other data compare the gains, not the levels"
    caption = (
        "Top-1 accuracy in percent; differences and gains in points. In parentheses: standard deviation over "
        "random orders. Gain: over the best individual model of the same table. Models: forward "
        "passes per image. Everything was chosen on the hold-out, before any test set was "
        f"evaluated. The paper's numbers are for CLIP ViT-B/32 on ImageNet{other_data}."
    )
    sentence = "Accuracy in distribution and under shift, next to the paper's."
    return Section("Table 3", sentence, [Table("table_3", head, rows, caption, groups, file=False)])


def _table_3_row(numbers: Numbers, method: MethodRow) -> Cells:
    ours = _accuracies(numbers, method, [numbers.test, MEAN], method.ours)
    theirs = [Cell(text, PAPER if text else "") for text in method.theirs]
    cells: Cells = [method.label]
    for columns in zip(ours, theirs, method.differences, strict=True):
        cells += columns
    cells += [*_gains(numbers, method, numbers.test, 0), *_gains(numbers, method, MEAN, 1)]
    return [*cells, str(numbers.rows[method.row].inference) if method.row in numbers.rows else "1"]


def _gains(numbers: Numbers, method: MethodRow, on: str, column: int) -> Cells:
    """Return two cells: a row's accuracy gain over the best single model, ours and the paper's."""
    d, ours = numbers.difference(method.row, "best", on), Cell("")
    if d:
        ours = Cell(percent(d.value, True), f"{interval(d)}.\n{origin(numbers.provenance, method.row)}")
    best = printed("best")
    if best is None or method.paper is None or method.row == "best":
        return [ours, ""]
    return [ours, Cell(signed(method.paper[column] - best[column]), PAPER)]


def _published(numbers: Numbers) -> Section:
    """Return the section that compares the run with published results, empty if not on ImageNet."""
    contents = []
    if beside_published.applies(numbers):
        head, *body = beside_published.comparison(numbers)
        contents.append(Table("published", head, body, beside_published.NOTE))
    return Section("Comparison with the published numbers", "", contents)


def _figures(numbers: Numbers) -> Section:
    text = "Figure 1. In distribution against under shift; each dot is an ingredient, coloured by learning rate."
    contents = [Picture("figure_1", figures.figure_1(numbers), text)]
    if len(numbers.curve) > 1:
        text = "Figure B.1. Accuracy against the number of models, in one random order."
        contents.append(Picture("figure_B1", figures.figure_b1(numbers), text))
    text = "Each test set; lines are 95% intervals of one accuracy (those of paired differences are narrower)."
    contents.append(Picture("figure_shifts", figures.each_shift(numbers), text))
    return Section("Figures", "Each is also a PDF and a PNG file next to this page.", contents)


def _claims(numbers: Numbers, verdicts: list[Verdict]) -> Section:
    rows: list[Cells] = []
    for v in verdicts:
        judged = Cell(v.verdict, kind=CLASSES.get(v.verdict, "open"))
        rows.append([v.text, v.source, judged, Cell(v.numbers, origin(numbers.provenance))])
    head = ["Claim", "Source", "Verdict", "Difference, 95% interval"]
    sentence = "If a difference is significant (p < 0.05), its sign decides whether the claim holds."
    return Section("Claims", sentence, [Table("claims", head, rows, text=2, file=False)] if rows else [])


def _greedy(numbers: Numbers) -> Section:
    greedy = numbers.rows.get("greedy")
    steps = greedy.soup.trace if greedy and greedy.soup else ()
    if not steps:
        return Section("Greedy soup", "", [])
    rows: list[Cells] = []
    for place, step in enumerate(steps, 1):
        held_out = Cell("stopped early")
        if step["correct"] is not None:
            tip = f"{step['correct']:,} of {step['n']:,} images of the hold-out."
            tip += f"\n{origin(numbers.provenance, 'greedy')}"
            held_out = Cell(percent(step["correct"] / step["n"]), tip)
        decision = "joins" if step["kept"] else "left out"
        rows.append([str(step["ingredient"]), str(place), held_out, decision])
    joined = sum(bool(step["kept"]) for step in steps)
    sentence = f"Best model first, each candidate is added unless the soup gets worse: {joined} of {len(steps)} joined."
    head = ["Candidate", "Position", "Hold-out with it", "Decision"]
    trace = Picture("figure_greedy", figures.greedy_trace(numbers), "Recipe 1 (section 2), step by step.")
    return Section("Greedy soup", sentence, [trace, Table("greedy", head, rows, file=False)])


def _each_set(numbers: Numbers) -> Section:
    names = [*numbers.shifts, *numbers.extra]
    if not names:
        return Section("Each test set", "", [])
    rows: list[Cells] = []
    for method in table_3.method_rows(numbers):
        rows.append([method.label, *_accuracies(numbers, method, names, method.sets)])
    table = Table("sets", ["Method", *table_3.set_titles(numbers)], rows, file=False)
    return Section("Each test set", "Accuracy by set, in percent.", [table])


def _ingredients(numbers: Numbers) -> Section:
    head = ["Ingredient", "Learning rate", "Weight decay", "Epochs", "Smoothing", "Mixup"]
    head += ["Augmentation", "Hold-out", "Test", "Shifts"]
    rows: list[Cells] = []
    for row in numbers.individuals.values():
        recipe, r = [""] * 6, row.recipe
        if r is not None:
            recipe = [f"{r.lr:.2e}", f"{r.weight_decay:.2g}", str(r.epochs)]
            recipe += [f"{r.label_smoothing:.2f}", f"{r.mixup:.2f}", r.aug]
        accuracies = [_accuracy(numbers, row, on) for on in (numbers.holdout, numbers.test, MEAN)]
        rows.append([row.name, *recipe, *accuracies])
    sentence = "Every fine-tuned model of the pool, with its recipe."
    return Section("Ingredients", sentence, [Table("ingredients", head, rows)] if rows else [])


def _costs(numbers: Numbers) -> Section:
    """Return the section with the run's costs and everything needed to reproduce it."""
    made = numbers.provenance
    rows: list[Cells] = []
    for what, amount in _spent(numbers).items():
        rows.append([what, Cell(amount, origin(made))])
    contents: list[Content] = [Table("costs", ["What", "Amount"], rows, file=False)] if rows else []
    facts = {key: made.get(key) for key in ("command", "commit", "machine", "python", "time")}
    facts["packages"] = ", ".join(map(" ".join, made.get("packages", {}).items()))
    for key, value in facts.items():
        if value:
            contents.append(f"{key}: {value}")
    for name in ("best", "greedy", "greedy_ensemble"):
        if name in numbers.rows and (soup := numbers.rows[name].soup):
            contents.append(f"{label_of(name)}: {', '.join(soup.ingredients)}")
    sentence = "What this run cost, and everything needed to reproduce it."
    return Section("Costs and provenance", sentence, contents, origin(made))


def _spent(numbers: Numbers) -> dict[str, str]:
    made = numbers.provenance
    amounts = {}
    for stage, seconds in made.get("seconds", {}).items():
        amounts[f"Stage {stage}"] = f"{seconds:,.1f} s"
    if costs := made.get("costs"):
        amounts["Models fine-tuned"] = f"{costs['models']:,}"
        amounts["Training images, over all epochs"] = f"{costs['images']:,}"
        hours = f"{costs['process_seconds'] / 3600:,.2g}"
        amounts["Hours of training, over all processes (GPU-hours where there are GPUs)"] = hours
    if weights := {row.get("sha256") for row in made.get("rows", {}).values()} - {None}:
        images = len(weights) * sum(s.n for s in numbers.sets)
        amounts["Images evaluated, without the greedy soup's candidates"] = f"{images:,}"
    return amounts
