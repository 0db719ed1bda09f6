"""Writes the results of the analyses: data files, figures, a list of claims and one HTML page."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsoups.analyses.analysis import PAPER, Analysis, corrected
from modelsoups.analyses.registry import ANALYSES
from modelsoups.analyses.rows import Rows, Table
from modelsoups.disk import manifests, storage
from modelsoups.disk.paths import PROVENANCE
from modelsoups.report import plotting, svg, text_tables
from modelsoups.report.claims import CLASSES, FAILS, HOLDS, OPEN, Verdict, markdown
from modelsoups.report.numbers import p_value
from modelsoups.report.templates import render

PLURAL = {HOLDS: "hold", FAILS: "do not hold"}
Made = tuple[Analysis, Rows, list[Verdict]]


@dataclass(frozen=True)
class Section:
    """One analysis on the HTML page: the verdicts on its claims, and its figure (SVG) or table."""

    analysis: Analysis
    verdicts: Sequence[Verdict]
    svg: str | None = None
    table: Table | None = None


def write(folder: Path, inputs: dict[str, Any], made: Sequence[Made], facts: dict[str, Any]) -> None:
    """Write all files to a run's analysis folder, the manifest last.

    facts: what provenance.json holds: how the data were made, the configuration, and under
    "not_possible" why an analysis could not run, by its name.
    """
    files: dict[str, bytes] = {}
    verdicts = corrected([v for _, _, found in made for v in found])
    told = iter(verdicts)
    sections = []
    with plotting.style():
        for analysis, rows, found in made:
            lines = [json.dumps(row) + "\n" for row in rows]
            files[f"{analysis.name}.jsonl"] = "".join(lines).encode()
            drawn = _drawn(analysis, rows)
            picture = svg.inline(drawn.pop("svg"), {}, analysis.name, analysis.title) if drawn else None
            files |= {f"{analysis.name}.{kind}": content for kind, content in drawn.items()}
            table = analysis.table(rows) if analysis.table else None
            texts = text_tables.files(analysis.name, table) if table else {}
            files |= {name: text.encode() for name, text in texts.items()}
            sections.append(Section(analysis, list(itertools.islice(told, len(found))), picture, table))
    titles = {PAPER.get(name, {}).get("title", name): reason for name, reason in facts["not_possible"].items()}
    report = "../index.html" if (folder.parent / "index.html").exists() else None
    files["claims.md"] = markdown(verdicts).encode()
    files[PROVENANCE] = (json.dumps(facts, indent=1) + "\n").encode()
    files["index.html"] = page(facts["config"]["name"], sections, titles, facts, report).encode()
    for name, content in files.items():
        with storage.atomic(folder / name) as tmp:
            tmp.write_bytes(content)
    manifests.finish(folder, inputs, [folder / name for name in files])


def read(folder: Path) -> list[Made]:
    """Return the analyses whose data (.jsonl) a results folder has, with verdicts by the present code."""
    found = [(a, folder / f"{a.name}.jsonl") for a in ANALYSES.values()]
    rows = [(a, list(storage.read_jsonl(file))) for a, file in found if file.exists()]
    return [(a, data, a.verdicts(data)) for a, data in rows]


def _drawn(analysis: Analysis, rows: Rows) -> dict[str, bytes]:
    """Return the figure as png, pdf and svg bytes; empty if the analysis has no figure."""
    if analysis.draw is None:
        return {}
    figure = analysis.draw(rows)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # compute the layout once, not for each format
    return {kind: plotting.save(figure, kind) for kind in ("png", "pdf", "svg")}


def page(
    name: str, sections: Sequence[Section], missing: dict[str, str], provenance: dict[str, Any], report: str | None
) -> str:
    """Return the HTML page. missing: title of an analysis -> why it did not run."""
    facts = {"name": name, "missing": missing, "provenance": provenance, "report": report}
    helpers = {"counted": _counted, "classes": CLASSES, "explain": _explained, "kinds": (HOLDS, FAILS, OPEN)}
    return render("analyses.html", sections=sections, **facts, **helpers)


def _counted(kinds: Iterable[str]) -> str:
    """Return how often each verdict occurs, as "2 hold, 1 does not hold"."""
    counts = {HOLDS: 0, FAILS: 0, OPEN: 0} | Counter(kinds)
    words = [f"{n} {PLURAL.get(kind, kind) if n != 1 else kind}" for kind, n in counts.items() if n]
    return ", ".join(words) or "none could be checked"


def _explained(v: Verdict) -> str:
    """Return a verdict's tooltip: its p-values, and the verdict without the correction."""
    if v.p is None:
        return "not a statistical test"
    among = "" if v.holm is None else f"; corrected for all claims of the page: {p_value(v.holm)}"
    alone = "" if v.verdict == v.among_all else f"\nBy itself, without the correction: {v.verdict}."
    return f"Two-sided {p_value(v.p)}{among}.{alone}"
