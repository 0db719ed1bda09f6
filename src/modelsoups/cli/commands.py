"""The commands of `modelsoups [stage] [hydra overrides]`, their help, and the entry point."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from modelsoups.cli.errors import fail
from modelsoups.workers.interrupts import cleaned_up

# The pipeline, Hydra and PyTorch are imported only when a command needs them, so that `--help` is fast.

STAGES = {  # in order; name -> (what it does, the sections of the configuration that it reads)
    "prepare": ("data sets -> WebDataset shards", ("data",)),
    "heads": ("pre-trained encoder + zero-shot or linear-probe head -> the initial model", ("model", "heads")),
    "sweep": ("search file -> the draw, one recipe per line", ("sweep", "recipe")),
    "finetune": ("one fine-tuned model (ingredient) per recipe", ("ingredient", "finetune")),
    "evaluate": ("logits of every ingredient on every data set, cached", ("evaluate",)),
    "soup": ("soups, ensembles and baselines, chosen on the hold-out, then evaluated", ("soup",)),
    "report": ("results.jsonl, tables, figures and one HTML page", ()),
    "analyse": (
        "the paper's other figures and tables (run separately, or with analyse.in_pipeline)",
        ("analyse",),
    ),
}
APART = {  # name -> (module with run(experiment), what it does, the sections that it reads)
    "plan": ("cluster.plan", "what a sweep costs: images, GPU-hours, disk", ("plan",)),
    "submit": (
        "cluster.submit",
        "the stages as jobs of a SLURM cluster, with their dependencies",
        ("submit", "cluster"),
    ),
    "status": ("cluster.status", "how far the sweep is, and what failed and why", ()),
    "dashboard": ("cli.dashboard", "the sweep as a workspace of Weights & Biases", ("track",)),
    "export": ("cli.export", "a soup as a folder that open_clip or timm loads", ("export",)),
    "pretrain": (
        "cli.pretrain",
        "retrain the miniature's pre-trained models (not part of the pipeline)",
        ("pretrain",),
    ),
}
ANEW = ("mix", "doctor")  # commands that keep nothing when they are interrupted
COMMANDS = {  # with arguments of their own; name -> (module with main(argv), what it does)
    "mix": ("cli.mix", "a soup of any checkpoints (modelsoups mix -h)"),
    "doctor": ("cli.doctor", "why a soup of these checkpoints will or will not work (modelsoups doctor -h)"),
    "import-released": (
        "cli.import_released",
        "the authors' 72 fine-tuned models -> ingredients of experiment=released",
    ),
    "verify": ("cli.verify", "measured accuracies of those models against the released accuracies"),
}

USAGE = """usage: modelsoups [stage] [key=value ...]

Without a stage, every stage runs in order; what is complete is skipped.

stages:
{stages}

apart:
{apart}
{commands}

examples:
  modelsoups                                       the miniature, end to end
  modelsoups finetune -m ingredient='range(12)'    Hydra multirun, one ingredient per job
  modelsoups sweep sweep.seed=1 name=seed1         a different draw, in its own run folder
  modelsoups export name=seed1                     a run is reopened by its name
  modelsoups finetune -h                           the keys of a stage
  modelsoups finetune --cfg job                    print the configuration

Every key: modelsoups --cfg job. Hydra's own flags (-m, --cfg, --info, --hydra-help) work after the stage."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the console script; exit status: 0, 1 (error, one line) or 2 (wrong usage)."""
    with cleaned_up():
        _main(argv)


def _main(argv: Sequence[str] | None) -> None:
    args = list(sys.argv[1:] if argv is None else argv)
    if args and args[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if args and args[0] in COMMANDS:
        if status := _command(args[0], args[1:]):
            raise SystemExit(status)
        return
    named = args and "=" not in args[0] and args[0][:1] not in ("-", "+", "~")
    stage = args.pop(0) if named else None
    if stage is not None and stage not in STAGES | APART:
        names = ", ".join([*STAGES, *APART, *COMMANDS])
        fail(f"unknown stage {stage}; expected one of {names} (or none, for all)", status=2)
    if any(a in ("-h", "--help") for a in args):
        print(_stage_usage(stage) if stage else usage())
        return
    modules = modules_of([stage] if stage else list(STAGES))
    if any(a.startswith("-") for a in args):
        from modelsoups.cli.hydra_flags import run_with_flags  # Hydra takes half a second to import

        run_with_flags(modules, args)
    else:
        from modelsoups.cli.pipeline import run_command  # as above

        run_command(modules, args)


def modules_of(stages: Sequence[str]) -> dict[str, str]:
    """Return the module of each given stage or command, relative to the package modelsoups."""
    return {name: APART[name][0] if name in APART else f"stages.{name}" for name in stages}


def usage() -> str:
    """Return the text of `modelsoups --help`."""
    tables = {
        "stages": {name: what for name, (what, _) in STAGES.items()},
        "apart": {name: what for name, (_, what, _) in APART.items()},
        "commands": {name: what for name, (_, what) in COMMANDS.items()},
    }
    texts = {}
    for title, table in tables.items():
        texts[title] = "\n".join(f"  {name:<17}{what}" for name, what in table.items())
    return USAGE.format(**texts)


def _stage_usage(stage: str) -> str:
    """Return the text of `modelsoups <stage> --help`: what the stage does, and its keys."""
    from modelsoups.config.reference import listing  # Hydra takes half a second to import

    what, sections = STAGES[stage] if stage in STAGES else APART[stage][1:]
    text = f"usage: modelsoups {stage} [key=value ...]\n\n{what}\n"
    return text + (f"\nkeys:\n{listing(sections)}\n" if sections else "") + "\nEvery key: modelsoups --cfg job."


def _command(name: str, argv: list[str]) -> int:
    """Run a command that parses its own arguments; return its exit status."""
    try:
        status: int | None = importlib.import_module(f"modelsoups.{COMMANDS[name][0]}").main(argv)
    except KeyboardInterrupt:
        again = "starts anew" if name in ANEW else "continues where it stopped"
        fail(f"{name}: interrupted before its end; the same command {again}", status=130)
    except (ValueError, OSError) as error:
        fail(f"{name}: {' '.join(str(error).split())}")
    except Exception as error:
        from modelsoups.cli.pipeline import log_trace  # as above

        what = " ".join(str(error).split())
        fail(f"{name}: {type(error).__name__}: {what}{log_trace(Path('modelsoups.log'))}")
    return status or 0
