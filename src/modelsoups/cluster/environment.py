"""The environment that SLURM's commands get: without what belongs to the job that calls them.

sbatch reads SBATCH_* and hands all variables on to the jobs, where srun reads SLURM_*: within an
allocation, new jobs would have its memory, cores and partition (submitit's clean_env is for this too).
"""

from collections.abc import Mapping

from modelsoups.config.schema import ClusterConfig

OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "SQUEUE_", "SCANCEL_", "SINFO_", "MODELSOUPS_")  # beginnings of names
OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS")  # how it is reached
SET_HERE = ("ARRAY_INX", "COMMENT", "JOB_NAME", "OUTPUT", "ERROR", "OPEN_MODE", "REQUEUE", "NO_REQUEUE", "WAIT")
KEYS = {  # what follows SBATCH_ -> the key of the section `cluster` that it overrides
    "PARTITION": "partition",
    "ACCOUNT": "account",
    "QOS": "qos",
    "TIMELIMIT": "time",
    "MEM_PER_NODE": "mem",
    "MEM_PER_CPU": "mem",
    "MEM_PER_GPU": "mem",
    "GPUS_PER_NODE": "gpus_per_node",
    "SIGNAL": "notice",
}


def handed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for SLURM's commands; SBATCH_* of a user stay, except within a job."""
    dropped = [f"SBATCH_{name}" for name in SET_HERE]
    kept = {}
    for name, value in environ.items():
        ours = name in OF_THE_CLUSTER or not (name.startswith(OF_A_JOB) or name in OF_TORCHRUN)
        if name.startswith("SBATCH_"):
            ours = "SLURM_JOB_ID" not in environ and name not in dropped
        if ours:
            kept[name] = value
    return kept


def notes(environ: Mapping[str, str], cluster: ClusterConfig) -> list[str]:
    """Return a sentence for the enclosing job, if any, and for each variable that overrides a key."""
    if job := environ.get("SLURM_JOB_ID"):
        return [f"submit runs within job {job}; the new jobs do not get its SLURM_* and SBATCH_* variables"]
    found = []
    for name, value in sorted(handed_on(environ).items()):
        kind = name.removeprefix("SBATCH_")
        if kind == name:
            continue
        option = f"--{kind.lower().replace('_', '-')}"
        if (key := KEYS.get(kind)) and str(given := getattr(cluster, key)) != value:
            found.append(
                f"{name}={value} of the environment overrides cluster.{key}={'null' if given is None else given}"
            )
        elif any(entry.partition("=")[0] == option for entry in cluster.options):
            found.append(f"{name}={value} of the environment overrides {option} in cluster.options")
    return found
