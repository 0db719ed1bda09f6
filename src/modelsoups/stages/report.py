"""results.jsonl, then tables, figures, claims and one HTML page made from that file alone: `modelsoups report`.

What a results folder holds in results.jsonl, provenance.json and contact.png is measured from a finished run; all the
rest follows from these three, and is made again whenever one of them changes, with or without the run at hand.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsoups.config.schema import Config
from modelsoups.disk import manifests, paths, provenance, storage
from modelsoups.report.measure import collect
from modelsoups.report.pages import MEASURED, measured_files, render, report_inputs_of, write_file

if TYPE_CHECKING:
    pass


def run(cfg: Config) -> bool:
    """Write the report if it is not complete, and print Table 3 with its headline either way."""
    folder = cfg.run.results
    inputs = report_inputs_of(cfg)
    if not _measured(folder, inputs):
        _measure(cfg)
    manifest = manifests.complete(folder, inputs)
    made = manifest is None or manifest.get("made_from") != measured_files(folder)
    if made:
        render(cfg, inputs)
    else:
        print(f"report: complete, in {folder}")
    print("\n" + (folder / "summary.txt").read_text(encoding="utf-8"))
    print(f"report: {folder / 'index.html'}")
    return made


def _measured(folder: Path, inputs: dict[str, Any]) -> bool:
    """Whether the folder's numbers are of these inputs; whether they were edited since is not asked."""
    manifest = folder / manifests.MANIFEST
    there = manifest.exists() and all((folder / name).exists() for name in MEASURED)
    return there and storage.read_json(manifest)["inputs"] == json.loads(json.dumps(inputs))


def _measure(cfg: Config) -> None:
    """Write the numbers, where they came from, and pictures of the data."""
    from modelsoups.report import figures, from_released
    from modelsoups.report.numbers import measure

    folder = cfg.run.results
    if manifests.manifest_of(cfg.run.soups) is None:
        lines = from_released.lines(cfg)
        origin: dict[str, Any] = {**provenance.record(), "config": asdict(cfg)}
    else:
        evidence = collect(cfg)
        lines, origin = measure(evidence), {**evidence.provenance, "seconds": evidence.timings}
        with figures.style(math=False):
            sheet = figures.contact_sheet(evidence.contact)
            write_file(folder / "contact.png", figures.save(sheet, "png"))
            figures.close(sheet)
    storage.write_jsonl(folder / paths.RESULTS, lines)
    storage.write_text(folder / paths.PROVENANCE, json.dumps(origin, indent=1) + "\n")
