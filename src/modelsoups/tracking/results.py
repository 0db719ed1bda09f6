"""What the report holds, as W&B shows it: a run for the soups, and accuracies in the summary of each ingredient."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsoups.disk import manifests, storage
from modelsoups.disk.paths import MODEL, RESULTS, TABLE_3

if TYPE_CHECKING:
    from modelsoups.tracking.follower import Followed, Follower

FIGURES = ("figure_1", "figure_B1", "figure_greedy", "figure_shifts", "contact")


def scores(results: Path, row: str) -> dict[str, float]:
    """Accuracies (0 to 1) of one row of results.jsonl by data set; none if there is no report."""
    path = results / RESULTS
    lines = storage.read_jsonl(path) if (results / manifests.MANIFEST).exists() and path.exists() else []
    return {f"accuracy/{line['dataset']}": line["accuracy"] for line in lines if line.get("row") == row}


def results_state(results: Path) -> str:
    """Names what a finished report was made from."""
    return storage.fingerprint(storage.read_json(results / manifests.MANIFEST)["inputs"])


def log_results(follower: Follower) -> None:
    """Log a finished report once: the soup's run, then the summaries of the ingredients."""
    state = results_state(follower.run.results)
    soup = follower.id("soup", state)
    if not follower.logged(soup, state):
        with follower.alone(soup) as mine:
            if mine:
                _log_soups(follower, soup)
                follower.mark(soup, state)
    for followed in follower.followed.values():
        found = scores(follower.run.results, followed.folder.name)
        if found and followed.closed and not follower.logged(followed.id, state):
            with follower.alone(followed.id) as mine:
                if mine:
                    _log_scores(follower, followed, found)
                    follower.mark(followed.id, state)


def _log_scores(follower: Follower, followed: Followed, found: dict[str, float]) -> None:
    """Add the accuracies to an ingredient's run."""
    folder = followed.folder
    name = f"{follower.config['name']} {folder.name}"
    run = follower.begin(followed.run_id, name, "finetune", {**followed.recipe, "ingredient": folder.name})
    run.summary.update(found)
    if follower.config["track"]["artifacts"] and folder.name in _greedy(follower).get("ingredients", ()):
        run.log_artifact(_artifact(follower, f"ingredient-{folder.name}", folder / MODEL))
    run.finish()


def _log_soups(follower: Follower, run_id: str) -> None:
    """A run with the greedy trace as its history, Table 3, figures, and the accuracies of every row as its summary."""
    import wandb

    results = follower.run.results
    run = follower.begin(run_id, f"{follower.config['name']} soups", "soup", {"soup": follower.config["soup"]})
    done = follower.done(run, run_id)
    for step, row in enumerate(_greedy(follower).get("trace", ())):
        if step > done:
            run.log({f"greedy/{key}": value for key, value in row.items()}, step=step)
    last = max(done, len(_greedy(follower).get("trace", ())) - 1)
    run.log({**_table(wandb, results), **_figures(wandb, results)}, step=last + 1)
    for line in storage.read_jsonl(results / RESULTS):
        if line.get("kind") not in (None, "individual") or line.get("row") in ("best", "second_best"):
            run.summary[f"{line['row']}/{line['dataset']}"] = line["accuracy"]
    if follower.config["track"]["artifacts"]:
        _log_lineage(follower, run)
    run.finish()


def _table(wandb: Any, results: Path) -> dict[str, Any]:
    path = results / TABLE_3
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    return {"table_3": wandb.Table(columns=head, data=rows)}


def _figures(wandb: Any, results: Path) -> dict[str, Any]:
    there = [name for name in FIGURES if (results / f"{name}.png").exists()]
    return {f"figures/{name}": wandb.Image(str(results / f"{name}.png")) for name in there}


def _greedy(follower: Follower) -> dict[str, Any]:
    path = follower.run.soup("greedy")
    return dict(storage.read_json(path)) if path.exists() else {}


def _log_lineage(follower: Follower, run: Any) -> None:
    """The soups that were written as an artifact each; online also what they were made from."""
    if not run.offline:
        for name in _greedy(follower).get("ingredients", ()):
            path = follower.run.ingredients / name / MODEL
            if path.exists():  # an average has no folder of its own
                run.use_artifact(_artifact(follower, f"ingredient-{name}", path))
    for path in sorted(follower.run.soups.glob("*.safetensors")):
        run.log_artifact(_artifact(follower, path.stem, path))


def _artifact(follower: Follower, name: str, path: Path) -> Any:
    import wandb

    allowed = re.sub(r"[^\w.-]", "-", f"{follower.config['name']}-{name}")
    artifact = wandb.Artifact(allowed, type="model" if name.startswith("ingredient-") else "soup")
    artifact.add_file(str(path), policy="immutable", skip_cache=True)
    return artifact
