"""The line of progress: what it says, when it is shown, and how right its time left is."""

import heapq
import itertools
from collections.abc import Sequence

import pytest

from modelsoups.workers import progress
from modelsoups.workers.progress import Meter, duration

# Tasks (kind, size, seconds), slowest first, in the proportions of the miniature's soup stage: learned soups take
# minutes and read all models, greedy ones seconds, and those of cached logits almost nothing.
CHOOSING = [
    *[("learned", 108.0, 70.0), ("learned_layers", 108.0, 85.0), ("greedy_replacement", 36.0, 20.0)],
    *[("greedy", 12.0, 6.0)] * 4,
    *[("greedy", float(k), 0.5 * k) for k in (8, 6, 4, 2)],
    *[("uniform", 1.0, 0.2)] * 12,
]
EVALUATING = [
    ("", 5000.0, seconds) for seconds in (32, 30, 31, 30, 29, 33, 30, 31, 30, 30, 32, 30, 31, 30)
]  # 2 workers


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def replayed(clock: Clock, tasks: Sequence[tuple[str, float, float]], workers: int, reports: int = 0):
    """Run recorded tasks on a fake clock; return (seconds since the start, estimate, truth) each 5 s.

    reports: how often each task reports its units while it runs; 0: only when it ends.
    """
    meter = Meter("test", [size for _, size, _ in tasks], workers=workers, kinds=[kind for kind, _, _ in tasks])
    free, spans = [0.0] * workers, []
    for _, _, seconds in tasks:
        begin = heapq.heapreplace(free, free[0] + seconds)
        spans.append((begin, begin + seconds))
    end, start, told = max(free), clock.now, [0] * len(tasks)
    lines, ticks = [], 0
    while clock.now - start < end:
        at = clock.now - start
        for number, (_, size, seconds) in enumerate(tasks):
            begin, stop = spans[number]
            while told[number] < reports and begin + seconds * (told[number] + 1) / reports <= at:
                told[number] += 1
                meter.add(number, size / reports)
            if stop <= at and meter.parts[number].ended is None:
                meter.finish(number)
        meter.look(n for n, (begin, stop) in enumerate(spans) if begin <= at < stop)
        if ticks % 25 == 0:
            lines.append((at, meter.left(), end - at))
        ticks += 1
        clock.now += 0.2
    return lines


@pytest.mark.parametrize("reports", [0, 7])
def test_time_left_is_right_for_equal_tasks_side_by_side(clock, reports):
    lines = replayed(clock, EVALUATING, workers=2, reports=reports)
    known = [(left, truth) for _, left, truth in lines if left is not None]
    assert len(known) >= len(lines) - 7  # unknown only until the first tasks have ended
    assert all(abs(left - truth) < 0.1 * truth + 10 for left, truth in known)
    later = itertools.pairwise(known)
    assert all(after[0] < before[0] + 10 for before, after in later)  # it does not jump


def test_time_left_is_right_when_the_slowest_tasks_go_first(clock):
    lines = replayed(clock, CHOOSING, workers=2)
    total = lines[0][2]
    known = [(at, left, truth) for at, left, truth in lines if left is not None]
    assert known[0][0] < 0.8 * total
    for _, left, truth in known:  # it said 21:45 when 2:20 were left
        assert left < 2.5 * truth + 10
        assert truth < 2.5 * left + 10


def test_before_anything_is_known_the_time_so_far_is_told_and_lines_become_rarer(clock, monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: False, raising=False)
    meter = Meter("evaluate", [1.0] * 14, workers=2)
    meter.look([0, 1])
    for _ in range(200):
        clock.now += 1
        meter.show()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"evaluate: 0 of 14, {so_far} so far" for so_far in ("20 s", "40 s", "1 min", "3 min")]
    meter.finish(0)
    clock.now += 20
    meter.show()
    assert capsys.readouterr().out == "evaluate: 1 of 14, about 20 min left\n"


def test_time_left_does_not_count_what_an_earlier_run_did(clock):
    assert Meter("one", [5.0]).text() == "1 s so far"  # and not: 0 of 1
    meter = Meter("test", [1000.0, 1000.0], "texts")
    meter.look([0])
    meter.add(0, 600.0, resumed=500.0)
    clock.now += 10
    assert meter.text() == "0 of 2, 10 texts/s, about 2 min left"  # 100 in 10 s; 1,400 are left


def test_a_task_counts_no_more_units_than_it_has(clock):
    meter = Meter("test", [10.0, 10.0])
    meter.finish(0)
    meter.add(0, 10.0)  # a report that arrives after the task's end
    assert meter.parts[0].done == 10


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (8, "8 s"), (43, "45 s"), (130, "2 min"), (5000, "83 min"), (5400, "1.5 h")]
)
def test_a_duration_is_as_exact_as_an_estimate_can_be(seconds, text):
    assert duration(seconds) == text
