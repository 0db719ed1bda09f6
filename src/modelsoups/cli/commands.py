"""The entry point of the command line `modelsoups`, with its tables of commands and its help."""

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from modelsoups import __version__
from modelsoups.cli.errors import fail
from modelsoups.published import index
from modelsoups.workers.interrupts import at_once, cleaned_up, interrupted

# The pipeline, Hydra and PyTorch are imported only by commands that need them: `--help` is fast.

STAGES = {  # in order; name -> (what it does, the sections of the configuration that it reads)
    "prepare": ("convert the data sets to WebDataset shards", ("data",)),
    "heads": ("add a zero-shot or linear-probe head to the pre-trained encoder", ("model", "heads")),
    "sweep": ("draw the hyperparameters (a recipe) of each model from a search file", ("sweep", "recipe")),
    "finetune": ("fine-tune one model (an ingredient) with each recipe", ("ingredient", "finetune")),
    "evaluate": ("compute and cache the logits of every ingredient on every data set", ("evaluate",)),
    "soup": ("choose soups, ensembles and baselines on the hold-out, then evaluate them", ("soup",)),
    "report": ("write results.jsonl, tables, figures and an HTML page", ()),
    "analyse": ("make the paper's other figures and tables (separately, or with analyse.in_pipeline)", ("analyse",)),
}
APART = {  # name -> (module with run(experiment), what it does, the sections that it reads)
    "plan": ("cluster.plan", "estimate the cost of a sweep: steps, GPU-hours, disk space", ("plan",)),
    "submit": (
        "cluster.submit",
        "submit the stages to a SLURM cluster as jobs that wait for each other",
        ("submit", "cluster"),
    ),
    "status": ("cluster.status", "show the sweep's progress, and which models failed and why", ()),
    "dashboard": ("cli.dashboard", "create a Weights & Biases workspace for the sweep", ("track",)),
    "export": ("cli.export", "write a soup as a folder for open_clip, timm or transformers", ("export",)),
    "pretrain": (
        "cli.pretrain",
        "retrain the miniature's pre-trained models (not part of the pipeline)",
        ("pretrain",),
    ),
}
ANEW = ("mix", "doctor")  # commands that keep nothing when they are interrupted
PARSERS = {"mix": "cli.mix_arguments", "doctor": "cli.doctor_arguments"}  # parse(argv), without PyTorch
COMMANDS = {  # with arguments of their own; name -> (module with main(argv or what is parsed), what it does)
    "mix": ("cli.mix", "average any checkpoints into a soup (modelsoups mix -h)"),
    "doctor": ("cli.doctor", "check whether averaging these checkpoints can work (modelsoups doctor -h)"),
    "import-released": (
        "cli.import_released",
        "import the authors' 72 fine-tuned models as ingredients of experiment=released",
    ),
    "verify": ("cli.verify", "compare measured accuracies of those 72 models with the authors' own"),
}

USAGE = """usage: modelsoups [stage] [key=value ...]

Without a stage, all stages run in order; completed work is skipped.

stages:
{stages}

other commands:
{apart}
{commands}

examples:
  modelsoups                                       run all stages on the small example (miniature)
  modelsoups finetune -m ingredient='range(12)'    Hydra multirun: one job for each ingredient
  modelsoups sweep sweep.seed=1 name=seed1         draw other recipes, into a new run folder
  modelsoups export name=seed1                     reopen that run by its name
  modelsoups report --list                         list the paper's figures and tables, and what makes each
  modelsoups finetune -h                           list the configuration keys of a stage
  modelsoups finetune --cfg job                    print the values of all configuration keys

After the stage, Hydra's own flags work too (-m, --cfg, --info, --hydra-help).
--version prints the version; eval "$(modelsoups --shell-completion install=bash)" completes stages and keys."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run `modelsoups`; exit with 1 after an error, 2 for wrong usage, 130 after Ctrl-C.

    If the reader of the output has ended, as in `modelsoups -h | head`, exit quietly with 141.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        fail("the working folder has been deleted; change to another one")
    try:
        try:
            with cleaned_up():
                _main(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        raise SystemExit(128 + signal.SIGPIPE) from None


def _main(argv: Sequence[str] | None) -> None:
    args = list(sys.argv[1:] if argv is None else argv)
    if args and args[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if args == ["--version"]:
        print(f"modelsoups {__version__}")
        return
    if args and args[0] in ("--shell-completion", "-sc"):
        from modelsoups.cli import completion  # imports Hydra

        completion.main(args[1:], [*STAGES, *APART], list(COMMANDS))
        return
    if args and args[0] in COMMANDS:
        if status := _command(args[0], args[1:]):
            raise SystemExit(status)
        return
    named = args and "=" not in args[0] and args[0][:1] not in ("-", "+", "~")
    stage = args.pop(0) if named else None
    if stage is not None and stage not in STAGES | APART:
        names = [*STAGES, *APART, *COMMANDS]
        near = "".join(f"did you mean {name}? " for name in difflib.get_close_matches(stage, names, n=1))
        fail(f"unknown stage {stage}; {near}expected one of {', '.join(names)}, or none to run all stages", status=2)
    if any(a in ("-h", "--help") for a in args):
        print(_stage_usage(stage) if stage else usage())
        return
    if stage == "report" and args == ["--list"]:
        print(index.text())
        return
    modules = modules_of([stage] if stage else list(STAGES))
    if any(a.startswith("-") for a in args):
        from modelsoups.cli.hydra_flags import run_with_flags  # Hydra takes half a second to import

        run_with_flags(modules, args)
    else:
        from modelsoups.cli.pipeline import run_command  # as above

        run_command(modules, args)


def modules_of(stages: Sequence[str]) -> dict[str, str]:
    """Return the modules that run these stages or commands, such as {"soup": "stages.soup"}."""
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
    """Return the text of `modelsoups <stage> --help`: a summary and the configuration keys."""
    from modelsoups.config.reference import listing  # Hydra takes half a second to import

    what, sections = STAGES[stage] if stage in STAGES else APART[stage][1:]
    text = f"usage: modelsoups {stage} [key=value ...]\n\n{what}\n"
    return text + (f"\nkeys:\n{listing(sections)}\n" if sections else "") + "\nAll keys: modelsoups --cfg job"


def _command(name: str, argv: list[str]) -> int:
    """Run a command that has its own argument parser, such as mix; return its exit status."""
    try:
        given = importlib.import_module(f"modelsoups.{PARSERS[name]}").parse(argv) if name in PARSERS else argv
        with at_once():
            module = importlib.import_module(f"modelsoups.{COMMANDS[name][0]}")
        status: int | None = module.main(given)
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or interrupted():  # an import that is cut off raises other errors
            again = "starts again" if name in ANEW else "continues where it stopped"
            fail(f"{name}: interrupted before its end; the same command {again}", status=130)
        if isinstance(error, BrokenPipeError):
            raise
        what = " ".join(str(error).split())
        if isinstance(error, (ValueError, OSError)):
            fail(f"{name}: {what}")
        from modelsoups.cli.pipeline import log_trace  # as above

        fail(f"{name}: {type(error).__name__}: {what}{log_trace(Path('modelsoups.log'))}")
    if interrupted():
        fail(f"{name}: interrupted after its end; its output is complete", status=130)
    return status or 0
