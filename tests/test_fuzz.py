"""Every reader of foreign bytes, for a moment each with fixed seeds; benchmarks/fuzz.py does it for minutes."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "benchmarks/fuzz.py"
fuzz = runpy.run_path(str(FUZZ))


def test_changed_files_are_read_or_refused_in_bounded_time_and_memory(tmp_path):
    pytest.importorskip("pyarrow")
    done = subprocess.run([sys.executable, str(FUZZ), "--seconds", "0.2"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    names = re.findall(r"^(\w+): [\d,]+ files, [\d,]+ refused, [\d,]+ read$", done.stdout, re.MULTILINE)
    assert names == list(fuzz["READERS"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("raise KeyError", "an error that the reader does not promise"),
        ("while True: pass", r"\d s of computing"),
        ("held = b'x' * 300_000_000\nimport time; time.sleep(60)", r"0\.\d GB of memory"),
        ("pass", None),
    ],
)
def test_what_goes_wrong_is_found(tmp_path, monkeypatch, code, why):
    monkeypatch.setitem(fuzz["watched"].__globals__, "HANG", 1.0)
    monkeypatch.setitem(fuzz["watched"].__globals__, "MEMORY", 2e8)
    (tmp_path / "now").write_text("tar 1")
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    found = fuzz["watched"](child, tmp_path)
    assert found is None if why is None else re.fullmatch(why, found)
