"""Table J.1 over all finished text runs whose results lie side by side, such as results/*.

`modelsoups report` of a text run writes it to the folder that contains the run's results.
"""

from collections.abc import Sequence
from pathlib import Path

from modelsoups.disk import storage
from modelsoups.disk.paths import RESULTS
from modelsoups.published import glue
from modelsoups.report import beside_glue, text_tables
from modelsoups.report.numbers import Numbers, percent
from modelsoups.report.table_3 import paper_cell

NAME = "table_j1"


def finished(folder: Path) -> list[Numbers]:
    """Return the results of the text runs in the folders of `folder`, by name of the folder."""
    runs = []
    for file in sorted(folder.glob(f"*/{RESULTS}")):
        try:
            numbers = Numbers.read(file.parent)
        except (ValueError, OSError):
            continue  # the report of that run gives the error
        if beside_glue.applies(numbers) and set(glue.METHODS) <= set(numbers.rows):
            runs.append(numbers)
    return runs


def table(runs: Sequence[Numbers]) -> text_tables.TextTable:
    """Return a row per run and reading: scores of best model and soups, ours and the paper's."""
    head = ["Model", "Data", "Score", "Chosen on", "Best", "Uniform", "Greedy", "Greedy - best, 95% interval"]
    rows = [[*head, "Paper: best", "Paper: uniform", "Paper: greedy"]]
    for numbers in runs:
        paper, model, data = paper_cell(numbers), numbers.config["model"]["name"], numbers.config["data"]["name"]
        printed = [f"{paper.score(m):.1f}" if paper else beside_glue.ABSENT for m in glue.METHODS]
        for reading, names in beside_glue.readings(numbers).items():
            scores = [percent(numbers.rows[name].accuracy(numbers.test)) for name in names]
            cells = [str(model), str(data), numbers.score, reading.removeprefix("Chosen on the "), *scores]
            rows.append([*cells, _gain(numbers, names), *printed])
    return rows


def _gain(numbers: Numbers, names: Sequence[str]) -> str:
    best, _, greedy = names
    d = numbers.difference(greedy, best, numbers.test)
    if d is None:
        return "not compared"
    ends = "" if d.low is None or d.high is None else f" [{percent(d.low, True)}, {percent(d.high, True)}]"
    return percent(d.value, True) + ends


def summary(runs: Sequence[Numbers]) -> list[str]:
    """Return a sentence per reading on how often soups are better, and the paper's own count."""
    lines = []
    for title in beside_glue.READINGS:
        scores = []
        for numbers in runs:
            if names := beside_glue.readings(numbers).get(title):
                best, uniform, greedy = (numbers.rows[name].accuracy(numbers.test) for name in names)
                scores.append((best, uniform, greedy))
        if scores:
            lines.append(f"{title}: {glue.count(scores).text}")
    return [*lines, beside_glue.paper_claim()]


def write(folder: Path) -> bool:
    """Write table_j1.md, .csv and .tex for the text runs in `folder`; False if there are none."""
    runs = finished(folder)
    if not runs:
        return False
    for name, text in text_tables.files(NAME, table(runs)).items():
        if name.endswith(".md"):
            text += "".join(f"\n{line}\n" for line in summary(runs))
        storage.write_text(folder / name, text)
    return True
