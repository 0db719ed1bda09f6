"""Logs a report to W&B: one W&B run for the soups, and accuracies in each ingredient's summary."""

import csv
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsoups.disk import storage
from modelsoups.disk.paths import MANIFEST, MODEL, RESULTS, TABLE_3

if TYPE_CHECKING:
    from modelsoups.tracking.follower import Followed, Follower, Record

FIGURES = ("figure_gains", "figure_1", "figure_B1", "figure_greedy", "figure_shifts", "contact")


def scores(results: Path, row: str) -> dict[str, float]:
    """Return a model's or soup's accuracies (0 to 1) by "accuracy/SET"; empty without a report."""
    path = results / RESULTS
    lines = storage.read_jsonl(path) if (results / MANIFEST).exists() and path.exists() else []
    return {f"accuracy/{line['dataset']}": line["accuracy"] for line in lines if line.get("row") == row}


def results_state(results: Path) -> str:
    return storage.fingerprint(storage.read_json(results / MANIFEST)["inputs"])


def log_results(follower: "Follower") -> None:
    """Log a finished report once: a W&B run of soups, and accuracies to the ingredients' runs.

    Online the soups come first, since a command waits only a minute. Offline they come last, since
    `wandb leet` opens on the newest run.
    """
    state = results_state(follower.run.results)
    online = follower.is_online()
    if online:
        _log_soups_once(follower, state)
    _log_scores_once(follower, state)
    if not online:
        _log_soups_once(follower, state)


def _log_soups_once(follower: "Follower", state: str) -> None:
    soup = follower.record("soup", state)
    with soup.lock() as free:
        if free and state not in soup.logged:
            if not follower.is_online():
                time.sleep(1)  # W&B names folders by the second, and `wandb leet` sorts them
            soup.save(_log_soups(follower, soup), state)


def _log_scores_once(follower: "Follower", state: str) -> None:
    for followed in follower.followed.values():
        record, found = followed.record, scores(follower.run.results, followed.folder.name)
        with record.lock() as free:
            if free and found and followed.closed and state not in record.logged:
                _log_scores(follower, followed, found)
                record.save(followed.step, state)


def _log_scores(follower: "Follower", followed: "Followed", found: dict[str, float]) -> None:
    folder, run = followed.folder, followed.begin()
    run.summary.update(found)
    if follower.settings["track"]["artifacts"] and folder.name in _greedy(follower).get("ingredients", ()):
        run.log_artifact(_artifact(follower, f"ingredient-{folder.name}", folder / MODEL))
    run.finish()


def _log_soups(follower: "Follower", record: "Record") -> int:
    """Log greedy steps, Table 3, figures and accuracies; return the last step logged."""
    import wandb

    results, trace = follower.run.results, _greedy(follower).get("trace", [])
    run = follower.begin(record.id, "soups", "soup", {"soup": follower.settings["soup"]})
    done = follower.last_step(run, record)
    for step, row in enumerate(trace):
        if step > done:
            run.log({f"greedy/{key}": value for key, value in row.items()}, step=step)
    last = max(done + 1, len(trace))
    files = {f"figures/{name}": results / f"{name}.png" for name in FIGURES}
    figures = {name: wandb.Image(str(file)) for name, file in files.items() if file.exists()}
    run.log({**_table(wandb, results), **figures}, step=last)
    for line in storage.read_jsonl(results / RESULTS):
        if line.get("kind") not in (None, "individual") or line.get("row") in ("best", "second_best"):
            run.summary[f"{line['row']}/{line['dataset']}"] = line["accuracy"]
    if follower.settings["track"]["artifacts"]:
        _log_lineage(follower, run)
    run.finish()
    return last


def _table(wandb: Any, results: Path) -> dict[str, Any]:
    path = results / TABLE_3
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    return {"table_3": wandb.Table(columns=head, data=rows)}


def _greedy(follower: "Follower") -> dict[str, Any]:
    path = follower.run.soup("greedy")
    return dict(storage.read_json(path)) if path.exists() else {}


def _log_lineage(follower: "Follower", run: Any) -> None:
    """Log each soup file as a W&B artifact; online, the greedy soup's models are its inputs."""
    if not run.offline:
        for name in _greedy(follower).get("ingredients", ()):
            path = follower.run.ingredients / name / MODEL
            if path.exists():  # an EMA or SWA average has no folder
                run.use_artifact(_artifact(follower, f"ingredient-{name}", path))
    for path in sorted(follower.run.soups.glob("*.safetensors")):
        run.log_artifact(_artifact(follower, path.stem, path))


def _artifact(follower: "Follower", name: str, path: Path) -> Any:
    import wandb

    allowed = re.sub(r"[^\w.-]", "-", f"{follower.settings['name']}-{name}")
    artifact = wandb.Artifact(allowed, type="model" if name.startswith("ingredient-") else "soup")
    artifact.add_file(str(path), policy="immutable", skip_cache=True)
    return artifact
