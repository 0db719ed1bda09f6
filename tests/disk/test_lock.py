"""One writer a folder: a live holder is respected, a dead one replaced, one that was replaced stops writing."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest

from modelsoups.disk import lock
from modelsoups.disk.lock import Held, held


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "LEASE", 0.4)
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def others(folder, number=1, **holder):
    """A lock as another process left it."""
    file = folder / f"lock.{number}"
    file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "began": "1", "job": None, "start": 0, **holder}))
    return file


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_lock_is_gone_with_its_holder(tmp_path):
    with held(tmp_path / "new") as mine:
        assert names(tmp_path / "new") == ["lock.1"]
        mine.check()
    assert names(tmp_path / "new") == []
    with pytest.raises(RuntimeError), held(tmp_path / "new"):
        raise RuntimeError
    assert names(tmp_path / "new") == []


HOLD = """
import sys, time
from pathlib import Path
from modelsoups.disk.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_live_process_of_this_host_is_respected_and_a_killed_one_replaced_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LEASE", 100.0)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        says = rf"{tmp_path} is in use: process {holder.pid} on .* is working in it"
        with pytest.raises(Held, match=says), held(tmp_path):
            pass
        assert names(tmp_path) == ["lock.1"]
        holder.send_signal(signal.SIGKILL)
    assert names(tmp_path) == ["lock.1"]
    with held(tmp_path):
        assert names(tmp_path) == ["lock.2"]
    assert names(tmp_path) == []


def test_a_process_number_used_again_is_not_the_holder(tmp_path):
    others(tmp_path, place=lock.place(), pid=os.getpid(), began="1")
    with held(tmp_path):
        assert names(tmp_path) == ["lock.2"]


def test_a_holder_on_another_host_is_believed_while_it_shows_signs_of_life(tmp_path):
    file = others(tmp_path, number=3, job="17_4")
    stop = threading.Event()

    def beat():
        while not stop.wait(0.05):
            os.utime(file)

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(Held, match="in use: job 17_4, process 1 on elsewhere"), held(tmp_path):
        pass
    stop.set()
    beating.join()
    began = time.monotonic()
    with held(tmp_path):
        assert time.monotonic() - began >= 0.4
        assert names(tmp_path) == ["lock.4"]


def test_a_container_with_the_same_host_name_and_process_number_is_another_holder(tmp_path):
    """Each container has a PID namespace of its own, in which its command may be process 7."""
    this = lock._this_process()
    for mine in ({"began": this["began"]}, {"began": "another"}):  # the same number, used or not in this namespace
        file = others(tmp_path, **{**this, **mine, "place": "another"})
        timer = threading.Timer(0.1, os.utime, (file, (5, 5)))
        timer.start()
        with pytest.raises(Held, match=f"process {os.getpid()} on"), held(tmp_path):
            pass
        timer.join()
        file.unlink()


def test_a_clock_that_is_wrong_elsewhere_does_not_kill_a_lock(tmp_path):
    file = others(tmp_path)
    os.utime(file, (0, 0))  # "not touched since 1970", by the other host's clock
    timer = threading.Timer(0.1, os.utime, (file, (5, 5)))
    timer.start()
    with pytest.raises(Held), held(tmp_path):
        pass
    timer.join()


def test_a_job_that_slurm_started_again_replaces_its_earlier_start_which_then_may_not_write(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    with held(tmp_path) as before:
        with pytest.raises(Held), held(tmp_path):
            pass  # the same start of the same job: two processes
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        with held(tmp_path) as after:
            after.check()
            with pytest.raises(Held, match="has been taken over"):
                before.check()


def test_of_many_who_come_at_once_at_most_one_gets_a_dead_holders_folder(tmp_path):
    others(tmp_path, place=lock.place(), pid=2**22 + 1)
    read, write = os.pipe()  # who has the lock keeps it until all others have been refused
    children = []
    for _ in range(12):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                with held(tmp_path):
                    os.read(read, 1)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    codes, begun = {}, time.monotonic()
    while len(codes) < 12 and time.monotonic() - begun < 60:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            codes[child] = os.waitstatus_to_exitcode(status)
        elif len(codes) == 11:
            os.write(write, b"x")
        time.sleep(0.01)
    os.write(write, b"x" * 12)
    codes |= {c: os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children if c not in codes}
    codes = list(codes.values())
    assert codes.count(0) <= 1
    assert names(tmp_path) == [] or codes.count(0) == 0
    with held(tmp_path):
        pass


def test_a_lock_that_cannot_be_written_names_its_file(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"), held(tmp_path / "file"):
        pass


def test_a_full_or_read_only_disk_is_named_and_leaves_no_lock(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with contextlib.suppress(OSError):
            (tmp_path / "all").write_bytes(b"x" * 200_000)
        with pytest.raises(OSError, match=r"could not write .*lock\.1: No space left on device"), held(tmp_path):
            pass
        assert not list(tmp_path.glob("lock.*"))
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(OSError, match=r"could not write .*lock\.1: Read-only file system"), held(tmp_path):
            pass
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
