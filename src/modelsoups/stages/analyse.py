"""The paper's figures and tables beyond Table 3, each with a verdict: `modelsoups analyse`.

Makes every analysis that the models of the run and of its further pools (`cli.pools`) allow: data (JSON lines),
figure and claims in results/<name>/analysis/, and one page in the order of the paper. What cannot be made is named,
with the reason. Killed, it continues at the last soup that it measured.
"""

from __future__ import annotations

import difflib
import json
import time
from dataclasses import asdict
from typing import Any

import torch

from modelsoups.analyses.analysis import Analysis, Rows, corrected
from modelsoups.analyses.bench import Bench, Unavailable
from modelsoups.analyses.registry import ANALYSES
from modelsoups.config.schema import Config
from modelsoups.disk import manifests, paths, provenance, storage
from modelsoups.experiment.ingredients import initial_models, load_pool
from modelsoups.experiment.sets import evaluated, open_set
from modelsoups.report import files
from modelsoups.report.claims import Verdict, markdown
from modelsoups.workers.processes import workers_kept

Made = tuple[Analysis, Rows, list[Verdict]]


def run(cfg: Config) -> bool:
    """Make the pools and the analyses that are not complete."""
    torch.set_num_threads(cfg.finetune.threads)  # as in the workers: sums depend on it
    wanted = [ANALYSES[name] for name in _wanted(cfg)]
    folder = cfg.run.analyses
    bench = Bench(cfg)
    inputs = _inputs(bench)
    if manifests.complete(folder, inputs):
        print(f"analyse: complete, in {folder / 'index.html'}")
        return False
    with workers_kept():
        made, missing = _made_of(bench, wanted)
    _write(bench, inputs, made, missing)
    files.refresh(cfg.run.results)
    print(f"analyse: {len(made)} analyses, {len(missing)} not possible -> {folder / 'index.html'}")
    return True


def _made_of(bench: Bench, wanted: list[Analysis]) -> tuple[list[Made], dict[str, str]]:
    """The analyses that the models allow, and why the others cannot be made."""
    made: list[Made] = []
    missing: dict[str, str] = {}
    for analysis in wanted:
        begin = time.monotonic()
        try:
            rows = json.loads(json.dumps(analysis.rows(bench)))  # as they read back from the file
        except Unavailable as reason:
            missing[analysis.name] = str(reason)
            print(f"analyse: {analysis.name} cannot be made of these models: {reason}")
            continue
        if analysis.name == "figure_2" and not bench.has_train():
            missing["figure_2, train loss"] = f"the training set {bench.cfg.data.train} is not prepared"
        made.append((analysis, rows, analysis.verdicts(rows)))
        print(f"analyse: {analysis.name}: {len(rows)} rows of data in {time.monotonic() - begin:.0f} s", flush=True)
    return made, missing


def _wanted(cfg: Config) -> list[str]:
    for name in cfg.analyse.which:
        if name not in ANALYSES:
            near = difflib.get_close_matches(name, ANALYSES, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"analyse.which: there is no {name}; {hint}There are: {', '.join(ANALYSES)}")
    return [name for name in ANALYSES if not cfg.analyse.which or name in cfg.analyse.which]


def _inputs(bench: Bench) -> dict[str, Any]:
    cfg = bench.cfg
    pools = {name: [i.sha256 for i in load_pool(c).ingredients] for name, c in bench.configs.items()}
    starts = {name: [i.sha256 for i in initial_models(c).values()] for name, c in bench.configs.items()}
    sets = {name: open_set(cfg.data.dir, name).sha256 for name in evaluated(cfg)}
    given = {k: v for k, v in asdict(cfg.analyse).items() if k != "in_pipeline"}
    options = {**given, "protocol": cfg.protocol, "train": bench.has_train()}
    code = provenance.code_fingerprint("analyses", "soup", "weights", "stats", "report")
    return {"pools": pools, "starts": starts, "sets": sets, "options": options, "code": code}


def _write(
    bench: Bench,
    inputs: dict[str, Any],
    made: list[Made],
    missing: dict[str, str],
) -> None:
    from modelsoups.analyses import figures as analysis_figures
    from modelsoups.analyses import page, style
    from modelsoups.report import figures

    folder = bench.cfg.run.analyses
    texts: dict[str, str] = {}
    binaries: dict[str, bytes] = {}
    svgs: dict[str, bytes] = {}
    origin = {**provenance.record(), "config": asdict(bench.cfg)}
    with figures.style():
        for analysis, rows, _ in made:
            texts[f"{analysis.name}.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows)
            figure = analysis_figures.draw(analysis.name, rows)
            if figure is not None:
                style.laid_out(figure)
                binaries |= {f"{analysis.name}.{kind}": figures.save(figure, kind) for kind in ("png", "pdf")}
                svgs[analysis.name] = figures.save(figure, "svg")
                figures.close(figure)
    tables = {a.name: table for a, rows, _ in made if (table := page.table_of(a.name, rows))}
    verdicts = corrected([v for _, _, found in made for v in found])
    texts["claims.md"] = markdown(verdicts)
    texts[paths.PROVENANCE] = json.dumps({**origin, "not_possible": missing}, indent=1) + "\n"
    titles = {ANALYSES[name].title if name in ANALYSES else name: reason for name, reason in missing.items()}
    told = iter(verdicts)
    sections = [(a, [next(told) for _ in v], svgs.get(a.name), tables.get(a.name)) for a, _, v in made]
    back = "../index.html" if (bench.cfg.run.results / "index.html").exists() else None
    texts["index.html"] = page.page(bench.cfg.name, sections, titles, origin, back)
    for name, text in texts.items():
        storage.write_text(folder / name, text)
    for name, content in binaries.items():
        with storage.atomic(folder / name) as tmp:
            tmp.write_bytes(content)
    manifests.finish(folder, inputs, [folder / name for name in [*texts, *binaries]])
