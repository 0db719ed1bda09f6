"""The command line: `modelsoups [stage] [hydra overrides]`; without a stage, the whole pipeline."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # importing either costs seconds that `--help` need not pay
    from modelsoups.config.schema import Config
    from modelsoups.disk.paths import Run

STAGES = {  # in order; name -> what it does. Each is a module with run(cfg).
    "prepare": "data sets -> WebDataset shards",
    "heads": "pre-trained encoder + zero-shot or linear-probe head -> the initial model",
    "sweep": "search file -> the draw, one recipe a line",
    "finetune": "one fine-tuned model (ingredient) a recipe",
    "evaluate": "logits of every ingredient on every data set, cached",
    "soup": "soups, ensembles and baselines, chosen on the hold-out, then evaluated",
    "report": "results.jsonl, tables, figures and one HTML page",
    "analyse": "the paper's other figures and tables (by itself, or with analyse.in_pipeline)",
}
COMMANDS = {  # with arguments of their own; name -> (module with main(argv), what it does)
    "mix": ("cli.mix", "a soup of any checkpoints (modelsoups mix -h)"),
    "doctor": ("cli.doctor", "why a soup of these checkpoints will or will not work (modelsoups doctor -h)"),
    "import-released": (
        "cli.import_released",
        "the authors' 72 fine-tuned models -> ingredients of experiment=released",
    ),
    "verify": ("cli.verify", "accuracies of those models against the released ones, model by model"),
}
APART = {  # name -> (module with run(cfg), what it does)
    "plan": ("cluster.plan", "what a sweep costs: images, GPU-hours, disk"),
    "submit": ("cluster.submit", "the stages as jobs of a SLURM cluster, with their dependencies"),
    "status": ("cluster.status", "how far the sweep is, and what failed and why"),
    "dashboard": ("cli.dashboard", "the sweep as a workspace of Weights & Biases"),
    "export": ("cli.export", "a soup as a folder that open_clip or timm loads as it is"),
    "pretrain": ("cli.pretrain", "the miniature's pre-trained models, made anew (not part of the pipeline)"),
}

USAGE = """usage: modelsoups [stage] [key=value ...]

Without a stage, every stage in order; what is complete is skipped.

stages:
{stages}

apart:
{apart}
{tools}

examples:
  modelsoups                                       the miniature, end to end
  modelsoups finetune -m ingredient='range(12)'    Hydra multirun, one ingredient a job
  modelsoups sweep sweep.seed=1 name=seed1         another draw, in a run folder of its own
  modelsoups finetune --cfg job                    print the configuration

Every key: modelsoups --cfg job. Hydra's own flags (-m, --cfg, --info, --hydra-help) work after the stage."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script; exits with 0, 1 (error, one line on stderr) or 2 (usage)."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args and args[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if args and args[0] in COMMANDS:
        if status := _command(args[0], args[1:]):
            raise SystemExit(status)
        return
    stage = args.pop(0) if args and "=" not in args[0] and args[0][:1] not in ("-", "+", "~") else None
    if stage is not None and stage not in STAGES | APART:
        fail(
            f"unknown stage {stage}; expected one of {', '.join([*STAGES, *APART, *COMMANDS])} (or none, for all)",
            status=2,
        )
    if any(a in ("-h", "--help") for a in args):
        print(usage())
        return
    names = [stage] if stage else list(STAGES)
    if any(a.startswith("-") for a in args):
        _hydra_main(names, args)
    else:
        guarded(names, args)


def usage() -> str:
    apart, tools = ({name: what for name, (_, what) in table.items()} for table in (APART, COMMANDS))
    tables = {"stages": STAGES, "apart": apart, "tools": tools}
    return USAGE.format(**{t: "\n".join(f"  {n:<17}{d}" for n, d in table.items()) for t, table in tables.items()})


def _command(name: str, argv: list[str]) -> int:
    """Run a command of its own arguments; an exception becomes one line on stderr."""
    try:
        status: int | None = importlib.import_module(f"modelsoups.{COMMANDS[name][0]}").main(argv)
    except KeyboardInterrupt:
        fail(f"{name}: interrupted; the same command continues where it stopped", status=130)
    except (ValueError, OSError) as error:
        fail(f"{name}: {' '.join(str(error).split())}")
    except Exception as error:
        what = " ".join(str(error).split())
        fail(f"{name}: {type(error).__name__}: {what}{_log_trace(Path('modelsoups.log'))}")
    return status or 0


def guarded(stages: list[str], overrides: list[str]) -> None:
    """Load the configuration and run stages; an exception becomes one line on stderr, its trace goes to the log."""
    from modelsoups.config.compose import load

    try:
        cfg = load(overrides)
    except ValueError as error:
        fail(str(error))
    run_stages(stages, cfg)


def run_stages(stages: list[str], cfg: Config) -> None:
    """Run stages in order, with what they make logged to W&B beside them."""
    from modelsoups.tracking import following

    with following(cfg.wandb, cfg.run.wandb, dataclasses.asdict(cfg), stages):
        _run_stages(stages, cfg)


def _run_stages(stages: list[str], cfg: Config) -> None:
    """Each stage returns whether it made anything, and its seconds are kept if so."""
    started = time.monotonic()
    for stage in stages:
        if stage == "analyse" and len(stages) > 1 and not cfg.analyse.in_pipeline:
            continue
        begin = time.monotonic()
        try:
            if _run(stage, cfg):
                _keep_seconds(cfg.run, stage, time.monotonic() - begin)
        except KeyboardInterrupt:
            fail(f"{stage}: interrupted; the same command continues where it stopped", status=130)
        except Exception as error:
            kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
            fail(f"{stage}: {kind}{' '.join(str(error).split())}{_log_trace(cfg.run.log)}")
    if len(stages) > 1:
        print(f"done in {time.monotonic() - started:.0f} s\n" + conclusion(cfg))


def conclusion(cfg: Config) -> str:
    """What a run has made, where, and what can be done next."""
    run = cfg.run
    soups = [run.mixed(row) for row in cfg.soup.write]
    logged = run.wandb / "wandb"
    made = {"report": [run.results / "index.html"], "soup": soups, "all soups": [run.soups], "W&B": [logged]}
    lines = [f"  {what:<10}{path}" for what, paths in made.items() for path in paths if path.exists()]
    again = " ".join(
        o for o in cfg.overrides if o.startswith(("experiment=", "name=", "runs=", "results=", "data.dir="))
    )
    export = f"modelsoups export {again}".strip()
    lines.append(f"next: {export}    # the greedy soup as a folder for open_clip or timm, with a model card")
    if logged.exists():
        lines.append(f"      wandb leet {logged}    # the runs in this terminal; wandb sync uploads them")
    return "\n".join(lines)


def _run(stage: str, cfg: Config) -> bool:
    """Whether the stage made anything. What an imported pool stands in for is not made."""
    if cfg.pool == "imported" and stage in ("heads", "sweep", "finetune"):
        from modelsoups.experiment.imported import require_import

        require_import(cfg, stage)
        return False
    if stage == "analyse":
        from modelsoups.cli.pools import make_pools

        make_pools(cfg)
    module = APART[stage][0] if stage in APART else f"stages.{stage}"
    made: bool = importlib.import_module(f"modelsoups.{module}").run(cfg)
    return made


def fail(message: str, status: int = 1) -> NoReturn:
    print(f"modelsoups: error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(status)


QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")  # the stages speak for themselves


def _hydra_main(stages: list[str], args: list[str]) -> None:
    """Hand over to Hydra for its flags: multirun, --cfg, --info."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import DictConfig

    from modelsoups.config import compose
    from modelsoups.disk.paths import shipped

    overrides = [a for a in args if "=" in a and not a.startswith("-")]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        single = [
            f"{o.key_or_group}={next(o.sweep_string_iterator())}" if o.is_sweep_override() else o.input_line
            for o in parsed
        ]
        cfg = compose.load([o for o in single if o is not None])  # a misspelt key stops here, before any job starts
    except (ValueError, hydra.errors.HydraException) as error:
        fail(" ".join(str(error).split()))

    def job(composed: DictConfig) -> None:
        given = tuple(HydraConfig.get().overrides.task)
        run_stages(stages, dataclasses.replace(compose.validate(composed), overrides=given))

    flags = [a for a in args if a not in overrides]  # after the overrides: argparse takes those only in one piece
    quiet = [*QUIET, f"hydra.job.name={stages[0]}"] if len(stages) == 1 else QUIET  # the name is for the launchers
    sys.argv = ["modelsoups", *compose.own_conf(), *overrides, *_setup(cfg, overrides), *quiet, *flags]
    hydra.main(config_path=str(shipped("conf")), config_name="config", version_base="1.3")(job)()


def _setup(cfg: Config, overrides: list[str]) -> list[str]:
    """cluster.setup for hydra/launcher=slurm, whose lists Hydra fixes before it composes the cluster."""
    if "hydra/launcher=slurm" not in overrides or any(o.startswith("hydra.launcher.setup=") for o in overrides):
        return []
    lines = ["'" + line.replace("'", r"\'") + "'" for line in cfg.cluster.setup]
    return [f"hydra.launcher.setup=[{','.join(lines)}]"]


def _keep_seconds(run: Run, stage: str, seconds: float) -> None:
    from modelsoups.disk import storage

    kept = storage.read_json(run.timings) if run.timings.exists() else {}
    storage.write_json(run.timings, {**kept, stage: round(seconds, 1)})


def _log_trace(log: Path) -> str:
    """Append the present exception's trace to the run's log; where that cannot be written, say nothing of it."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"\n{time.strftime('%F %T')} modelsoups {' '.join(sys.argv[1:])}\n{traceback.format_exc()}")
    except OSError:
        return ""
    return f" (trace: {log})"
