"""The paper's scores on GLUE: Table J.1, Table 5 (a part of it), and the paper's claims."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS
from modelsoups.published.tables import PAPER_NAMES, paper_rows

DATA = {"mrpc": "MRPC", "rte": "RTE", "cola": "CoLA", "sst2": "SST-2"}  # column of tables.json -> name
MODELS = {  # name in the transformers library -> name in Table J.1
    "bert-base-uncased": "BERT-base",
    "bert-large-uncased": "BERT-large",
    "t5-small": "T5-small",
    "t5-base": "T5-base",
    "t5-large": "T5-large",
}
IN_TABLE_5 = {"BERT-base": "BERT", "T5-base": "T5"}  # name in Table J.1 -> name in Table 5
METHODS = ("best", "uniform", "greedy")
CLAIMED = 10  # of 20 cells in which the greedy soup is better than the best model (appendix J.5)


@dataclass(frozen=True)
class Cell:
    """The paper's scores for one model on one data set, times 100, as printed in Table J.1."""

    model: str
    data: str  # a key of DATA
    best: float
    uniform: float
    greedy: float

    @property
    def title(self) -> str:
        return f"{self.model} on {DATA[self.data]}"

    def score(self, row: str) -> float | None:
        """Return the score of a row of the report (best, uniform or greedy); None for others."""
        scores: Mapping[str, float] = {"best": self.best, "uniform": self.uniform, "greedy": self.greedy}
        return scores.get(row)


@dataclass(frozen=True)
class Counts:
    """How many cells (model and data set) there are, and in how many a soup is better or equal."""

    cells: int
    greedy_better: int
    greedy_equal: int
    uniform_better: int
    uniform_equal: int

    @property
    def text(self) -> str:
        return (
            f"The greedy soup is better than the best individual model in {self.greedy_better} of "
            f"{self.cells} cells ({self.greedy_equal} equal), the uniform soup in "
            f"{self.uniform_better} ({self.uniform_equal} equal)."
        )


def cells() -> list[Cell]:
    """Return the 20 cells of Table J.1: five models on four data sets."""
    rows = paper_rows("table_j1")
    found = []
    for model in MODELS.values():
        by_method = [rows[f"{model} / {PAPER_NAMES[method]}"] for method in METHODS]
        for data, scores in zip(DATA, zip(*by_method, strict=True), strict=True):
            found.append(Cell(model, data, *scores))
    return found


def cell(model: str, data: str) -> Cell | None:
    """Return the paper's cell of a run's model.name and data.name; None if not in the paper.

    model: a name on the hub or a folder of that name. data: "glue_mrpc", "MRPC", "SST-2", ...
    """
    printed_model = MODELS.get(PurePosixPath(model).name.lower())
    column = re.sub(r"[^a-z0-9]", "", data.lower()).removeprefix("glue")
    return next((c for c in cells() if (c.model, c.data) == (printed_model, column)), None)


def printed_gain(found: Cell) -> float | None:
    """Return the greedy soup's gain that Table 5 prints in parentheses; None if not in Table 5."""
    if found.model not in IN_TABLE_5:
        return None
    greedy = paper_rows("table_5")[f"{IN_TABLE_5[found.model]} / {PAPER_NAMES['greedy']}"]
    return float(greedy[list(DATA).index(found.data)][1])


def count(scores: Sequence[tuple[float, float, float]]) -> Counts:
    """Count the cells in which soups are better than the best model, or equal.

    scores: for each cell those of the best individual model, the uniform and the greedy soup.
    """
    greedy = [greedy - best for best, _, greedy in scores]
    uniform = [uniform - best for best, uniform, _ in scores]
    better, equal = ([sum(d > 0 for d in x) for x in (greedy, uniform)], [x.count(0) for x in (greedy, uniform)])
    return Counts(len(scores), better[0], equal[0], better[1], equal[1])


def paper_counts() -> Counts:
    """Return the counts in the paper's own Table J.1."""
    return count([(c.best, c.uniform, c.greedy) for c in cells()])


def claim_holds(counts: Counts) -> bool:
    """Return whether counts are those that appendix J.5 claims: 10 of 20 cells, and none."""
    return (counts.cells, counts.greedy_better, counts.uniform_better) == (20, CLAIMED, 0)


def slips(found: Cell | None = None) -> list[str]:
    """Return sentences on the paper's slips in its text results; found: only those of this cell."""
    notes = storage.read_json(ASSETS / "published" / "tables.json")["table_j1"]["notes"]
    texts = []
    for note in notes:
        if found is None or (note["data"] == found.data and note["model"] in (None, found.model)):
            texts.append(str(note["text"]))
    return texts
