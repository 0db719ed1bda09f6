"""results.jsonl, then tables, figures, claims and one HTML page made from that file alone: `modelsoups report`.

What a results folder holds in results.jsonl, provenance.json and contact.png is measured from a finished run; all the
rest follows from these three, and is made again whenever one of them changes, with or without the run at hand.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsoups import published, runs
from modelsoups.evidence import collect, report_inputs
from modelsoups.parallel import watched
from modelsoups.schema import Config

if TYPE_CHECKING:
    from modelsoups.reporting.compare import Numbers

ANALYSIS = "analysis/index.html"  # the page of `modelsoups analyse`, where that has run
MEASURED = ("results.jsonl", "provenance.json")  # and contact.png, where there were images


def run(cfg: Config) -> bool:
    """Write the report if it is not complete, and print Table 3 with its headline either way."""
    folder = cfg.run.results
    inputs = _inputs(cfg)
    if not _measured(folder, inputs):
        _measure(cfg)
    manifest = runs.complete(folder, inputs)
    made = manifest is None or manifest.get("made_from") != _files(folder)
    if made:
        _render(cfg, inputs)
    else:
        print(f"report: complete, in {folder}")
    print("\n" + (folder / "summary.txt").read_text(encoding="utf-8"))
    print(f"report: {folder / 'index.html'}")
    return made


def _inputs(cfg: Config) -> dict[str, Any]:
    """What the numbers are of: a finished run, the authors' released results, or, without either, what is there."""
    if runs.manifest_of(cfg.run.soups) is None:
        if cfg.pool == "imported":
            return {"released results": published.MODELS}
        manifest = cfg.run.results / runs.MANIFEST
        if manifest.exists() and not cfg.run.draw.exists():  # its folder is: a report leaves its time and its log there
            print(f"report: {cfg.run.root} is not here; from {cfg.run.results / MEASURED[0]}")
            return dict(runs.read_json(manifest)["inputs"])
    return report_inputs(cfg)


def _measured(folder: Path, inputs: dict[str, Any]) -> bool:
    """Whether the folder's numbers are of these inputs; whether they were edited since is not asked."""
    manifest = folder / runs.MANIFEST
    there = manifest.exists() and all((folder / name).exists() for name in MEASURED)
    return there and runs.read_json(manifest)["inputs"] == json.loads(json.dumps(inputs))


def _files(folder: Path) -> dict[str, str]:
    """Hashes of what a page is made from."""
    there = [folder / name for name in (*MEASURED, "contact.png") if (folder / name).exists()]
    linked = {ANALYSIS: "linked"} if (folder / ANALYSIS).exists() else {}
    return {path.name: runs.file_sha256(path) for path in there} | linked


def link(cfg: Config) -> None:
    """Make the page of a report that is there already anew, if it does not name the analyses yet."""
    manifest = runs.manifest_of(cfg.run.results)
    if manifest is not None and manifest.get("made_from") != _files(cfg.run.results):
        _render(cfg, manifest["inputs"])


def _measure(cfg: Config) -> None:
    """Write the numbers, where they came from, and pictures of the data."""
    from modelsoups.reporting import figures, from_released
    from modelsoups.reporting.compare import measure

    folder = cfg.run.results
    if runs.manifest_of(cfg.run.soups) is None:
        lines = from_released.lines(cfg)
        provenance: dict[str, Any] = {**runs.provenance(), "config": asdict(cfg)}
    else:
        evidence = collect(cfg)
        lines, provenance = measure(evidence), {**evidence.provenance, "seconds": evidence.timings}
        with figures.style(math=False):
            sheet = figures.contact_sheet(evidence.contact)
            _write(folder / "contact.png", figures.save(sheet, "png"))
            figures.close(sheet)
    runs.write_jsonl(folder / "results.jsonl", lines)
    runs.write_text(folder / "provenance.json", json.dumps(provenance, indent=1) + "\n")


def _render(cfg: Config, inputs: dict[str, Any]) -> None:
    """Everything that follows from the measured files."""
    from modelsoups.reporting import claims, contents, figures, page, sections
    from modelsoups.reporting.compare import Numbers

    folder = cfg.run.results
    measured = _files(folder)
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
        made["index.html"] = page.document(f"Model soups: {numbers.name}", [], parts, links).encode()
        sections.close(parts)
    for name, content in made.items():
        _write(folder / name, content)
    files = [folder / name for name in dict.fromkeys([*measured, *made]) if name != ANALYSIS]
    runs.finish(folder, inputs, files, made_from=measured)


def _texts(numbers: Numbers) -> dict[str, str]:
    """Table 3 in the forms that are not the page's, and the summary."""
    from modelsoups.reporting import beside, from_released, tables

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
    from modelsoups.reporting.compare import interval, percent

    said = [f"greedy soup - best individual, {d.on}: {percent(d.value, True)} {interval(d)}" for d in numbers.headline]
    return said + numbers.notes


def _write(path: Path, content: bytes) -> None:
    with runs.atomic(path) as tmp:
        tmp.write_bytes(content)
