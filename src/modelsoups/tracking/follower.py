"""The process that follows a run folder and logs it to W&B; started by `tracking.following`, never by hand.

An ingredient is a run, whose id follows from the run folder and the recipe: a task that was requeued continues it. What
has been logged is asked where it lies (the server, or W&B's files of an offline run), so that a kill at any moment
leaves neither a gap nor a double: a step is logged once, and only when no restart can change its row any more (later
checkpoints, or the end, have been written). Ends when its standard input does, or with its parent.
"""

from __future__ import annotations

import contextlib
import fcntl
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

from modelsoups.disk import manifests, storage
from modelsoups.disk.paths import Run
from modelsoups.tracking import wandb_files
from modelsoups.tracking.results import log_results, results_state, scores

POLL = 2.0  # seconds
INIT = 20.0  # seconds for the server's first answer
FLUSH = 10.0  # seconds for W&B to have written what it was told is all
Row = dict[str, Any]
Mode = Literal["auto", "online", "offline"]


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end comes through standard input
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)
    given = json.loads(sys.stdin.readline())
    follower = Follower(given["config"], given["mode"], os.getppid())
    while not select.select([sys.stdin], [], [], POLL)[0] and os.getppid() == follower.parent:
        follower.look()
    follower.look(last=True)


class Follower:
    """Follows the ingredients of a command, then its results. config: the whole configuration as a mapping."""

    def __init__(self, config: Row, mode: Mode, parent: int) -> None:
        self.config, self.mode, self.parent = config, mode, parent
        self.run = Run(Path(config["runs"]), Path(config["results"]))
        self.token = _token(self.run.wandb / "id")
        self.followed: dict[Path, Followed] = {}

    def look(self, last: bool = False) -> None:
        """Log what is new; at the last look, end what is open."""
        for folder in self._folders():
            if folder not in self.followed:
                recipe = storage.read_json(folder / "recipe.json")
                self.followed[folder] = Followed(self, folder, recipe)
            self.followed[folder].look(last)
        if last and (self.run.results / manifests.MANIFEST).exists() and (self.run.results / "results.jsonl").exists():
            log_results(self)

    def _folders(self) -> list[Path]:
        only = self.config["ingredient"]
        there = [self.run.ingredient(only)] if only is not None else sorted(self.run.ingredients.glob("*"))
        return [folder for folder in there if (folder / "recipe.json").exists()]

    def id(self, *parts: Any) -> str:
        """The id of a run of W&B's."""
        return storage.fingerprint([self.token, *parts])

    def begin(self, run_id: str, name: str, stage: str, config: Row) -> Any:
        """Open a run, new or continued; without an answer of the server, offline from now on."""
        import wandb

        if self.mode == "auto":
            self.mode = "online" if _login(wandb) else "offline"
        while any(self.run.wandb.glob(f"wandb/*run-{time.strftime('%Y%m%d_%H%M%S')}-{run_id}")):
            time.sleep(0.05)  # W&B names a folder by the second, and would overwrite one of this second
        track = self.config["track"]
        common = {key: self.config[key] for key in ("protocol", "heads")}
        kinds = [self.config["model"]["name"], self.config["data"]["name"]]
        options: Row = {
            "project": track["project"], "entity": track["entity"], "dir": str(self.run.wandb), "id": run_id,
            "name": name, "group": self.config["name"], "job_type": stage, "resume": "allow",
            "tags": list(dict.fromkeys(tag[:64] for tag in [stage, self.config["name"], *kinds])),
            "config": {**config, "experiment": self.config["name"], "model": kinds[0], "data": kinds[1], **common},
            "reinit": "create_new",
        }  # fmt: skip
        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_save_requirements=False,
            init_timeout=INIT, x_stats_pid=self.parent, x_stats_track_process_tree=True,
        )  # fmt: skip
        try:
            return wandb.init(**options, mode=self.mode, settings=settings)
        except Exception as error:  # from the network, the server or the client, each with its own kinds
            if self.mode == "offline":
                raise
            self.mode = "offline"
            wandb.teardown()  # it would refuse the id as in use; what is open goes on offline
            for followed in self.followed.values():
                followed.drop()
            say(f"the server did not take the run ({first_line(error)}); logging offline to {self.run.wandb}")
            return wandb.init(**options, mode="offline", settings=settings)

    def done(self, run: Any, run_id: str) -> int:
        """The last step that has been logged, or -1."""
        if self.mode == "online":
            return int(run.starting_step) - 1
        return wandb_files.last_step(self.run.wandb, run_id)

    @contextlib.contextmanager
    def alone(self, run_id: str) -> Iterator[bool]:
        """Whether no other process logs this run; while within, none does."""
        with open(self.run.wandb / f"{run_id}.lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def logged(self, run_id: str, what: str) -> bool:
        """Whether this state of the run has been logged to its end."""
        mark = self.run.wandb / f"{run_id}.json"
        return mark.exists() and what in storage.read_json(mark)["logged"]

    def mark(self, run_id: str, *what: str) -> None:
        path = self.run.wandb / f"{run_id}.json"
        before = storage.read_json(path)["logged"] if path.exists() else []
        storage.write_json(path, {"logged": [*before, *what]})


class Followed:
    """One ingredient."""

    def __init__(self, follower: Follower, folder: Path, recipe: Row) -> None:
        self.follower, self.folder, self.recipe = follower, folder, recipe
        self.id = follower.id(folder.name, recipe)
        self.run_id = self._run_id()
        self.run: Any = None
        self.rows: list[Row] = []  # at the last look
        self.held: list[Row] = []  # before the newest checkpoint was seen
        self.saved: int | None = None  # when the newest checkpoint was written
        self.step = -1  # logged
        self.closed = follower.logged(self.id, "metrics")
        self.lock = contextlib.ExitStack()

    def _run_id(self) -> str:
        """W&B's id of the run: our own, or the one that an agent of W&B's started this command with."""
        given = self.follower.run.wandb / f"{self.id}.agent"
        if os.environ.get("WANDB_SWEEP_ID") and (agent := os.environ.get("WANDB_RUN_ID")):
            storage.write_text(given, agent)
        return given.read_text(encoding="utf-8") if given.exists() else self.id

    def look(self, last: bool) -> None:
        """Log the rows that are final; close the run when the ingredient has ended."""
        if self.closed:
            return
        manifest, failure = (_json(self.folder / name) for name in (manifests.MANIFEST, "failed.json"))
        before, self.rows = self.rows, _rows(self.folder / "metrics.jsonl")
        saved = _time(self.folder / "checkpoint.pt")
        if manifest or failure:
            if self.run is None and not self._open():
                return
            self._log(self.rows)
            self._close(manifest or {"failed": failure["reason"]}, 1 if failure else 0)
            return
        if saved is not None and saved != self.saved:
            # Written beside later steps, one at a time: it holds the rows that were there before the one before it was.
            self._log(self.held)
            self.held = before
        self.saved = saved
        if last and self.run is not None:
            self.run.mark_preempting()
            self._end(1)

    def _log(self, rows: list[Row]) -> None:
        if not rows or (self.run is None and not self._open()):
            return
        for row in rows:
            if row["step"] > self.step:
                self.run.log({key: value for key, value in row.items() if key != "step"}, step=row["step"])
                self.step = row["step"]

    def _open(self) -> bool:
        if not self.lock.enter_context(self.follower.alone(self.id)):
            self.lock.close()
            return False
        name = f"{self.follower.config['name']} {self.folder.name}"
        config = {**self.recipe, "ingredient": self.folder.name}
        self.run = self.follower.begin(self.run_id, name, "finetune", config)
        self.step = self.follower.done(self.run, self.run_id)
        return True

    def _close(self, end: Row, status: int) -> None:
        self.run.summary.update({k: v for k, v in end.items() if k not in ("inputs", "files", "provenance")})
        found = scores(self.follower.run.results, self.folder.name)
        self.run.summary.update(found)
        self._end(status)
        if not self._on_disk():
            raise OSError(f"{self.follower.run.wandb}: W&B's file of {self.folder.name} is cut off; is the disk full?")
        whole = found and not self.follower.config["track"]["artifacts"]
        self.follower.mark(self.id, "metrics", *([results_state(self.follower.run.results)] if whole else []))
        self.closed = True

    def drop(self) -> None:
        """Forget an open run that W&B has closed."""
        if self.run is not None:
            self.run = None
            self.lock.close()

    def _end(self, status: int) -> None:
        self.run.finish(exit_code=status)
        deadline = time.monotonic() + FLUSH
        while not self._on_disk() and time.monotonic() < deadline:
            time.sleep(0.05)  # W&B's own process may still write
        self.run = None
        self.lock.close()

    def _on_disk(self) -> bool:
        """Whether an offline run's files hold what was logged; W&B's server is taken at its word."""
        wandb = self.follower.run.wandb
        return self.follower.mode != "offline" or wandb_files.last_step(wandb, self.run_id) >= self.step


def say(message: str) -> None:
    print(f"modelsoups: W&B: {message}", flush=True)  # standard output is the command's standard error


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _login(wandb: Any) -> bool:
    """Whether there is a login for W&B's server, without asking anybody for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    from wandb.sdk.lib import wbauth

    host = wbauth.HostUrl(wandb.setup().settings.base_url)
    return wbauth.read_netrc_auth(host=host) is not None


def _token(path: Path) -> str:
    """What tells this run folder from others of the same name; made once, by whoever comes first."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}")
    tmp.write_text(secrets.token_hex(8))
    with contextlib.suppress(FileExistsError):
        os.link(tmp, path)
    tmp.unlink()
    return path.read_text()


def _rows(path: Path) -> list[Row]:
    """The whole lines of metrics.jsonl."""
    rows = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                rows.append(json.loads(line))
    return rows


def _json(path: Path) -> Any:
    return storage.read_json(path) if path.exists() else None


def _time(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return None


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        say(f"logging has stopped ({first_line(error)}); everything else goes on")
        raise
