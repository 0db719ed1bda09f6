"""A real SLURM on this machine for the tests: munged, slurmctld and four slurmd with fake GPUs, no systemd, no cgroups.

Needs Debian's packages slurmctld, slurmd, slurm-client and munge, and root. Tried with slurm 22.05.8.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NODES, GPUS, CPUS = 4, 8, 16  # GPUs enough that no scenario waits for another
COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol", "sinfo", "scancel")

# Fake GPUs need File= (a count alone registers none), a character device: links to /dev/null are.
# cred_expire: a requeued job waits for it (120 s by default). config_overrides: believe the number of cores below.
CONF = """
ClusterName=virtual
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={state}/munge.socket,cred_expire=5
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/spool/%n
SlurmctldPidFile={state}/run/slurmctld.pid
SlurmdPidFile={state}/run/slurmd-%n.pid
SlurmctldLogFile={state}/log/slurmctld.log
SlurmdLogFile={state}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1,bf_yield_interval=1000000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=1
SlurmctldTimeout=30
SlurmdTimeout=10
KillWait=8
CompleteWait=0
InactiveLimit=0
MaxArraySize=1001
MinJobAge=7200
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName=node[1-{nodes}] NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} RealMemory=64000 Gres=gpu:{gpus}
PartitionName=main Nodes=ALL Default=YES MaxTime=1-0 DefaultTime=30 State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL MaxTime=1-0 DefaultTime=30 State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why no SLURM can be started here."""
    search = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [c for c in COMMANDS if shutil.which(c, path=search) is None]
    if absent:
        return f"{', '.join(absent)} not installed (apt-get install slurmctld slurmd slurm-client munge)"
    return None if os.geteuid() == 0 else "a SLURM of several virtual nodes needs root"


class Cluster:
    """A running virtual cluster; `environment` is what its commands need."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(state / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }

    def start(self) -> None:
        for folder in ("ctld", "run", "log", "dev", *(f"spool/node{i + 1}" for i in range(NODES))):
            (self.state / folder).mkdir(parents=True)
        values = {"state": self.state, "host": socket.gethostname().split(".")[0], "user": getpass.getuser()}
        port = free_ports(NODES + 1)
        numbers = {"port": port, "first": port + 1, "last": port + NODES, "nodes": NODES, "cpus": CPUS, "gpus": GPUS}
        (self.state / "slurm.conf").write_text(CONF.format(**values, **numbers))
        for i in range(GPUS):
            (self.state / f"dev/nvidia{i}").symlink_to("/dev/null")
        (self.state / "gres.conf").write_text(f"Name=gpu File={self.state}/dev/nvidia[0-{GPUS - 1}]\n")
        key = self.state / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        names = {"key-file": key, "socket": self.state / "munge.socket", "pid-file": self.state / "run/munged.pid"}
        more = {"log-file": self.state / "log/munged.log", "seed-file": self.state / "munge.seed"}
        self("munged", "--force", *(f"--{name}={path}" for name, path in (names | more).items()))
        self("slurmctld", "-c")
        for i in range(NODES):
            self("slurmd", "-N", f"node{i + 1}")
        until(lambda: self.idle() == NODES, 60, "the nodes of the virtual cluster")

    def idle(self) -> int:
        try:
            return len(self("sinfo", "-h", "-N", "-p", "main", "-t", "idle", "-o", "%N").split())
        except subprocess.CalledProcessError:
            return 0  # the controller does not answer yet

    def stop(self) -> None:
        """End the jobs, then the daemons, each by its number."""
        with contextlib.suppress(subprocess.SubprocessError):
            self("scancel", "--me", "--signal=KILL", "--full")
            self("scancel", "--me")
            until(lambda: not self("squeue", "-h", "-t", "R,CG"), 20, "the end of all jobs")
        pids = [int(f.read_text()) for f in sorted((self.state / "run").glob("*.pid"), reverse=True)]
        mine = f"SLURM_CONF={self.state / 'slurm.conf'}".encode()
        pids += [pid for pid in processes("slurmstepd") if mine in environ(pid).split(b"\0")]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 10, "the end of the daemons")

    def __call__(self, *command: str) -> str:
        """The output of a command of this cluster; CalledProcessError when it fails."""
        for _ in range(3):
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
            if done.returncode >= 0:  # SLURM's commands may die of SIGPIPE when the controller is slow
                break
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout

    def field(self, job: str, name: str) -> str:
        """What `scontrol show job` says of a job or a task of an array."""
        found = re.search(rf"(?:^|\s){name}=(\S*)", self("scontrol", "show", "job", job, "-o").splitlines()[0])
        assert found, (job, name)
        return found[1]

    def state_of(self, job: str) -> str:
        return self.field(job, "JobState")

    def await_end(self, *jobs: str, seconds: float = 120) -> None:
        """Until none of these is in the queue: `sbatch --wait` looks too seldom."""
        there = ("squeue", "-h", "-j", ",".join(jobs))
        until(lambda: not self(*there), seconds, f"the end of {jobs}", self.queue, every=0.5)

    def queue(self) -> str:
        return self("squeue", "-r")


def until(
    condition: Callable[[], object], seconds: float, what: str, says: Callable[[], str] = lambda: "", every: float = 0.2
) -> None:
    """Wait for a condition; one that asks SLURM costs processor time that the jobs need, so ask less often."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}: {says()}"
        time.sleep(every)


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    for first in range(17101, 19000, count):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no free ports")


def processes(name: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if path.read_text().strip() == name:
                found.append(int(path.parent.name))
    return found


def environ(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


@contextlib.contextmanager
def node_names() -> Iterator[None]:
    """Node names that resolve, or the ranks never find each other; /etc/hosts is put back in the end."""
    hosts = Path("/etc/hosts")
    mark = f"# modelsoups virtual cluster {os.getpid()}"
    lines = [line for line in hosts.read_text().splitlines() if not line.endswith(mark)]
    hosts.write_text("\n".join([*lines, *(f"127.0.0.1 node{i + 1} {mark}" for i in range(NODES)), ""]))
    try:
        yield
    finally:
        now = [line for line in hosts.read_text().splitlines() if not line.endswith(mark)]
        hosts.write_text("\n".join([*now, ""]))


@contextlib.contextmanager
def cluster(state: Path) -> Iterator[Cluster]:
    """A virtual cluster with its state in a new folder (a short path: sockets lie in it)."""
    made = Cluster(state)
    with node_names():
        try:
            made.start()
            yield made
        finally:
            made.stop()
