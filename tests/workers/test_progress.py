"""The line of progress: what it says, and when it is shown."""

import time

from modelsoups.workers import progress
from modelsoups.workers.progress import Meter


def test_time_left_does_not_count_what_an_earlier_run_did():
    meter = Meter("test", 2, 1000.0, "texts")
    meter.add(600.0, resumed=500.0)
    meter.start = time.monotonic() - 10
    assert meter.text() == "0 of 2, 10 texts/s, 0:40 left"  # 100 in 10 s; 400 are left


def test_a_line_is_printed_after_the_first_seconds_and_then_from_time_to_time(monkeypatch, capsys):
    clock = iter([100.0, 101.0, 119.0, 121.0, 121.0, 122.0, 142.0, 142.0])  # as they are asked for
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    meter = Meter("test", 2, 2.0)
    for _ in range(4):
        meter.show()
    meter.finish(1.0)
    meter.show()
    assert capsys.readouterr().out == "test: 0 of 2, starting\ntest: 1 of 2, 0:42 left\n"
