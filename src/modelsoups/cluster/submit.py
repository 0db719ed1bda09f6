"""The whole experiment as jobs of a SLURM cluster: `modelsoups submit cluster=mine`.

    prepare -> sweep (an array, an ingredient a task) -> evaluate -> soup -> report

What is complete or in the queue already is left out, so the same command can be given again at any moment. The soup
takes the ingredients that finished (soup.minimum of them at least). Scripts, as submitted, and the jobs' output are in
runs/<name>/slurm/. `modelsoups submit submit.dry_run=true` prints the scripts and does nothing.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from modelsoups.cluster import slurm
from modelsoups.config.schema import Config
from modelsoups.disk import manifests, paths, storage
from modelsoups.disk.paths import shipped
from modelsoups.experiment import draw
from modelsoups.recipes import search as searches
from modelsoups.recipes.recipe import Recipe


@dataclass(frozen=True)
class Piece:
    """A job of the chain. after: the kind of dependency that the next piece has on it."""

    name: str
    stages: tuple[str, ...]
    says: str
    after: str = "afterok"


CHAIN = (
    Piece("prepare", ("prepare", "heads"), "data sets and the initial model"),
    Piece("sweep", ("finetune",), "fine-tuning", "afterany"),  # the soup takes what finished
    Piece("evaluate", ("evaluate",), "logits of every ingredient that finished"),
    Piece("soup", ("soup",), "soups, chosen and evaluated"),
    Piece("report", ("report",), "tables, figures, one page"),
)


def run(cfg: Config) -> bool:
    """Submit what is neither complete nor queued; ValueError, and nothing left in the queue, when SLURM refuses."""
    recipes = _recipes(cfg)
    ranks = cfg.cluster.nodes * cfg.cluster.ranks
    for recipe in recipes:
        recipe.accumulation(ranks, cfg.finetune.at_once)
    todo, failed = unfinished(cfg, len(recipes))
    dry = cfg.submit.dry_run
    queued = [] if dry else slurm.queue(cfg.run.root)
    if not dry:
        _fix_draw(cfg)
    done = len(recipes) - len(todo) - len(failed)
    print(f"submit: {len(recipes)} ingredients: {done} complete, {len(failed)} failed, {len(todo)} to do")
    for index in failed:
        print(f"submit: ingredient {index:03d} failed, and the soup goes without it: {cfg.run.ingredient(index)}")
    if not (dry or todo or queued) and reported(cfg):
        print(f"submit: complete, nothing to submit; the report is {cfg.run.results / 'index.html'}")
        return False
    _submit_chain(cfg, todo, queued, dry)
    if not dry:
        print(f"submit: scripts and output in {cfg.run.slurm}; `modelsoups status` shows how far it is")
    return False


def _recipes(cfg: Config) -> list[Recipe]:
    """The run's recipes; a dry run draws them without writing the draw."""
    if not cfg.submit.dry_run:
        draw.write(cfg)
    if cfg.run.draw.exists():
        return draw.load_draw(cfg)
    search = draw.load_search(cfg.sweep.search)
    return [draw.recipe(search, cfg, i) for i in range(cfg.sweep.count or searches.size(search))]


def _fix_draw(cfg: Config) -> None:
    """From now on `load_draw` refuses another draw: jobs that start days later read what was submitted."""
    storage.write_json(cfg.run.draw_manifest, {"sha256": storage.file_sha256(cfg.run.draw)})


def unfinished(cfg: Config, count: int) -> tuple[list[int], list[int]]:
    """Indices of the ingredients that are neither complete nor failed, and of those that failed."""
    folders = [cfg.run.ingredient(i) for i in range(count)]
    rest = [i for i, folder in enumerate(folders) if manifests.manifest_of(folder) is None]
    failed = [i for i in rest if (folders[i] / paths.FAILED).exists()]
    return [i for i in rest if i not in failed], failed


def _submit_chain(cfg: Config, todo: list[int], queued: list[slurm.Job], dry: bool) -> None:
    """Submit the pieces in order, each depending on the one before; on an error take back those of this call."""
    tasks = {j.index for j in queued if j.name == "sweep"}
    indices = [i for i in todo if i not in tasks]
    before: list[str] = []  # dependencies of the next piece
    new: list[int] = []
    try:
        for piece in CHAIN:
            live = sorted({j.id for j in queued if j.name == piece.name})
            ids = [str(i) for i in live]
            if _needed(cfg, piece, indices, bool(live), bool(new)):
                text = script(cfg, piece, indices)
                wait = [f"afterany:{':'.join(ids)}"] if ids and piece.name != "sweep" else []
                if dry:
                    _show(piece, text, before + wait)
                    ids.append(f"<{piece.name}>")
                else:
                    new.append(_submit(cfg, piece, text, indices, before + wait))
                    ids.append(str(new[-1]))
            elif live:
                print(f"  {', '.join(ids):>8}  {piece.name:<9}in the queue already")
            before = [f"{piece.after}:{':'.join(ids)}"] if ids else before
    except BaseException:
        slurm.cancel(new)
        raise


def _needed(cfg: Config, piece: Piece, indices: list[int], live: bool, earlier: bool) -> bool:
    """Whether a piece must be submitted. live: one is in the queue; earlier: one before it has just been submitted."""
    if piece.name == "sweep":
        return bool(indices)
    if piece.name == "prepare":
        return not live and not prepared(cfg)
    return earlier or not live


def prepared(cfg: Config) -> bool:
    """Whether every data set and the initial model are there."""
    sets = [cfg.data.train, cfg.data.holdout, cfg.data.test, *cfg.data.shifts]
    folders = [Path(cfg.data.dir) / name for name in sets] + [cfg.run.head(cfg.heads.init)]
    return all(manifests.manifest_of(folder) for folder in folders)


def reported(cfg: Config) -> bool:
    """Whether soups and report of the ingredients that are there are complete."""
    if not (manifests.manifest_of(cfg.run.soups) and manifests.manifest_of(cfg.run.results)):
        return False
    from modelsoups.experiment.ingredients import load_pool
    from modelsoups.experiment.soups import soup_inputs
    from modelsoups.report.measure import report_inputs  # torch: seconds that most calls need not pay

    soups = manifests.complete(cfg.run.soups, soup_inputs(cfg, load_pool(cfg).ingredients))
    return soups is not None and manifests.complete(cfg.run.results, report_inputs(cfg)) is not None


def _submit(cfg: Config, piece: Piece, text: str, indices: list[int], dependencies: list[str]) -> int:
    if piece.name == "sweep" and indices[-1] >= (size := slurm.max_array_size()):
        raise ValueError(
            f"ingredient {indices[-1]} is beyond this cluster's MaxArraySize={size}: its arrays have tasks 0 to "
            f"{size - 1}; submit with sweep.count={size} at most, or ask for a larger MaxArraySize"
        )
    path = cfg.run.slurm / f"{piece.name}.sbatch"
    storage.write_text(path, text)
    number = slurm.submit(path, dependencies)
    what = f"{piece.says}: tasks {slurm.ranges(indices)}" if piece.name == "sweep" else piece.says
    print(f"  {number:>8}  {piece.name:<9}{what}{', after ' + ' and '.join(dependencies) if dependencies else ''}")
    return number


def _show(piece: Piece, text: str, dependencies: list[str]) -> None:
    after = f" --dependency={','.join(dependencies)} --kill-on-invalid-dep=yes" if dependencies else ""
    print(f"### {piece.name}: {piece.says}\n### sbatch{after} {piece.name}.sbatch\n{text}")


def script(cfg: Config, piece: Piece, indices: list[int]) -> str:
    """The text of a piece's sbatch script: slurm/*.sbatch with the cluster's facts filled in."""
    cluster = cfg.cluster
    array = piece.name == "sweep"
    python = [*shlex.split(cluster.prefix), cluster.python or sys.executable]
    overrides = [o for o in cfg.overrides if not re.match(r"\+?(submit\.|ingredient=)", o)]
    lines = {
        "options": "\n".join(f"#SBATCH {option}" for option in _options(cfg, piece, indices)),
        "setup": "\n".join(cluster.setup),
        "python": f"python=({shlex.join(python)})",
        "overrides": f"overrides=({shlex.join(overrides)})",
        "stages": f"stages=({shlex.join(piece.stages)})",
        "run": f"run={shlex.quote(str(cfg.run.root.resolve()))}",
        "ranks": f"ranks={cluster.ranks}",
    }
    template = (shipped("slurm") / ("sweep.sbatch" if array else "stage.sbatch")).read_text(encoding="utf-8")
    made = [lines[line.rpartition("#@")[2]] if "#@" in line else line for line in template.splitlines()]
    return "\n".join(line for line in made if line) + "\n"


def _options(cfg: Config, piece: Piece, indices: list[int]) -> list[str]:
    cluster, array = cfg.cluster, piece.name == "sweep"
    throttle = f"%{cluster.concurrent}" if cluster.concurrent else ""
    output = cfg.run.slurm.resolve() / f"{piece.name}-{'%A_%a' if array else '%j'}.out"
    options: dict[str, str | int | None] = {
        "job-name": f"{cfg.name}.{piece.name}",
        "comment": str(cfg.run.root.resolve()),  # by which status and submit know the run's jobs
        "chdir": str(Path.cwd()),
        "output": str(output),
        "open-mode": "append",
        "array": slurm.ranges(indices) + throttle if array else None,
        "nodes": cluster.nodes if array else 1,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus_per_node,
        "gpus-per-node": cluster.gpus_per_node or None,
        "mem": cluster.mem,
        "time": cluster.time if array else cluster.stage_time,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "signal": f"B:USR1@{cluster.notice}" if array and cluster.notice else None,
    }
    given = [f"--{name}={shlex.quote(str(value))}" for name, value in options.items() if value is not None]
    return [*given, "--requeue", *cluster.options]
