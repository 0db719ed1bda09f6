"""A process that is told to end removes what is half made, and ends as one that was told to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelsoups.workers.interrupts import check, cleaned_up, interrupted

HALF = """
import signal, sys, time
from pathlib import Path
from modelsoups.disk import storage
from modelsoups.workers.interrupts import cleaned_up
for number in (signal.SIGTERM, signal.SIGHUP):  # nohup ignores SIGHUP
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
with cleaned_up(), storage.atomic(Path(sys.argv[1]) / "a.bin"):
    print("half", flush=True)
    time.sleep(60)
"""
IMPORTING = """
import signal, time
from modelsoups.workers.interrupts import at_once, cleaned_up
for number in (signal.SIGTERM, signal.SIGHUP):  # nohup ignores SIGHUP
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
with cleaned_up(), at_once():
    print("importing", flush=True)
    try:
        time.sleep(60)
    except BaseException:
        time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_half_made_stays(tmp_path: Path, number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", HALF, str(tmp_path)], stdout=subprocess.PIPE, stderr=-3) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(number)
        assert process.wait(20) == -number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_imports_that_catch_everything_end_at_once(number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", IMPORTING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(20) == -number


def test_signals_are_as_before_afterwards_and_those_that_are_handled_are_left() -> None:
    with cleaned_up():
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with cleaned_up():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Interrupting:
    """Its end comes with a Ctrl-C, whose exception Python ignores, as it does in any `__del__`."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_a_ctrl_c_whose_exception_is_lost_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: lost.append(found.exc_type))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with cleaned_up():
            check()
            Interrupting()
            assert lost == [KeyboardInterrupt]
            assert interrupted()
            with pytest.raises(KeyboardInterrupt):
                check()
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
        check()
    finally:
        signal.signal(signal.SIGINT, before)


RUNS_TASKS = """
import os, signal, sys, threading, time
from pathlib import Path
from modelsoups.workers import processes
from modelsoups.workers.interrupts import cleaned_up

processes.PRELOAD[:] = []  # torch takes seconds to import
begun = Path(sys.argv[1])

def task(number):
    begun.touch()
    time.sleep(600)

def end():
    while not begun.exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

if __name__ == "__main__":
    threading.Thread(target=end, daemon=True).start()
    with cleaned_up():
        list(processes.run_tasks(task, [1, 2], 2, "test"))
"""


def test_a_process_with_workers_that_is_told_to_end_says_nothing(tmp_path):
    """Python's resource tracker warned of leaked semaphores."""
    (tmp_path / "runs_tasks.py").write_text(RUNS_TASKS)
    command = [sys.executable, str(tmp_path / "runs_tasks.py"), str(tmp_path / "begun")]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }  # the server does not add the folder
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
