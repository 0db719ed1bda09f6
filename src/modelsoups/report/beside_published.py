"""Table 3's rows on ImageNet: ours beside the authors' released results and the paper's numbers.

The published numbers are of CLIP ViT-B/32. The released means over the shifts lie 0.10 to 0.14
points above the paper's, for a reason that was never published, so both are shown. A published
number agrees when it lies inside the 95% interval of ours: Wilson's over the images of the test
set, or a normal one over the five shifts together (variances added).
"""

from modelsoups.published import tables
from modelsoups.report.numbers import Numbers, Result, signed
from modelsoups.report.text_tables import TextTable

NOTE = (
    "Per cent and points; the published numbers are of CLIP ViT-B/32. Differences are ours minus "
    "theirs; one outside the 95% interval of ours, which is the statistical error of a test set of "
    "that size, is marked with an asterisk."
)


def applies(numbers: Numbers) -> bool:
    """Whether the run is on ImageNet, like the published numbers."""
    data = numbers.provenance.get("config", {}).get("data", {})
    return bool(data.get("library") == "imagenet")


def comparison(numbers: Numbers) -> TextTable:
    """The rows that were published and that this run has, the header first."""
    columns = ["released", "difference", "paper", "difference"]
    rows = [["Method", "ImageNet: ours", *columns, "Dist. shifts: ours", *columns]]
    for published in tables.table_3_from_released():
        if ours := numbers.rows.get(published.row):
            test, shifts = published.paper or (None, None)
            on_test = cells(ours.results[numbers.test], published.imagenet, test)
            on_shifts = cells(ours.mean, published.shifts, shifts)
            rows.append([published.label, *on_test, *on_shifts])
    return rows


def cells(ours: Result | None, released: float, paper: float | None) -> list[str]:
    """Five cells: ours, then the released and the paper's number (in per cent) and the differences.

    ours may be None (not available). A difference outside the 95% interval of ours is marked "*".
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
    """The released results beside the paper's, with the differences, the header first."""
    titles = map(tables.TITLES.__getitem__, tables.SHIFTS)
    columns = ["ImageNet: released", "Dist. shifts: released"]
    head = ["Method", "Model", columns[0], "paper", "difference", columns[1], "paper", "difference"]
    rows = [[*head, *titles]]
    for row in tables.table_3_from_released():
        test, shifts = row.paper or (None, None)
        both = _with_paper(row.imagenet, test) + _with_paper(row.shifts, shifts)
        by_shift = [f"{row.by_shift[name]:.2f}" for name in tables.SHIFTS]
        rows.append([row.label, row.model or "", *both, *by_shift])
    return rows


def _with_paper(released: float, paper: float | None) -> list[str]:
    if paper is None:
        return [f"{released:.2f}", "", ""]
    return [f"{released:.2f}", f"{paper:.2f}", signed(released - paper)]
