"""Builds the sections of a run's report page from the contents of results.jsonl (`Numbers`)."""

from modelsoups.recipes.recipe import Recipe
from modelsoups.report import answer, beside_glue, beside_published, figure_1, figures, page_table_3, table_3
from modelsoups.report.claims import CLASSES, FAILS, HOLDS, OPEN, UNKNOWN, UNTESTED, Verdict
from modelsoups.report.numbers import MEAN, Numbers, percent
from modelsoups.report.page_table_3 import Cells, accuracies, accuracy_cell
from modelsoups.report.sections import Cell, Content, Facts, Lead, Photograph, Picture, Section, Table, origin
from modelsoups.report.table_3 import label_of


def sections(numbers: Numbers, verdicts: list[Verdict], contact: bytes | None) -> list[Section]:
    """Return the page's sections that have data, in order; call inside plotting.style(math=False).

    contact: a PNG with sample images of each data set, or None.
    """
    made = [_answer(numbers), page_table_3.section(numbers), _published(numbers), beside_glue.section(numbers)]
    made.append(_figures(numbers))
    made += [_claims(numbers, verdicts), _greedy(numbers), _each_set(numbers), _ingredients(numbers)]
    if contact:
        sheet = Photograph("contact", contact, "A row of images of each data set")
        made.append(Section("The data", "Images of each set, the training set first.", [sheet]))
    made += [_texts(numbers), _costs(numbers)]
    return [section for section in made if section.contents]


def _answer(numbers: Numbers) -> Section:
    contents: list[Content] = [Lead(answer.answer(numbers))]
    if figures.compared(numbers):
        both = (figures.gains(numbers), figures.gains(numbers, stacked=True))
        text = (
            "Difference from the best individual model in points, with 95% intervals of the paired differences. "
            "Right of the line is better. An ensemble runs all its members on each example."
        )
        contents.append(Picture("figure_gains", both[0], text, both[1]))
    where = "test set itself" if numbers.chosen_on_test else "hold-out"
    notes = [f"Best individual model and greedy soup: both chosen on the {where}.", *about_choice(numbers)]
    notes += numbers.notes
    for name, why in numbers.failed.items():
        notes.append(f"Ingredient {name} is not in the pool: {why}.")
    return Section("The answer", answer.question(numbers), [*contents, *notes])


def about_choice(numbers: Numbers) -> list[str]:
    """Return sentences on the examples that models are chosen on; none for images.

    Chosen on the hold-out: its standard error. Chosen on the test set: what that means.
    """
    if numbers.chosen_on_test:
        return [
            "Models were chosen on the test set itself (data.choose_on=validation), so scores of "
            "chosen models are too high, and p-values do not account for the choice."
        ]
    if numbers.holdout_error is None:
        return []
    (holdout,) = (s for s in numbers.sets if s.name == numbers.holdout)
    error = f"the standard error of the best individual model's score there is {100 * numbers.holdout_error:.2f} points"
    return [f"Hold-out: {holdout.n:,} {numbers.unit}; {error}. Smaller differences between models may be chance."]


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
        axes = (
            "Right is better in distribution, up is better under shift" if numbers.shifts else "Hold-out and test set"
        )
        text = (
            f"Figure 1. {axes}. Each dot is a fine-tuned model, coloured by learning rate; crosses are 95% "
            "intervals. Dashed: WiSE-FT, from a model towards the initialization."
        )
        contents.append(Picture("figure_1", figure_1.figure_1(numbers), text, figure_1.figure_1(numbers, 3.8)))
    score = "accuracy" if numbers.has_top_1 else "score"
    if len(numbers.curve) > 1:
        text = f"Figure B.1. {score.capitalize()} against the number of models, in one random order."
        narrow = figures.figure_b1(numbers, stacked=True) if numbers.shifts else None
        contents.append(Picture("figure_B1", figures.figure_b1(numbers), text, narrow))
    text = f"Each test set, with the 95% interval of each {score} (the intervals of paired differences are narrower)."
    narrow = figures.each_shift(numbers, 2) if numbers.available_shifts else None
    contents.append(Picture("figure_shifts", figures.each_shift(numbers), text, narrow))
    return Section("Figures", "Each is also a PDF and a PNG file next to this page.", contents)


GROUPS = {  # verdict -> title of its group of claims
    FAILS: "Does not hold in this run",
    HOLDS: "Holds in this run",
    OPEN: "Not decided: this run is too small to tell",
    UNTESTED: "Not tested: the prediction for each example is not known",
    UNKNOWN: "Not available: a data set is missing",
}


def _claims(numbers: Numbers, verdicts: list[Verdict]) -> Section:
    rows: list[Cells] = []
    parts: list[tuple[str, int]] = []
    for verdict, title in GROUPS.items():
        found = [v for v in verdicts if v.verdict == verdict]
        for v in found:
            judged = Cell(v.said or v.verdict, kind=CLASSES.get(v.verdict, "open"))
            rows.append([v.text, judged, Cell(v.numbers, origin(numbers.provenance)), v.source])
        parts += [(f"{title} ({len(found)})", len(found))] if found else []
    head = ["The paper's claim", "In this run", "Difference, 95% interval", "Source"]
    sentence = "A claim holds, or does not, if the difference is significant (p < 0.05); otherwise it is not decided."
    table = Table("claims", head, rows, text=2, file=False, parts=parts)
    return Section("Claims", sentence, [table] if rows else [])


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
    sentence = f"Models are tried from best to worst. Each joins {rule}: {joined} of {len(steps)} joined."
    head = ["Candidate", "Position", "Hold-out with it", "Decision"]
    trace = Picture("figure_greedy", figures.greedy_trace(numbers), "Recipe 1 (section 2), step by step.")
    return Section("Greedy soup", sentence, [trace, Table("greedy", head, rows, file=False)])


def _each_set(numbers: Numbers) -> Section:
    names = [*numbers.shifts, *numbers.extra]
    if not names:
        return Section("Each test set", "", [])
    rows: list[Cells] = []
    for method in table_3.method_rows(numbers):
        rows.append([method.label, *accuracies(numbers, method, names, method.sets)])
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
        rows.append([row.name, *recipe, *(accuracy_cell(numbers, row, on) for on in sets.values())])
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
    for name in ("best", "greedy", "greedy_ensemble"):
        if name in numbers.rows and (soup := numbers.rows[name].soup):
            facts[label_of(name)] = ", ".join(soup.ingredients)
    contents.append(Facts([(key, str(value)) for key, value in facts.items() if value]))
    sentence = "What this run cost, and what reproduces it. Every table and figure is also a file next to this page."
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
