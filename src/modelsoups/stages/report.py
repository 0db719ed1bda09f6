"""results.jsonl, then tables, figures, claims and one page from that file: `modelsoups report`.

results.jsonl, provenance.json and contact.png are measured from a finished run. All other files of
the results folder follow from these three. They are made again whenever one of the three changes,
whether or not the run is on this machine.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelsoups.config.schema import Config
from modelsoups.disk import manifests, provenance, storage
from modelsoups.published import tables
from modelsoups.report import figures, files, released_results
from modelsoups.report.measure import Evidence, collect, report_inputs
from modelsoups.report.result_lines import result_lines


def run(cfg: Config) -> bool:
    """Write the report if it is not complete, and print Table 3 with its headline either way."""
    folder = cfg.run.results
    inputs = _inputs(cfg)
    if not _is_measured(folder, inputs):
        if manifests.manifest_of(cfg.run.soups) is None:
            facts = {**provenance.provenance(), "config": asdict(cfg)}
            lines = released_results.result_lines(cfg.name, cfg.recipe)
        else:
            evidence = collect(cfg)
            facts = {**evidence.provenance, "seconds": evidence.timings}
            lines = result_lines(evidence)
            _write_contact_sheet(folder, evidence)
        storage.write_jsonl(folder / "results.jsonl", lines)
        storage.write_text(folder / "provenance.json", json.dumps(facts, indent=1) + "\n")
    stale = not files.is_current(folder, manifests.complete(folder, inputs))
    if stale:
        files.write_report(folder, inputs)
    else:
        print(f"report: complete, in {folder}")
    print("\n" + (folder / "summary.txt").read_text(encoding="utf-8"))
    print(f"report: {folder / 'index.html'}")
    return stale


def _inputs(cfg: Config) -> dict[str, Any]:
    """What the numbers depend on: a finished run, or the authors' released results.

    Where the run is not on this machine, what the results folder says that it was made from.
    """
    if manifests.manifest_of(cfg.run.soups) is None:
        if cfg.pool == "imported":
            return {"released results": tables.MODELS}
        manifest = cfg.run.results / manifests.MANIFEST
        # The run's folder is no evidence of a run: a report leaves its seconds and its log in it.
        if manifest.exists() and not cfg.run.draw.exists():
            file = cfg.run.results / "results.jsonl"
            print(f"report: the run {cfg.run.root} is not on this machine; using {file}")
            return dict(storage.read_json(manifest)["inputs"])
    return report_inputs(cfg)


def _is_measured(folder: Path, inputs: dict[str, Any]) -> bool:
    """Whether the folder's sources were measured from these inputs, edited since or not."""
    manifest = folder / manifests.MANIFEST
    there = [(folder / name).exists() for name in (manifests.MANIFEST, *files.SOURCES)]
    return all(there) and storage.read_json(manifest)["inputs"] == json.loads(json.dumps(inputs))


def _write_contact_sheet(folder: Path, evidence: Evidence) -> None:
    with figures.style(math=False):
        sheet = figures.contact_sheet(evidence.contact)
        with storage.atomic(folder / "contact.png") as tmp:
            tmp.write_bytes(figures.save(sheet, "png"))
        figures.close(sheet)
