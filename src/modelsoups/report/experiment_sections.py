"""Builds the sections of a run's report page from the contents of results.jsonl (`Numbers`)."""

from itertools import compress

from modelsoups.recipes.recipe import Recipe
from modelsoups.report import beside_glue, beside_published, figures, table_3
from modelsoups.report.claims import CLASSES, Verdict
from modelsoups.report.numbers import MEAN, ON_TEST, Difference, Numbers, RowResults, interval, percent, signed
from modelsoups.report.sections import Cards, Cell, Content, Photograph, Picture, Section, Table, origin
from modelsoups.report.table_3 import MethodRow, label_of

PAPER = "Wortsman et al. 2022, Table 3 (CLIP ViT-B/32 on ImageNet)"
Cells = list[Cell | str]


def sections(numbers: Numbers, verdicts: list[Verdict], contact: bytes | None) -> list[Section]:
    """Return the page's sections that have data, in order; call inside plotting.style(math=False).

    contact: a PNG with sample images of each data set, or None.
    """
    made = [_headline(numbers), _table_3(numbers), _published(numbers), beside_glue.section(numbers)]
    made.append(_figures(numbers))
    made += [_claims(numbers, verdicts), _greedy(numbers), _each_set(numbers), _ingredients(numbers)]
    if contact:
        sheet = Photograph("contact", contact, "A row of images of each data set")
        made.append(Section("The data", "Images of each set, the training set first.", [sheet]))
    made += [_texts(numbers), _costs(numbers)]
    return [section for section in made if section.contents]


def _accuracy(numbers: Numbers, row: RowResults, dataset: str) -> Cell:
    """Return a table cell with a score; its tooltip: counts, 95% interval and commit."""
    result = row.mean if dataset == MEAN else row.results.get(dataset)
    if result is None:
        return Cell(percent(None))
    tip = f"{result.correct:,} of {result.n:,} {numbers.unit}. " if result.n and result.correct else ""
    if result.n and not numbers.has_top_1 and not result.correct:
        tip = f"{numbers.score} on {result.n:,} {numbers.unit}. "
    if dataset == MEAN:
        tip = f"unweighted mean of {len(numbers.shifts)} sets. "
    tip += f"95% interval {percent(result.low)} to {percent(result.high)}. "
    tip += f"\nresults.jsonl: {row.name} on {dataset}.\n{origin(numbers.provenance, row.name)}"
    return Cell(percent(result.accuracy), tip)


def _accuracies(numbers: Numbers, method: MethodRow, sets: list[str], texts: list[str]) -> Cells:
    """Return a cell per data set: a method's score, or without a row its text in `texts`."""
    if row := numbers.rows.get(method.row):
        return [_accuracy(numbers, row, name) for name in sets]
    tip = f"Mean over random orders, one row each in results.jsonl.\n{origin(numbers.provenance)}"
    return [Cell(text, tip) for text in texts]


def _headline(numbers: Numbers) -> Section:
    cards = [_card(numbers, d) for d in numbers.headline]
    where = "test set itself" if numbers.chosen_on_test else "hold-out"
    both = f"both chosen on the {where}, both one model at inference"
    notes = [*about_choice(numbers), *numbers.notes]
    for name, why in numbers.failed.items():
        notes.append(f"Ingredient {name} is not in the pool: {why}.")
    return Section("Headline", f"The greedy soup against the best individual model, {both}.", [Cards(cards), *notes])


def about_choice(numbers: Numbers) -> list[str]:
    """Return sentences on the examples that models are chosen on; none for images.

    Chosen on the hold-out: its standard error. Chosen on the test set: what that means.
    """
    if numbers.chosen_on_test:
        return [
            "Models were chosen on the test set itself (data.choose_on=validation): scores of "
            "chosen models are too high, and p-values do not count the choice."
        ]
    if numbers.holdout_error is None:
        return []
    (holdout,) = (s for s in numbers.sets if s.name == numbers.holdout)
    error = f"the standard error of the best individual model's score there is {100 * numbers.holdout_error:.2f} points"
    return [f"Hold-out: {holdout.n:,} {numbers.unit}; {error}. Smaller differences between models may be chance."]


def _card(numbers: Numbers, d: Difference) -> tuple[str, Cell, list[str]]:
    shift = d.on == MEAN
    shifts = f"mean of {len(numbers.shifts)} sets" if len(numbers.shifts) != 1 else numbers.title(numbers.shifts[0])
    title = f"Under shift: {shifts}" if shift else f"In distribution: {numbers.title(d.on)}"
    if not numbers.has_top_1:
        title += f", {numbers.score}"
    lines = [f"95% interval {interval(d)}"]
    for name in (d.a, d.b):
        row = numbers.rows[name]
        if r := row.mean if shift else row.results[d.on]:
            ends = f"({percent(r.low)} to {percent(r.high)})"
            lines.append(f"{label_of(name)} {percent(r.accuracy)} {ends}")
    paired = f"paired by {numbers.unit.removesuffix('s')}"
    tip = f"{label_of(d.a)} minus {label_of(d.b)}, {paired}.\n{origin(numbers.provenance)}"
    return title, Cell(f"{percent(d.value, True)} points", tip), lines


def _table_3(numbers: Numbers) -> Section:
    shifts, paper = bool(numbers.shifts), table_3.has_paper(numbers)
    both = shifts and paper and numbers.has_top_1  # the paper has no shifts of texts
    groups = {  # title -> the columns below it and whether they are shown
        "": {"Method": True},
        numbers.title(numbers.test): {"Ours": True, "Paper": paper, "Diff.": paper},
        "Mean of shifts": {"Ours": shifts, "Paper": both, "Diff.": both},
        "Gain: test": {"Ours": True, "Paper": paper},
        "Gain: shifts": {"Ours": shifts, "Paper": both},
        " ": {"Models": True},
    }
    head: list[str] = []
    shown: list[bool] = []
    for columns in groups.values():
        head += columns
        shown += columns.values()
    spans = [(title.strip(), sum(columns.values())) for title, columns in groups.items() if any(columns.values())]
    rows = []
    for method in table_3.method_rows(numbers):
        rows.append(list(compress(_table_3_row(numbers, method), shown)))
    table = Table("table_3", list(compress(head, shown)), rows, _caption(numbers), spans, file=False)
    if numbers.has_top_1:
        where = "in distribution and under shift, next to the paper's" if shifts else "next to the paper's"
        return Section("Table 3", f"Accuracy {where}.", [table])
    return Section("Scores", f"{numbers.score_in_words}, by method.", [table])


def _caption(numbers: Numbers) -> str:
    """Return what the numbers of Table 3 are and what they were chosen on."""
    paper = ""
    if numbers.has_top_1:
        paper = f" The paper's numbers are for CLIP ViT-B/32 on ImageNet{beside_published.how_to_compare(numbers)}."
    elif cell := table_3.paper_cell(numbers):
        paper = f" The paper's numbers are for {cell.title} (Table J.1)."
    chosen = "Everything was chosen on the hold-out, before any test set was evaluated."
    if numbers.chosen_on_test:
        chosen = "Everything was chosen on the test set itself."
    elif any(name in numbers.rows for name in ON_TEST):
        chosen = f"Other rows than those chosen on the test set: e{chosen[1:]}"
    return (
        f"{numbers.score_in_words}; differences and gains in points. In parentheses: standard "
        "deviation over random orders. Gain: over the best individual model of the same table. "
        f"Models: forward passes per {numbers.unit.removesuffix('s')}. {chosen}{paper}"
    )


def _table_3_row(numbers: Numbers, method: MethodRow) -> Cells:
    ours = _accuracies(numbers, method, [numbers.test, MEAN], method.ours)
    theirs = [Cell(text, _source(numbers, method.row) if text else "") for text in method.theirs]
    cells: Cells = [method.label]
    for columns in zip(ours, theirs, method.differences, strict=True):
        cells += columns
    cells += [*_gains(numbers, method, numbers.test, 0), *_gains(numbers, method, MEAN, 1)]
    return [*cells, str(numbers.rows[method.row].inference) if method.row in numbers.rows else "1"]


def _gains(numbers: Numbers, method: MethodRow, on: str, column: int) -> Cells:
    """Return two cells: a row's gain over the best single model, ours and the paper's."""
    d, ours = numbers.difference(method.row, "best", on), Cell("")
    if d:
        ours = Cell(percent(d.value, True), f"{interval(d)}.\n{origin(numbers.provenance, method.row)}")
    best, _ = table_3.paper_scores(numbers, "best")
    theirs, theirs_best = (method.paper or (None, None))[column], (best or (None, None))[column]
    if theirs is None or theirs_best is None or method.row == "best":
        return [ours, ""]
    return [ours, Cell(signed(theirs - theirs_best), _source(numbers, method.row))]


def _source(numbers: Numbers, row: str) -> str:
    """Return where the paper prints the numbers that stand beside the run's."""
    if table_3.is_authors_learned(numbers, row):
        return "not in the paper: a comment in the authors' learned_bylayer.py"
    cell = table_3.paper_cell(numbers)
    return PAPER if cell is None else f"Wortsman et al. 2022, Table J.1 ({cell.title})"


def _published(numbers: Numbers) -> Section:
    """Return the section that compares the run with published results, empty if not on ImageNet."""
    contents = []
    if beside_published.applies(numbers):
        head, *body = beside_published.comparison(numbers)
        contents.append(Table("published", head, body, beside_published.NOTE))
    return Section("Comparison with the published numbers", "", contents)


def _figures(numbers: Numbers) -> Section:
    contents = []
    if numbers.shifts or not numbers.chosen_on_test:  # otherwise both axes would show the same scores
        axes = "In distribution against under shift" if numbers.shifts else "Hold-out against test set"
        text = f"Figure 1. {axes}; each dot is an ingredient, coloured by learning rate."
        contents.append(Picture("figure_1", figures.figure_1(numbers), text))
    score = "accuracy" if numbers.has_top_1 else "score"
    if len(numbers.curve) > 1:
        text = f"Figure B.1. {score.capitalize()} against the number of models, in one random order."
        contents.append(Picture("figure_B1", figures.figure_b1(numbers), text))
    text = f"Each test set; lines are 95% intervals of one {score} (those of paired differences are narrower)."
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
            tip = f"{step['correct']:,} of {step['n']:,} {numbers.unit} of the hold-out."
            if not isinstance(step["correct"], int):  # not a count: the score times the number of examples
                tip = f"{numbers.score} on {step['n']:,} {numbers.unit} of the hold-out."
            tip += f"\n{origin(numbers.provenance, 'greedy')}"
            held_out = Cell(percent(step["correct"] / step["n"]), tip)
        decision = "joins" if step["kept"] else "left out"
        rows.append([str(step["ingredient"]), str(place), held_out, decision])
    joined = sum(bool(step["kept"]) for step in steps)
    strict = numbers.config.get("protocol") == "released"
    rule = "if the soup gets better" if strict else "unless the soup gets worse"
    sentence = f"Best model first, each candidate is added {rule}: {joined} of {len(steps)} joined."
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
    sentence = "Accuracy by set, in percent." if numbers.has_top_1 else f"{numbers.score_in_words}, by set."
    return Section("Each test set", sentence, [table])


def _ingredients(numbers: Numbers) -> Section:
    keys = ["Learning rate", "Weight decay", "Epochs", "Smoothing", "Mixup", "Augmentation"]
    if not numbers.has_images:
        keys = ["Learning rate", "Batch size", "Epochs", "Seed"]
    sets = {"Hold-out": numbers.holdout, "Test": numbers.test}
    if numbers.shifts:
        sets["Shifts"] = MEAN
    rows: list[Cells] = []
    for row in numbers.individuals.values():
        recipe = [""] * len(keys) if row.recipe is None else _recipe(row.recipe, numbers.has_images)
        rows.append([row.name, *recipe, *(_accuracy(numbers, row, on) for on in sets.values())])
    sentence = "Every fine-tuned model of the pool, with its recipe."
    if not numbers.has_top_1:
        sentence += f" {numbers.score_in_words}."
    table = Table("ingredients", ["Ingredient", *keys, *sets], rows)
    return Section("Ingredients", sentence, [table] if rows else [])


def _recipe(recipe: Recipe, images: bool) -> list[str]:
    """Return the cells of a recipe's hyperparameters; those of texts have no augmentation."""
    lr = f"{recipe.lr:.2e}"
    if not images:
        return [lr, str(recipe.batch_size), str(recipe.epochs or recipe.length), str(recipe.seed)]
    shares = [f"{recipe.label_smoothing:.2f}", f"{recipe.mixup:.2f}"]
    return [lr, f"{recipe.weight_decay:.2g}", str(recipe.epochs or recipe.length), *shares, recipe.aug]


def _texts(numbers: Numbers) -> Section:
    """Return the section on text sets: examples by class, repeated texts; empty for images."""
    if not numbers.texts:
        return Section("The data", "", [])
    classes = list(dict.fromkeys(name for facts in numbers.texts for name in facts["counts"]))
    rows: list[Cells] = []
    notes: list[Content] = []
    for facts in numbers.texts:
        counts = facts["counts"]
        by_class = [f"{counts.get(name, 0):,}" for name in classes]
        rows.append([facts["title"], f"{sum(counts.values()):,}", *by_class])
        notes += [f"{facts['title']}: {note}" for note in facts["notes"]]
    table = Table("data", ["Set", "Examples", *classes], rows, file=False)
    return Section("The data", "Examples of each set and class, the training set first.", [table, *notes])


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
        amounts[f"Training {numbers.unit}, over all epochs"] = f"{costs['images']:,}"
        hours = f"{costs['process_seconds'] / 3600:,.2g}"
        amounts["Hours of training, over all processes (GPU-hours where there are GPUs)"] = hours
    if weights := {row.get("sha256") for row in made.get("rows", {}).values()} - {None}:
        images = len(weights) * sum(s.n for s in numbers.sets)
        amounts[f"{numbers.unit.capitalize()} evaluated, without the greedy soup's candidates"] = f"{images:,}"
    return amounts
