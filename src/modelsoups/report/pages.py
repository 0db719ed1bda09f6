"""The files of a report: tables, figures, claims and one page, made from results.jsonl alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsoups.config.schema import Config
from modelsoups.disk import manifests, storage
from modelsoups.published import tables
from modelsoups.report.measure import report_inputs
from modelsoups.workers.processes import watched

if TYPE_CHECKING:
    from modelsoups.report.numbers import Numbers

ANALYSIS = "analysis/index.html"  # the page of `modelsoups analyse`, where that has run


def report_inputs_of(cfg: Config) -> dict[str, Any]:
    """What the numbers are of: a finished run, the authors' released results, or, without either, what is there."""
    if manifests.manifest_of(cfg.run.soups) is None:
        if cfg.pool == "imported":
            return {"released results": tables.MODELS}
        manifest = cfg.run.results / manifests.MANIFEST
        if manifest.exists() and not cfg.run.draw.exists():  # its folder is: a report leaves its time and its log there
            print(f"report: {cfg.run.root} is not here; from {cfg.run.results / MEASURED[0]}")
            return dict(storage.read_json(manifest)["inputs"])
    return report_inputs(cfg)


def measured_files(folder: Path) -> dict[str, str]:
    """Hashes of what a page is made from."""
    there = [folder / name for name in (*MEASURED, "contact.png") if (folder / name).exists()]
    linked = {ANALYSIS: "linked"} if (folder / ANALYSIS).exists() else {}
    return {path.name: storage.file_sha256(path) for path in there} | linked


MEASURED = ("results.jsonl", "provenance.json")  # and contact.png, where there were images


def link(cfg: Config) -> None:
    """Make the page of a report that is there already anew, if it does not name the analyses yet."""
    manifest = manifests.manifest_of(cfg.run.results)
    if manifest is not None and manifest.get("made_from") != measured_files(cfg.run.results):
        render(cfg, manifest["inputs"])


def render(cfg: Config, inputs: dict[str, Any]) -> None:
    """Everything that follows from the measured files."""
    from modelsoups.report import claims, contents, figures, page, sections
    from modelsoups.report.numbers import Numbers

    folder = cfg.run.results
    measured = measured_files(folder)
    numbers = Numbers.read(folder)
    verdicts = claims.check(numbers)
    made = {name: text.encode() for name, text in _texts(numbers).items()}
    made["claims.md"] = claims.markdown(verdicts).encode()
    contact = (folder / "contact.png").read_bytes() if "contact.png" in measured else None
    with figures.style(math=False):
        parts = contents.sections(numbers, verdicts, contact)
        with watched("report", sum(len(part.parts) for part in parts), images=False):
            made |= sections.files(parts)
        links = [(ANALYSIS, "The paper's analyses")] if ANALYSIS in measured else []
        made["index.html"] = page.document(f"Model soups: {numbers.name}", parts, links).encode()
        sections.close(parts)
    for name, content in made.items():
        write_file(folder / name, content)
    files = [folder / name for name in dict.fromkeys([*measured, *made]) if name != ANALYSIS]
    manifests.finish(folder, inputs, files, made_from=measured)


def _texts(numbers: Numbers) -> dict[str, str]:
    """Table 3 in the forms that are not the page's, and the summary."""
    from modelsoups.report import beside, from_released, tables

    if from_released.applies(numbers):
        rows = beside.released_rows()
        short = [row[:8] for row in rows]
        printed = tables.latex([[row[0], *row[2:8]] for row in rows])
    else:
        rows, short = tables.rows_of(numbers), tables.summary_rows(numbers)
        printed = tables.latex(tables.beside_paper(numbers))
    return {
        "table_3.md": tables.markdown(rows),
        "table_3.csv": tables.comma_separated(rows),
        "table_3.tex": printed,
        "table_sets.tex": tables.latex(tables.each_set(numbers)),
        "summary.txt": tables.aligned(short) + "\n\n" + "\n".join(headline(numbers)) + "\n",
    }


def headline(numbers: Numbers) -> list[str]:
    """The greedy soup against the best individual, a line each for test and shifts, and what a reader must know."""
    from modelsoups.report.numbers import interval, percent

    said = [f"greedy soup - best individual, {d.on}: {percent(d.value, True)} {interval(d)}" for d in numbers.headline]
    return said + numbers.notes


def write_file(path: Path, content: bytes) -> None:
    with storage.atomic(path) as tmp:
        tmp.write_bytes(content)
