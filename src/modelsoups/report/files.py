"""Writes a report's files (tables, figures, claims and the HTML page) from results.jsonl."""

from pathlib import Path
from typing import Any

from modelsoups.disk import manifests, paths, storage
from modelsoups.report import (
    answer,
    beside_published,
    claims,
    experiment_sections,
    released_results,
    table_3,
    text_tables,
)
from modelsoups.report.numbers import Numbers
from modelsoups.report.plotting import style
from modelsoups.report.sections import files as files_of
from modelsoups.report.templates import render
from modelsoups.workers.processes import watched

SOURCES = (paths.RESULTS, paths.PROVENANCE)  # and contact.png if it exists
ANALYSES = "analysis/index.html"  # the page of `modelsoups analyse`, if that has run


def source_hashes(folder: Path) -> dict[str, str]:
    """Return file name -> sha256 of the report's inputs; "linked" if a page of analyses exists."""
    hashes = {}
    for name in (*SOURCES, "contact.png"):
        if (folder / name).exists():
            hashes[name] = storage.file_sha256(folder / name)
    if (folder / ANALYSES).exists():
        hashes[ANALYSES] = "linked"
    return hashes


def is_current(folder: Path, manifest: dict[str, Any] | None) -> bool:
    """Return whether the report is complete and its input files have not changed since."""
    return manifest is not None and manifest.get("made_from") == source_hashes(folder)


def refresh(folder: Path) -> None:
    """Write the report again if it is complete, but its input files have changed since."""
    manifest = manifests.manifest_of(folder)
    if manifest is not None and not is_current(folder, manifest):
        write_report(folder, manifest["inputs"])


def write_report(folder: Path, inputs: dict[str, Any]) -> None:
    """Write the report of results.jsonl in `folder` into the same folder, the manifest last.

    inputs: what the numbers depend on (hashes and settings), which the manifest records.
    """
    made_from = source_hashes(folder)
    numbers = Numbers.read(folder)
    verdicts = claims.check(numbers)
    made = {name: text.encode() for name, text in _texts(numbers).items()}
    made["claims.md"] = claims.markdown(verdicts).encode()
    contact = (folder / "contact.png").read_bytes() if "contact.png" in made_from else None
    with style(math=False):
        shown = experiment_sections.sections(numbers, verdicts, contact)
        with watched("report", sum(len(section.contents) for section in shown)):
            made |= files_of(shown)
        links = [(ANALYSES, "The paper's analyses")] if ANALYSES in made_from else []
        title = f"Model soups: {numbers.name}"
        page = render("report.html", title=title, sections=shown, links=links)
    made["index.html"] = page.encode()
    for name, content in made.items():
        with storage.atomic(folder / name) as tmp:
            tmp.write_bytes(content)
    files = [folder / name for name in dict.fromkeys([*made_from, *made]) if name != ANALYSES]
    manifests.finish(folder, inputs, files, made_from=made_from)


def _texts(numbers: Numbers) -> dict[str, str]:
    """Return file name -> text: table_3 as .md, .tex and .csv, summary.txt and, if there
    are shifts or extra sets, table_sets.tex."""
    if released_results.applies(numbers):
        rows = beside_published.released_alone()
        short = text_tables.aligned([row[:8] for row in rows])
        narrow = [[row[0], *row[2:8]] for row in rows]
    else:
        rows, short = table_3.wide(numbers), table_3.summary(numbers)
        narrow = table_3.without_sets(numbers)
    texts = {**text_tables.files("table_3", rows), "table_3.tex": text_tables.latex(narrow)}
    if table_3.set_titles(numbers):
        texts["table_sets.tex"] = text_tables.latex(table_3.each_set(numbers))
    texts["summary.txt"] = f"{short}\n\n{_headline(numbers)}\n"
    return texts


def _headline(numbers: Numbers) -> str:
    """Return the answer in sentences, one a line, then notes.

    A run on texts also prints the standard error of the hold-out, on which its models are chosen.
    """
    return "\n".join([*answer.answer(numbers), *experiment_sections.about_choice(numbers), *numbers.notes])
