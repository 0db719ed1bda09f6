"""Runs pipeline stages in order; prints an error as one line, and its traceback to a log file."""

import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from modelsoups.cli.errors import fail
from modelsoups.config.recall import SETTLED_BY, keep_overrides, open_run
from modelsoups.config.schema import Config
from modelsoups.disk import storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.experiment import Experiment
from modelsoups.tracking import following
from modelsoups.workers.interrupts import check

READING = {"evaluate", "soup", "report"}  # stages of models that earlier stages have trained
OF_OWN_MODELS = ("sweep", "finetune", "evaluate", "soup", "report", "export", "status", "plan")


def run_command(modules: dict[str, str], overrides: Sequence[str]) -> None:
    """Load a run's configuration and run stages; a configuration error is printed as one line.

    modules: name of each stage -> its module within the package, such as "stages.soup".
    """
    try:
        config = open_run(overrides)
    except ValueError as error:
        fail(str(error))
    run_stages(modules, config)


def run_stages(modules: dict[str, str], config: Config) -> None:
    """Run stages in order, while a separate process logs the run to Weights & Biases.

    Nothing is logged, and so no folder is made, if the run that all stages read is not here.
    """
    is_absent = config.pool == "finetuned" and not config.run.root.exists() and not modules.keys() - READING
    with following("disabled" if is_absent else config.wandb, config.run.wandb, asdict(config), list(modules)):
        _run_all(modules, config)


def _run_all(modules: dict[str, str], config: Config) -> None:
    """Run stages until one fails, and store how long each took, unless it was already complete."""
    started, experiment = time.monotonic(), Experiment(config)
    if len(modules) > 1:
        print(
            f"modelsoups: running all stages of {config.name} in {config.run.root} (`modelsoups -h` lists the commands)"
        )
    for stage, module in modules.items():
        if stage == "analyse" and len(modules) > 1 and not config.analyse.in_pipeline:
            continue
        begin = time.monotonic()
        try:
            made = _run(stage, module, experiment)
            check()
            if (stage in SETTLED_BY or config.run.root.exists()) and os.environ.get("RANK", "0") == "0":
                keep_overrides(config.run, config.overrides, stage)
            if made and config.ingredient is None:  # the time of one ingredient is not the stage's
                _keep_seconds(config.run, stage, time.monotonic() - begin)
        except KeyboardInterrupt:
            fail(f"{stage}: interrupted; run the same command again to continue", status=130)
        except Exception as error:
            kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
            trace = log_trace(config.run.log) if kind or config.run.root.exists() else ""
            fail(f"{stage}: {kind}{' '.join(str(error).split())}{trace}")
    if len(modules) > 1:
        print(f"done in {time.monotonic() - started:.0f} s\n" + conclusion(config))


def _run(stage: str, module: str, experiment: Experiment) -> bool:
    """Run a stage, unless imported models make it superfluous; return whether it changed files."""
    if experiment.imported and stage in ("heads", "sweep", "finetune"):
        count = len(experiment.imported.manifest()["ingredients"])
        print(f"{stage}: complete, since the {count} models were imported")
        return False
    if not experiment.has_models and stage in OF_OWN_MODELS:
        print(f"{stage}: nothing to do with pool=none, since the run has only the models of analyse.pools")
        return False
    if stage == "analyse":
        importlib.import_module("modelsoups.cli.pools").make_pools(experiment)
    made: bool = importlib.import_module(f"modelsoups.{module}").run(experiment)
    return made


def conclusion(config: Config) -> str:
    """Return the last lines of output: the paths of the results, and commands to run next."""
    run = config.run
    soups = [run.mixed(row) for row in config.soup.write]
    logged = run.wandb / "wandb"
    analyses = [run.analyses / "index.html"]
    made = {
        "report": [run.results / "index.html"],
        "analyses": analyses,
        "soup": soups,
        "all soups": [run.soups],
        "W&B": [logged],
    }
    lines = [f"  {what:<10}{path}" for what, paths in made.items() for path in paths if path.exists()]
    again = [o for o in config.overrides if o.startswith(("runs=", "results="))]
    export = " ".join(["modelsoups export", f"name={config.name}", *again])
    loader = "transformers" if config.task == "text" else "open_clip or timm"
    if config.pool != "none":
        lines.append(f"next: {export}    # write the greedy soup as a folder for {loader}")
    if logged.exists():
        lines.append(f"      wandb leet {logged}    # show the W&B logs in the terminal; `wandb sync` uploads them")
    return "\n".join(lines)


def log_trace(log: Path) -> str:
    """Append the current traceback to a file; return " (trace: <file>)", or "" if that fails."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"\n{time.strftime('%F %T')} modelsoups {' '.join(sys.argv[1:])}\n{traceback.format_exc()}")
    except OSError:
        return ""
    return f" (trace: {log})"


def _keep_seconds(run: Run, stage: str, seconds: float) -> None:
    kept = storage.read_object(run.timings) if run.timings.exists() else {}
    storage.write_json(run.timings, {**kept, stage: round(seconds, 1)})
