"""Runs stages through Hydra's command line, for its flags such as -m (multirun) or --cfg."""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from modelsoups.cli.errors import fail
from modelsoups.cli.pipeline import run_command
from modelsoups.cluster import scripts
from modelsoups.cluster.environment import handed_on
from modelsoups.config import compose
from modelsoups.config.recall import open_run
from modelsoups.config.schema import Config
from modelsoups.disk.paths import shipped


class JobFailed(Exception):
    """Raised where a job of Hydra's SLURM launcher fails; its message has been printed in the job's output."""


QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")  # the stages print enough themselves


def run_with_flags(modules: dict[str, str], args: list[str]) -> None:
    """Run stages through hydra.main; an unknown key is an error before the first job starts."""
    overrides = [a for a in args if "=" in a and not a.startswith("-")]
    flags = [a for a in args if a not in overrides]  # argparse needs overrides in one piece
    try:
        first = _first_of_each_sweep(overrides)
        config = open_run(first)
    except (ValueError, hydra.errors.HydraException) as error:
        fail(" ".join(str(error).split()))
    multirun = bool({"-m", "--multirun"} & set(flags))  # each job opens its own run
    slurm = multirun and "hydra/launcher=slurm" in overrides

    def job(composed: DictConfig) -> None:
        try:
            run_command(modules, HydraConfig.get().overrides.task)
        except SystemExit as end:
            if slurm and end.code:  # submitit hands on no SystemExit, and would wait for ever
                raise JobFailed(" ".join(HydraConfig.get().overrides.task)) from None
            raise

    named = [f"hydra.job.name={next(iter(modules))}"] if len(modules) == 1 else []  # for launchers
    made_with = [] if multirun else [o for o in config.overrides if o not in first]
    given = [
        *compose.own_conf([*made_with, *overrides]),
        *made_with,
        *map(compose.settable, overrides),
        *(_of_cluster(config, overrides, list(modules)) if slurm else []),
    ]
    sys.argv = ["modelsoups", *given, *QUIET, *named, *flags]
    main = hydra.main(config_path=str(shipped("conf")), config_name="config", version_base="1.3")(job)
    if slurm:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra ends the process with a traceback
        for name in os.environ.keys() - handed_on(os.environ).keys():
            del os.environ[name]
    try:
        main()
    except JobFailed as error:
        # The folder has the name of the first configuration, before names are swept over.
        outputs = config.run.root.parent.glob("*/slurm/multirun/*")
        fail(f"the job {error} failed; its output is in {max(outputs, key=os.path.getmtime, default='slurm/multirun')}")
    except Exception as error:  # such as sbatch's refusal
        if not slurm:
            raise
        fail(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _first_of_each_sweep(overrides: list[str]) -> list[str]:
    """Return the overrides of a multirun's first job, such as ingredient=0 for range(12)."""
    first = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override():
            first.append(f"{override.key_or_group}={next(override.sweep_string_iterator())}")
        elif override.input_line is not None:
            first.append(override.input_line)
    return first


def _of_cluster(config: Config, overrides: list[str], stages: list[str]) -> list[str]:
    """Return the overrides that hand cluster.setup and a lack of GPUs to Hydra's SLURM launcher, unless given.

    The first line of setup keeps Python from importing files of the working folder that nobody asked for.
    """
    lines = [compose.quoted(line.replace("${", r"\${")) for line in ("export PYTHONSAFEPATH=1", *config.cluster.setup)]
    handed = {"hydra.launcher.setup": f"[{','.join(lines)}]"}
    if not config.cluster.gpus_per_node:
        handed["hydra.launcher.gpus_per_node"] = "null"
    own = [f"{key}={value}" for key, value in handed.items() if not any(o.startswith(f"{key}=") for o in overrides)]
    return [*own, *scripts.threads(config, stages, ranks=1)]
