"""Writes docs/gallery.md: every figure in results/, how to read it, and the command that makes it.

Usage: python docs/gallery.py. As a hook of mkdocs, it also puts the figures and pages of results/ on the site.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelsoups.analyses.registry import ANALYSES
from modelsoups.published import index

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs/gallery.md", ROOT / "results"
SHOWN = ("*.png", "index.html")  # files of results/ that the site needs
FIRST = RESULTS / "miniature"  # the run whose figures are shown large
REPORT = {  # the figures of every report: title, and how to read it
    "figure_gains": (
        "Gains",
        "Difference of each method from the best individual model, with 95% intervals; right of the line is better.",
    ),
    "figure_1": (
        "Figure 1",
        "Right is better in distribution, up is better under shift; dots are single models, and dashed lines are "
        "WiSE-FT, from a model towards the initialization.",
    ),
    "figure_B1": (
        "Figure B.1",
        "Accuracy against the number of models, in one random order.",
    ),
    "figure_shifts": (
        "Each test set",
        "Accuracy on each test set, with its 95% interval.",
    ),
    "figure_greedy": (
        "The greedy soup, step by step",
        "Hold-out accuracy of each candidate; a filled mark joined the soup, an open one was left out.",
    ),
    "contact": (
        "The data",
        "Images of each data set, the training set first.",
    ),
}
BENCHMARKS = {
    "soup": ("Mixing checkpoints", "Seconds and memory against the number and the size of the checkpoints."),
    "learned": ("Learned soups", "Seconds and memory of a step against the number of checkpoints."),
}
RENAMED = {"data.text.limit=": "data.limit="}  # keys of older commands
HEAD = """# Gallery

Every figure in `results/`, how to read it, and the command that makes it.

Each report is also a page: {pages}.

`python docs/gallery.py` writes this page from the files in `results/`.
"""


def markdown() -> str:
    """Return the gallery: the miniature, the paper's analyses, the other runs, the benchmarks."""
    pages = [f"[{_name(page.parent)}]({_link(page)})" for page in sorted(RESULTS.rglob("index.html"))]
    parts = [HEAD.format(pages=", ".join(pages)), f"## {_name(FIRST)}\n\n{_command(FIRST)}"]
    parts += [_large(figure, *REPORT[figure.stem]) for figure in _figures(FIRST, list(REPORT))]
    for folder in sorted(RESULTS.rglob("analysis")):
        parts.append(f"## {_name(folder)}\n\n{_command(folder)}")
        commands = {name: entry.here for entry in reversed(index.entries()) for name in entry.makes}
        for figure in _figures(folder, list(ANALYSES)):
            analysis, command = ANALYSES[figure.stem], commands[figure.stem]
            alone = _code(command) + "\n" if f"experiment={folder.parent.name} " in command else ""
            parts.append(_large(figure, analysis.title, analysis.shows, alone))
    parts.append("## Other runs\n\nThe figures are those of the miniature's report, on other models or data.\n")
    for report in sorted(RESULTS.rglob("results.jsonl")):
        if report.parent != FIRST:
            parts.append(_small(report.parent))
    parts.append("## Benchmarks\n")
    for figure in _figures(RESULTS / "benchmarks", list(BENCHMARKS)):
        parts.append(_large(figure, *BENCHMARKS[figure.stem], _code(f"python benchmarks/{figure.stem}.py") + "\n"))
    return "\n".join(parts)


def _figures(folder: Path, order: list[str]) -> list[Path]:
    """Return a folder's figures in this order of names; ValueError if one has no name in it."""
    return sorted(folder.glob("*.png"), key=lambda figure: order.index(figure.stem))


def _large(figure: Path, title: str, shows: str, command: str = "") -> str:
    return f"### {title}\n\n{shows}\n\n{command}![{title}]({_link(figure)})\n"


def _small(folder: Path) -> str:
    """Return the report's figures of a run side by side."""
    figures = _figures(folder, list(REPORT))
    titles = [REPORT[figure.stem][0] for figure in figures]
    cells = [f"[![{t}]({_link(f)})]({_link(f)})" for t, f in zip(titles, figures, strict=True)]
    rows = (titles, ["---"] * len(titles), cells)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"### {_name(folder)}\n\n{_command(folder)}\n{table}\n"


def _command(folder: Path) -> str:
    """Return the command that made a run's results, as a block of code, with the present names of keys."""
    command = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["command"]
    for before, now in RENAMED.items():
        command = command.replace(before, now)
    return _code(command)


def _code(command: str) -> str:
    return f"```\n{command}\n```\n"


def _name(folder: Path) -> str:
    """Return the title of a run's folder: "paper-miniature, the paper's analyses"."""
    return f"{folder.parent.name}, the paper's analyses" if folder.name == "analysis" else folder.name


def _link(file: Path) -> str:
    return f"../{file.relative_to(ROOT)}"


def _published() -> Iterator[Path]:
    for pattern in SHOWN:
        yield from sorted(RESULTS.rglob(pattern))


def on_files(files: Any, config: Any) -> Any:
    """Add the figures and pages of results/ to the files of the site (a hook of mkdocs)."""
    from mkdocs.structure.files import File

    for file in _published():
        path = file.relative_to(ROOT).as_posix()
        files.append(File(path, str(ROOT), config["site_dir"], config["use_directory_urls"]))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page whose links to results/ lead to their copies on the site (a hook of mkdocs)."""
    return markdown.replace("](../results/", "](results/")


if __name__ == "__main__":
    PAGE.write_text(markdown(), encoding="utf-8")
