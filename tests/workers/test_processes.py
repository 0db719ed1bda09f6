"""Worker processes: order, errors, death of a worker, death of the parent."""

import functools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from modelsoups.workers.processes import SHARED_KEPT, Size, advance, run_tasks, workers_kept


def square(x):
    return x * x


def fail_on_three(x):
    if x == 3:
        raise ValueError("three is not allowed")
    time.sleep(0.05)
    return x


def die_on_two(x):
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return x


def threads(_):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    return before


def test_every_task_comes_back_with_its_result():
    assert sorted(run_tasks(square, [1, 2, 3, 4, 5], 2, "test")) == [(1, 1), (2, 4), (3, 9), (4, 16), (5, 25)]
    assert list(run_tasks(square, [], 2, "test")) == []


def test_the_largest_task_begins_first_and_each_begins_with_one_thread():
    assert [t for t, _ in run_tasks(square, [1, 3, 2], 1, "test", size=Size(float, "numbers"))] == [3, 2, 1]
    assert [r for _, r in run_tasks(threads, [0, 1], 1, "test")] == [1, 1]


def test_a_tasks_error_comes_through():
    with pytest.raises(ValueError, match="three is not allowed"):
        list(run_tasks(fail_on_three, [1, 2, 3, 4], 2, "test"))


def test_a_killed_worker_is_an_error_and_not_a_hang():
    with pytest.raises(RuntimeError, match=r"test: a worker process died .* while running 2; run the same command"):
        list(run_tasks(die_on_two, [1, 2, 3], 1, "test"))
    with pytest.raises(RuntimeError, match="worker process died"):
        list(run_tasks(die_on_two, [1, 2, 3], 2, "test"))


def pid(_):
    return os.getpid()


def test_kept_workers_do_the_next_tasks_too_and_end_with_the_block():
    with workers_kept():
        (first,), (again,) = ({made for _, made in run_tasks(pid, [1, 2], 1, "test")} for _ in range(2))
        assert first == again
        with pytest.raises(RuntimeError, match=r"worker process died \(.*\) while running 2;"):
            list(run_tasks(die_on_two, [1, 2, 3], 1, "test"))
        ((_, other),) = run_tasks(pid, [1], 1, "test")
        assert other != first
        assert sorted(run_tasks(square, [1, 2, 3], 1, "test")) == [(1, 1), (2, 4), (3, 9)]
    wait(functools.partial(gone, [first, other]), 20)
    ((_, last),) = run_tasks(pid, [1], 1, "test")
    wait(functools.partial(gone, [last]), 20)


def chatter(count):
    for _ in range(count):
        advance(1.0)
    return count


def test_a_task_with_more_news_than_a_pipe_holds_ends():
    tasks = run_tasks(chatter, [20_000, 20_001], 2, "test", size=Size(float, "numbers"))
    first = next(tasks)
    time.sleep(0.5)  # the consumer is busy: nobody reads the news
    assert sorted([first, *tasks]) == [(20_000, 20_000), (20_001, 20_001)]


class Opened:
    """Something to share, which notes the tasks that one process does with it."""

    def __init__(self, name):
        self.name, self.tasks = name, []

    def __getstate__(self):
        return {"name": self.name, "tasks": []}


def note(opened, task):
    opened.tasks.append(task)
    return opened.name, list(opened.tasks)


def shared(name, tasks):
    return dict(run_tasks(note, tasks, 1, "test", shared=Opened(name)))


def test_a_shared_object_is_opened_once_by_a_worker():
    assert shared("a", [1, 2]) == {1: ("a", [1]), 2: ("a", [1, 2])}
    assert shared("a", [3]) == {3: ("a", [3])}  # by another process


def test_shared_objects_of_a_kept_worker_do_not_see_each_other_and_the_oldest_are_dropped():
    with workers_kept():
        assert shared("a", [1]) == {1: ("a", [1])}
        assert shared("b", [2]) == {2: ("b", [2])}
        assert shared("a", [3]) == {3: ("a", [1, 3])}
        for number in range(SHARED_KEPT):
            shared(f"more {number}", [0])
        assert shared("a", [4]) == {4: ("a", [4])}


def test_kept_workers_within_kept_workers_are_those_of_the_outer_block():
    with workers_kept():
        ((_, outer),) = run_tasks(pid, [1], 1, "test")
        with workers_kept():
            ((_, inner),) = run_tasks(pid, [1], 1, "test")
        ((_, after),) = run_tasks(pid, [1], 1, "test")
    assert outer == inner == after


PARENT = """
import signal, sys
sys.path.insert(0, sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
from test_processes import sleepy
from modelsoups.workers import processes
from modelsoups.workers.processes import run_tasks
processes.PRELOAD = ["torch"]  # nothing else is needed, and it takes seconds
if __name__ == "__main__":
    list(run_tasks(sleepy, [sys.argv[2] + "/a", sys.argv[2] + "/b"], 2, "test"))
"""


def sleepy(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(300)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, by):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), os.path.dirname(__file__), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent:
        files = [tmp_path / "a", tmp_path / "b"]
        wait(lambda: all(f.exists() and f.read_text() for f in files), 90)
        pids = [int(f.read_text()) for f in files]
        parent.send_signal(by)
    wait(functools.partial(gone, pids), 20)


def wait(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def gone(pids):
    return not any(os.path.exists(f"/proc/{pid}") for pid in pids)


OWN = """
from modelsoups.workers import processes
processes.PRELOAD[:] = ["secrets"]
if __name__ == "__main__":
    print(list(processes.run_tasks(len, ["ab"], 1, "own")))
"""


def test_workers_do_not_import_files_of_the_working_folder_as_libraries(tmp_path):
    (tmp_path / "main.py").write_text(OWN)
    here = tmp_path / "here"
    here.mkdir()
    for name in ("secrets", "random", "yaml"):
        (here / f"{name}.py").write_text("open('PWNED', 'w').write(__name__)")
    done = subprocess.run([sys.executable, str(tmp_path / "main.py")], capture_output=True, text=True, cwd=here)
    assert done.stdout.endswith("[('ab', 2)]\n"), done.stderr
    assert len(list(here.iterdir())) == 3
    assert os.environ.get("PYTHONSAFEPATH") is None
