"""The follower: a process that logs the files of a run folder to W&B, started by `following`.

Each ingredient (fine-tuned model) is a W&B run, with a hash of run folder and recipe as id, so
a restarted fine-tune continues its W&B run. Online, W&B's server knows the last step; offline, a
small JSON file records it when the W&B run is closed, so a kill can log steps twice but loses none.
The process exits when its standard input is closed or its parent has exited.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from modelsoups import tracking
from modelsoups.disk import manifests, paths, provenance, storage, temporary
from modelsoups.tracking.results import log_results, results_state, scores

POLL = 2.0  # seconds
INIT = 20.0  # seconds for the server's first answer
Row = dict[str, Any]
Mode = Literal["auto", "online", "offline"]


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it exits when standard input is closed
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)
    given = json.loads(sys.stdin.readline())
    follower = Follower(given["settings"], given["mode"], os.getppid())
    while not select.select([sys.stdin], [], [], POLL)[0] and os.getppid() == follower.parent:
        follower.look()
    follower.look(last=True)


class Follower:
    """Logs a run's ingredients and report to W&B, which plots the load of process `parent`."""

    def __init__(self, settings: Row, mode: Mode, parent: int) -> None:
        self.settings, self.mode, self.parent = settings, mode, parent
        self.run = paths.Run(Path(settings["runs"]), Path(settings["results"]))
        self.token = _token(self.run.wandb / "id")
        self.followed: dict[Path, Followed] = {}

    def look(self, last: bool = False) -> None:
        """Log what is new since the last call; `last`: also close open W&B runs, log the report."""
        for folder in self._folders():
            if folder not in self.followed:
                self.followed[folder] = Followed(self, folder)
            self.followed[folder].look(last)
        results = self.run.results
        if last and (results / paths.MANIFEST).exists() and (results / paths.RESULTS).exists():
            log_results(self)

    def _folders(self) -> list[Path]:
        only = self.settings["ingredient"]
        folders = sorted(self.run.ingredients.glob("*")) if only is None else [self.run.ingredient(only)]
        return [folder for folder in folders if (folder / paths.RECIPE).exists()]

    def record(self, *parts: Any) -> "Record":
        return Record(self.run.wandb, storage.fingerprint([self.token, *parts]))

    def is_online(self) -> bool:
        """Return whether runs are sent to the server; with mode "auto", whether there is a login."""
        import wandb

        if self.mode == "auto":
            self.mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
        return self.mode == "online"

    def begin(self, run_id: str, name: str, stage: str, facts: Row) -> Any:
        """Return a new or continued W&B run; if the server does not answer, log offline."""
        import wandb

        self.is_online()  # settles the mode
        while any(self.run.wandb.glob(f"wandb/*run-{time.strftime('%Y%m%d_%H%M%S')}-{run_id}")):
            time.sleep(0.05)  # W&B names folders by the second, and would overwrite this one
        track, experiment = self.settings["track"], self.settings["name"]
        kinds = {key: self.settings[key]["name"] for key in ("model", "data")}
        common = {key: self.settings[key] for key in ("protocol", "heads")}
        given = filter(None, os.environ.get("WANDB_TAGS", "").split(","))
        tags = dict.fromkeys(tag[:64] for tag in (stage, experiment, *kinds.values(), *given))
        options: Row = {
            "project": tracking.project(track), "entity": track["entity"], "dir": str(self.run.wandb.resolve()),
            "id": run_id, "name": f"{experiment} {name}", "group": tracking.group(self.settings),
            "job_type": stage, "tags": list(tags),
            "config": provenance.public({**facts, "experiment": experiment, **kinds, **common}),
            "resume": "allow", "reinit": "create_new",
        }  # fmt: skip
        options["settings"] = wandb.Settings(  # its metadata would have the absolute paths of folder and Python
            silent=True, console="off", disable_git=True, disable_code=True, x_save_requirements=False,
            x_disable_meta=True,
            init_timeout=INIT, x_stats_pid=self.parent, x_stats_track_process_tree=True,
        )  # fmt: skip
        try:
            return _init(**options, mode=self.mode)
        except Exception as error:  # of the network, the server or the client
            if self.mode == "offline":
                raise
            self.mode = "offline"
            wandb.teardown()  # otherwise the id stays in use; open runs continue offline
            for followed in self.followed.values():
                followed.drop()
            say(f"the server did not accept the run ({first_line(error)}); logging offline to {self.run.wandb}")
            return _init(**options, mode="offline")

    def last_step(self, run: Any, record: "Record") -> int:  # -1 if nothing has been logged
        return int(run.starting_step) - 1 if self.mode == "online" else record.step


def _init(**options: Any) -> Any:
    """Return a new W&B run; retry while W&B has not yet freed the id of a run that has finished."""
    import wandb

    for seconds in (0.1, 1.0, 5.0):
        try:
            return wandb.init(**options)
        except Exception as error:
            if "is in use" not in str(error):
                raise
            time.sleep(seconds)
    return wandb.init(**options)


class Record:
    """A JSON file that records how far a W&B run is logged: last step and finished parts."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.id, self.path = run_id, folder / f"{run_id}.json"
        self.read()

    def read(self) -> None:
        known = storage.read_json(self.path) if self.path.exists() else {}
        self.step: int = known.get("step", -1)
        self.logged: list[str] = known.get("logged", [])

    def save(self, step: int, *logged: str) -> None:
        """Store the last logged step, and mark what is completely logged, such as "metrics"."""
        if step > self.step or logged:
            self.step, self.logged = max(step, self.step), [*self.logged, *logged]
            storage.write_json(self.path, {"step": self.step, "logged": self.logged})

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Yield whether this process now holds the W&B run's lock, until the with block ends."""
        try:
            with FileLock(self.path.with_suffix(".lock"), timeout=0):
                self.read()  # another process may have logged more
                yield True
        except Timeout:
            yield False


class Followed:
    """An ingredient (one fine-tuned model) of the run folder, and the W&B run that logs it."""

    def __init__(self, follower: Follower, folder: Path) -> None:
        self.follower, self.folder = follower, folder
        self.recipe: Row = storage.read_json(folder / paths.RECIPE)
        self.record = follower.record(folder.name, self.recipe)
        self.run_id = self._run_id()
        self.run: Any = None
        self.step = -1  # the last step that was logged
        self.closed = "metrics" in self.record.logged
        self.locked = contextlib.ExitStack()

    def _run_id(self) -> str:
        """Return the W&B run id: the one given by a W&B sweep agent, or else `record.id`."""
        given = self.record.path.with_suffix(".agent")
        if os.environ.get("WANDB_SWEEP_ID") and (agent := os.environ.get("WANDB_RUN_ID")):
            storage.write_text(given, agent)
        return given.read_text(encoding="utf-8") if given.exists() else self.record.id

    def look(self, last: bool) -> None:
        """Log new lines of metrics.jsonl; if fine-tuning has ended or `last`, close the W&B run."""
        if self.closed:
            return
        failure = self.folder / paths.FAILED
        end = manifests.manifest_of(self.folder)
        if end is None and failure.exists():
            end = {"failed": storage.read_json(failure)["reason"]}
        rows = _rows(self.folder / paths.METRICS)
        if not (rows or end) or not (self.run or self._open()):
            return
        for row in rows:
            if row["step"] > self.step:
                self.step = row.pop("step")
                self.run.log(row, step=self.step)
        if end:
            self._close(end)
        elif last:
            self.run.mark_preempting()
            self._finish(1)

    def _open(self) -> bool:
        free = self.locked.enter_context(self.record.lock())
        self.closed = free and "metrics" in self.record.logged  # by another process
        if self.closed or not free:
            self.locked.close()
            return False
        self.begin()
        return True

    def begin(self) -> Any:
        config = {**self.recipe, "ingredient": self.folder.name}
        self.run = self.follower.begin(self.run_id, self.folder.name, "finetune", config)
        self.step = self.follower.last_step(self.run, self.record)
        return self.run

    def _close(self, end: Row) -> None:
        """Log the result of fine-tuning and, if reported, the accuracies; close the W&B run."""
        facts = {key: end[key] for key in end.keys() - {"inputs", "files", "provenance", "unit"}}
        if "unit" in end:  # not of images
            facts[end["unit"]] = facts.pop("images")
        results = self.follower.run.results
        found = scores(results, self.folder.name)
        self.run.summary.update({**facts, **found})
        self._finish(1 if "failed" in end else 0)
        complete = found and not self.follower.settings["track"]["artifacts"]
        self.record.save(self.step, "metrics", *([results_state(results)] if complete else []))
        self.closed = True

    def _finish(self, status: int) -> None:
        self.run.finish(exit_code=status)
        self.record.save(self.step)
        self.drop()

    def drop(self) -> None:
        """Release the lock of the W&B run and forget the run, which must be closed already."""
        if self.run is not None:
            self.run = None
            self.locked.close()


def say(message: str) -> None:
    print(f"modelsoups: W&B: {message}", flush=True)  # to the command's standard error


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _token(path: Path) -> str:
    """Return the random id of this run folder; the first process writes it to `path`."""
    tmp = temporary.beside(path)
    tmp.write_text(secrets.token_hex(8))
    with contextlib.suppress(FileExistsError):
        os.link(tmp, path)
    tmp.unlink()
    return path.read_text()


def _rows(path: Path) -> list[Row]:
    """Return the complete lines of metrics.jsonl as dicts; the last line may be incomplete."""
    rows = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                rows.append(json.loads(line))
    return rows


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        say(f"logging has stopped because of an error ({first_line(error)}); the command continues")
        raise
