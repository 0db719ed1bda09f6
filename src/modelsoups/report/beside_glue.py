"""Table 5 with the scores of a text run, in both readings of the paper, next to the printed ones.

The paper scores text models on GLUE's validation sets, and does not say on which examples the best
model and the greedy soup are chosen: on a hold-out, or on the validation set itself.
"""

from modelsoups.published import glue
from modelsoups.report.claims import FAILS, HOLDS
from modelsoups.report.numbers import Numbers, Result, percent, signed
from modelsoups.report.sections import Content, Section, Table
from modelsoups.report.table_3 import label_of, paper_cell

READINGS = {  # title of a column -> the rows of best model, uniform and greedy soup in it
    "Chosen on the hold-out": ("best", "uniform", "greedy"),
    "Chosen on the test set": ("best_validation", "uniform", "greedy_validation"),
}
ABSENT = "not in the paper"


def applies(numbers: Numbers) -> bool:
    """Return whether the run classifies texts."""
    return bool(numbers.config.get("task") == "text")


def readings(numbers: Numbers) -> dict[str, tuple[str, ...]]:
    """Return the readings whose rows this run has: title -> rows of METHODS, in their order."""
    if numbers.chosen_on_test:
        hold_out, on_test = READINGS
        return {on_test: READINGS[hold_out]}
    return {title: rows for title, rows in READINGS.items() if set(rows) <= set(numbers.rows)}


def table(numbers: Numbers) -> Table:
    """Return Table 5's rows: our scores with intervals, the paper's, and ours minus the paper's."""
    paper, ours = paper_cell(numbers), readings(numbers)
    head = ["Method", f"Paper: {paper.title if paper else 'Table J.1'}"]
    for title in ours:
        head += [title, "Minus paper"] if paper else [title]
    rows = []
    for place, method in enumerate(glue.METHODS):
        printed = paper.score(method) if paper else None
        cells = [label_of(method), ABSENT if printed is None else f"{printed:.1f}"]
        for names in ours.values():
            cells += _cells(numbers.rows[names[place]].results[numbers.test], printed)
        rows.append(cells)
    caption = (
        f"{numbers.score_in_words}, on {numbers.title(numbers.test)}; in brackets the 95% "
        "interval, which reflects only the size of the test set. An asterisk marks a printed score "
        "outside it. The paper does not say whether models were chosen on the validation set "
        "itself. If they were, the scores are too high."
    )
    return Table("table_5", head, rows, caption)


def _cells(ours: Result, printed: float | None) -> list[str]:
    score = f"{percent(ours.accuracy)} [{percent(ours.low)}, {percent(ours.high)}]"
    if printed is None:
        return [score]
    outside = not ours.low <= printed / 100 <= ours.high
    return [score, signed(100 * ours.accuracy - printed) + ("*" if outside else "")]


def section(numbers: Numbers) -> Section:
    """Return the section with Table 5 and what the paper claims of it; empty for images."""
    title = "Table 5"
    if not applies(numbers) or not set(glue.METHODS) <= set(numbers.rows):
        return Section(title, "", [])
    paper = paper_cell(numbers)
    contents: list[Content] = [table(numbers), paper_claim()]
    if paper is None:
        model, data = numbers.config["model"]["name"], numbers.config["data"]["name"]
        contents.append(f"The paper has no scores of {model} on {data}.")
    else:
        contents += glue.slips(paper)
    about = numbers.config["data"]
    if limit := about.get("limit") or about.get("text", {}).get("limit"):  # the key's name until 0.2.0
        contents.append(f"This run trains on at most {limit:,} examples (data.limit), the paper's on all.")
    sentence = "The rows of Table 5, and of Table J.1 for other models, next to the paper's."
    return Section(title, sentence, contents)


def paper_claim() -> str:
    """Return appendix J.5's claim and whether the paper's own Table J.1 bears it out."""
    counts = glue.paper_counts()
    verdict = HOLDS if glue.claim_holds(counts) else FAILS
    claim = f"greedy beats the best individual model in {glue.CLAIMED} of 20 cells, the uniform soup in none"
    return f"Appendix J.5 claims that {claim}; by the numbers of Table J.1 this {verdict}. {counts.text}"
