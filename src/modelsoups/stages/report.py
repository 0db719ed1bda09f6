"""Writes results.jsonl, and from it tables, figures, claims and an HTML page: `modelsoups report`.

results.jsonl, provenance.json and, for images, contact.png come from the files of a finished run.
All other files of the results folder come from these three, and are rewritten if one of the three
changes, even if the run itself is not on this machine.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelsoups.disk import manifests, paths, provenance, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.published import tables
from modelsoups.report import figures, files, glue_runs, plotting, released_results
from modelsoups.report.measure import Collector, Evidence
from modelsoups.report.result_lines import result_lines


def run(experiment: Experiment) -> bool:
    """Write the report unless it is complete, and print Table 3; return whether it was written."""
    config, folder = experiment.config, experiment.files.results
    inputs = _inputs(experiment)
    if not _is_measured(folder, inputs):
        if manifests.manifest_of(experiment.files.soups) is None:
            facts = {**provenance.record(), "config": asdict(config)}
            lines = released_results.result_lines(config.name, config.recipe)
        else:
            evidence = _collect(experiment)
            facts = {**evidence.provenance, "seconds": evidence.timings}
            lines = result_lines(experiment.task, evidence)
            if evidence.contact:
                _write_contact_sheet(folder, evidence)
        storage.write_jsonl(folder / paths.RESULTS, lines)
        storage.write_text(folder / paths.PROVENANCE, json.dumps(provenance.public(facts), indent=1) + "\n")
    stale = not files.is_current(folder, manifests.complete(folder, inputs))
    if stale:
        files.write_report(folder, inputs)
    else:
        print(f"report: complete, in {folder}")
    if config.task == "text" and glue_runs.write(folder.parent):
        print(f"report: all text runs, in {folder.parent / 'table_j1.md'}")
    print("\n" + (folder / "summary.txt").read_text(encoding="utf-8"))
    print(f"report: {folder / 'index.html'}")
    return stale


def _inputs(experiment: Experiment) -> dict[str, Any]:
    """Return what the report depends on: the run's soups, or the authors' published accuracies.

    If the run is not on this machine, return what manifest.json in the results folder recorded.
    """
    run = experiment.files
    if manifests.manifest_of(run.soups) is None:
        if experiment.imported:
            return {"released results": tables.MODELS}
        manifest = run.results / manifests.MANIFEST
        # The run's folder proves no run, since the report itself writes its duration and log into it.
        if manifest.exists() and not run.draw.exists():
            file = run.results / paths.RESULTS
            print(f"report: the run {run.root} is not on this machine; using {file}")
            return dict(storage.read_object(manifest, "inputs")["inputs"])
    return experiment.report_inputs()


def _is_measured(folder: Path, inputs: dict[str, Any]) -> bool:
    """Return whether results.jsonl and provenance.json exist and were made from these inputs."""
    manifest = folder / manifests.MANIFEST
    there = [(folder / name).exists() for name in (manifests.MANIFEST, *files.SOURCES)]
    return all(there) and storage.read_object(manifest, "inputs")["inputs"] == json.loads(json.dumps(inputs))


def _write_contact_sheet(folder: Path, evidence: Evidence) -> None:
    with plotting.style(math=False):
        sheet = figures.contact_sheet(evidence.contact)
        with storage.atomic(folder / "contact.png") as tmp:
            tmp.write_bytes(plotting.save(sheet, "png"))


def _collect(experiment: Experiment) -> Evidence:
    run, config = experiment, experiment.config
    collector = Collector(run.files, run.sets, run.ingredients, run.logits, run.soups)
    return collector.evidence(config.name, asdict(config), config.model.image_size)
