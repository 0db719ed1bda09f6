"""Comparison of a run's Table 3 on ImageNet with the authors' released results and the paper.

The published numbers are for CLIP ViT-B/32. The released means over the shifts are 0.10 to 0.14
points above the paper's, for an unpublished reason, so both are shown. A published accuracy agrees
with the run's if it is inside the 95% interval of the run's accuracy: Wilson's interval on the test
set, or for the mean of the five shifts a normal one (their variances added).
"""

from pathlib import PurePath

from modelsoups.published import released, tables
from modelsoups.report.numbers import Numbers, Result, signed
from modelsoups.report.table_3 import is_authors_learned
from modelsoups.report.text_tables import TextTable

NOTE = (
    "Accuracies in percent, differences in points. The published numbers are for CLIP ViT-B/32. A "
    "difference is this run's number minus the published one. An asterisk marks a published number "
    "outside the 95% interval of this run's number, which reflects only the size of the test set."
)


def applies(numbers: Numbers) -> bool:
    """Return whether the run is of the published numbers' model (OpenAI's CLIP ViT-B/32) and data."""
    config = numbers.config
    model, on_imagenet = config.get("model", {}), config.get("data", {}).get("library") == "imagenet"
    tag = model.get("tag")
    weights = tag in (None, "openai") or bool(PurePath(tag).suffix)  # null: imported; or OpenAI's file
    return bool(on_imagenet and model.get("name") == released.ARCHITECTURE and weights)


def how_to_compare(numbers: Numbers) -> str:
    """Return ": ..." on comparing with the paper's numbers if they are for another model or other data."""
    if applies(numbers):
        return ""
    other = "with another model" if numbers.config.get("data", {}).get("library") == "imagenet" else "on other data"
    return f": {other} compare the gains, not the levels"


def comparison(numbers: Numbers) -> TextTable:
    """Return a table by method: accuracies of this run, of the authors' files, and of the paper."""
    columns = ["released", "difference", "paper", "difference"]
    rows = [["Method", "ImageNet: ours", *columns, "Dist. shifts: ours", *columns]]
    for published in tables.table_3_from_released():
        ours = numbers.rows.get(published.row)
        same = published.row != "learned_tensors" or is_authors_learned(numbers, published.row)
        if ours and same:
            test, shifts = published.paper or (None, None)
            on_test = cells(ours.results[numbers.test], published.imagenet, test)
            on_shifts = cells(ours.mean, published.shifts, shifts)
            rows.append([published.label, *on_test, *on_shifts])
    return rows


def cells(ours: Result | None, released: float | None, paper: float | None) -> list[str]:
    """Return five table cells: our accuracy, then each published accuracy and ours minus it.

    released, paper: in percent, or None if not published. A difference outside the 95% interval of
    `ours` is marked "*".
    """
    made = ["not available" if ours is None else f"{100 * ours.accuracy:.2f}"]
    for theirs in (released, paper):
        made.append("" if theirs is None else f"{theirs:.2f}")
        if ours is None or theirs is None:
            made.append("")
            continue
        difference, half = 100 * ours.accuracy - theirs, 50 * (ours.high - ours.low)
        made.append(signed(difference) + ("*" if abs(difference) > half else ""))
    return made


def released_alone() -> TextTable:
    """Return a table of the accuracies in the authors' repository next to those in the paper."""
    titles = map(tables.TITLES.__getitem__, tables.SHIFTS)
    columns = ["ImageNet: released", "Dist. shifts: released"]
    head = ["Method", "Model", columns[0], "paper", "difference", columns[1], "paper", "difference"]
    rows = [[*head, *titles]]
    for row in tables.table_3_from_released():
        test, shifts = row.paper or (None, None)
        both = _with_paper(row.imagenet, test) + _with_paper(row.shifts, shifts)
        by_shift = [f"{row.by_shift[name]:.2f}" if name in row.by_shift else "" for name in tables.SHIFTS]
        rows.append([row.label, row.model or "", *both, *by_shift])
    return rows


def _with_paper(released: float | None, paper: float | None) -> list[str]:
    if released is None:
        return ["", "", ""]
    if paper is None:
        return [f"{released:.2f}", "", ""]
    return [f"{released:.2f}", f"{paper:.2f}", signed(released - paper)]
