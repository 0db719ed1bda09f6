"""Table 3's rows on ImageNet: ours beside the released results and the paper's numbers, which are of CLIP ViT-B/32.

The released means of the shifts lie 0.10 to 0.14 points above the paper's, for a reason nobody has published, so both
stand here. A published number lies within the statistical error when it is inside the 95% interval of ours: over the
images of the test set (Wilson), or of the five shifts together (normal, variances added).
"""

from __future__ import annotations

from modelsoups.published import tables
from modelsoups.report.numbers import Measured, Numbers, signed
from modelsoups.report.tables import Rows

HEAD = ["Method", "ImageNet: ours", "released", "difference", "paper", "difference"]
HEAD += ["Dist. shifts: ours", "released", "difference", "paper", "difference"]
NOTE = (
    "Per cent and points; the published numbers are of CLIP ViT-B/32. Differences are ours minus theirs; one outside "
    "the 95% interval of ours, which is the statistical error of a test set of that size, is marked with an asterisk."
)


def applies(numbers: Numbers) -> bool:
    """Whether a run is on the data that the published numbers are of."""
    config = numbers.provenance.get("config", {})
    return bool(config.get("data", {}).get("library") == "imagenet")


def rows_of(numbers: Numbers) -> Rows:
    """The rows that were published and that this run has, as text, header first."""
    rows = [HEAD]
    for line in tables.table_3_from_released():
        ours = numbers.rows.get(line.row)
        if ours is None:
            continue
        paper = line.paper or (None, None)
        test = _cells(_test(numbers, ours), line.imagenet, paper[0])
        rows.append([line.label, *test, *_cells(_shifts(ours), line.shifts, paper[1])])
    return rows


def released_rows() -> Rows:
    """The released results alone beside the paper's, with the difference."""
    rows = [["Method", "Model", "ImageNet: released", "paper", "difference"]]
    rows[0] += ["Dist. shifts: released", "paper", "difference", *(tables.TITLES[name] for name in tables.SHIFTS)]
    for line in tables.table_3_from_released():
        paper = line.paper or (None, None)
        shifts = [f"{line.by_shift[name]:.2f}" for name in tables.SHIFTS]
        both = [_beside(line.imagenet, paper[0]), _beside(line.shifts, paper[1])]
        rows.append([line.label, line.model or "", *both[0], *both[1], *shifts])
    return rows


def _beside(value: float, paper: float | None) -> list[str]:
    return [f"{value:.2f}", *([f"{paper:.2f}", signed(value - paper)] if paper is not None else ["", ""])]


def _cells(ours: tuple[float, float] | None, released: float, paper: float | None) -> list[str]:
    """ours: value and half of its interval, in per cent."""
    cells = ["not available" if ours is None else f"{ours[0]:.2f}"]
    for theirs in (released, paper):
        cells.append("" if theirs is None else f"{theirs:.2f}")
        if ours is None or theirs is None:
            cells.append("")
        else:
            difference = ours[0] - theirs
            cells.append(signed(difference) + ("*" if abs(difference) > ours[1] else ""))
    return cells


def _test(numbers: Numbers, row: Measured) -> tuple[float, float]:
    result = row.results[numbers.test]
    return 100 * result.accuracy, 50 * (result.high - result.low)


def _shifts(row: Measured) -> tuple[float, float] | None:
    return (100 * row.mean.accuracy, 50 * (row.mean.high - row.mean.low)) if row.mean else None
