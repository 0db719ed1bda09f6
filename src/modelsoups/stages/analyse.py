"""Makes the paper's figures and tables beyond Table 3: `modelsoups analyse`.

Each figure or table is an analysis, which also checks the paper's claims about it. An analysis that
lacks models or data is skipped with a message. Data (JSON lines), figures, claims and an HTML page
are written to results/<name>/analysis/. After an interruption, the same command continues.
Where the run's models are not on this machine, figures, claims and page are made from the data.
"""

import json
import time
from dataclasses import asdict

import torch

from modelsoups.analyses.bench import Bench
from modelsoups.analyses.figure_2_j1_landscape import LANDSCAPE
from modelsoups.analyses.members import Unavailable
from modelsoups.analyses.page import Made, read, write
from modelsoups.analyses.registry import wanted
from modelsoups.disk import manifests, paths, provenance, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.report import files, text_tables
from modelsoups.workers.processes import workers_kept


def run(experiment: Experiment) -> bool:
    """Run the analyses in analyse.which unless all are complete; return whether any was run."""
    config, folder = experiment.config, experiment.files.analyses
    # As in the worker processes, since floating-point sums depend on it.
    torch.set_num_threads(config.finetune.threads)
    analyses = wanted(config.analyse.which)
    index = folder / "index.html"
    bench = Bench(experiment)
    if not bench.has_models() and (folder / manifests.MANIFEST).exists():
        return _draw_again(experiment)
    inputs = bench.inputs()
    if manifests.complete(folder, inputs):
        print(f"analyse: complete, in {index}")
        return False
    made: list[Made] = []
    missing: dict[str, str] = {}
    with workers_kept():
        for analysis in analyses:
            begin = time.monotonic()
            try:
                rows = json.loads(json.dumps(analysis.rows(bench)))  # as in the JSON file
            except Unavailable as reason:
                missing[analysis.name] = str(reason)
                print(f"analyse: {analysis.name} is not possible with these models: {reason}")
                continue
            made.append((analysis, rows, analysis.verdicts(rows)))
            seconds = f"{time.monotonic() - begin:.0f} s"
            print(f"analyse: {analysis.name}: measured {len(rows)} rows of data in {seconds}", flush=True)
            if analysis.table and config.analyse.which:
                print(text_tables.aligned(analysis.table(rows)))
    if LANDSCAPE in analyses and LANDSCAPE.name not in missing and bench.train is None:
        missing["figure_2, train loss"] = f"the training set {config.data.train} is not prepared"
    facts = provenance.public({**provenance.record(), "config": asdict(config)})
    write(folder, inputs, made, {**facts, "not_possible": missing})
    files.refresh(experiment.files.results)
    print(f"analyse: {len(made)} analyses made, {len(missing)} not possible; see {index}")
    return True


def _draw_again(experiment: Experiment) -> bool:
    """Write what follows from the data of the analyses, unless it is complete; return whether it was written."""
    folder = experiment.files.analyses
    index = folder / "index.html"
    if manifests.manifest_of(folder) is not None:
        print(f"analyse: complete, in {index}; the models of {experiment.files.root} are not on this machine")
        return False
    inputs = storage.read_object(folder / manifests.MANIFEST, "inputs")["inputs"]
    facts = storage.read_object(folder / paths.PROVENANCE, "config", "not_possible")
    made = read(folder)
    write(folder, inputs, made, facts)
    files.refresh(experiment.files.results)
    why = f"the models of {experiment.files.root} are not on this machine"
    print(f"analyse: {len(made)} analyses drawn from the data in {folder}, since {why}")
    return True
