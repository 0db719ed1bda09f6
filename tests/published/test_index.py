"""The index of the paper: nothing of the paper or of the code is missing, and every command can be given."""

import functools
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

from modelsoups.analyses.registry import ANALYSES, wanted
from modelsoups.cli import commands
from modelsoups.config.compose import check_overrides, load
from modelsoups.published import index

ROOT = Path(__file__).parents[2]
ENTRIES = index.entries()


def test_the_index_has_every_numbered_figure_and_table_of_the_paper_in_order():
    captions = (ROOT / "tests/golden/paper_captions.txt").read_text(encoding="utf-8").splitlines()
    in_paper = [caption.partition(": ")[0] for caption in captions]
    assert len(in_paper) == 33
    numbered = [e.name for e in ENTRIES if re.match(r"(Figure|Table) ", e.name)]
    assert numbered == in_paper
    assert [e.name for e in ENTRIES[len(numbered) :] if not e.name.startswith("Beyond the paper: ")] == []


def test_every_analysis_is_in_the_index():
    assert set(ANALYSES) <= {name for e in ENTRIES for name in e.makes}


def test_an_analysis_is_named_by_the_commands_of_its_entry():
    for entry in ENTRIES:
        for name in set(entry.makes) & set(ANALYSES):
            for command in (entry.paper, entry.here):
                assert f"'analyse.which=[{name}]'" in command, entry.name


def given():
    """The stage, overrides and analyse.which of every command; of a multirun, of jobs with every value."""
    for command in dict.fromkeys(c for e in ENTRIES for c in (e.paper, e.here) if c):
        program, *words = shlex.split(command)
        assert program == "modelsoups", command
        stage = words.pop(0) if words and re.fullmatch(r"[a-z]+", words[0]) else None
        jobs = [words]
        if "-m" in words:
            each = [override.partition("=") for override in words if override != "-m"]
            values = [[f"{key}={v}" for v in found.split(",")] for key, _, found in each]
            jobs = [[v[n % len(v)] for v in values] for n in range(max(map(len, values)))]
        for overrides in jobs:
            which = [o for o in overrides if o.startswith("analyse.which=")]
            yield stage, tuple(o for o in overrides if o not in which), which


def test_every_command_is_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stage, overrides, which in given():
        assert stage is None or stage in commands.STAGES
        check_overrides([*overrides, *which])
        config = composed(overrides)
        if which:
            (name,) = re.findall(r"=\[(\w+)\]$", which[0])
            assert [a.name for a in wanted([name])] == [name]
            assert stage == "analyse" or config.analyse.in_pipeline


@functools.cache
def composed(overrides):
    return load(overrides)


def test_the_list_of_the_program_and_of_the_documentation_is_the_index(capsys):
    commands.main(["report", "--list"])
    assert capsys.readouterr().out == index.text() + "\n"
    for entry in ENTRIES:
        for told in (entry.name, entry.title, entry.paper, entry.here, entry.why_not):
            assert told in index.text()
            assert told in index.markdown()
    page = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    again = runpy.run_path(str(ROOT / "docs/paper_list.py"))["with_list"](page)
    assert page == again, "run python docs/paper_list.py"
    assert page.index(index.markdown()) < page.index("\n## ")


@pytest.mark.parametrize(
    "change",
    [{"why_not": "not yet"}, {"here": ""}, {"paper": ""}, {"makes": []}],
    ids=lambda change: next(iter(change)),
)
def test_an_entry_has_commands_or_a_reason(change, tmp_path, monkeypatch):
    file = tmp_path / "index.jsonl"
    monkeypatch.setattr(index, "FILE", file)
    entry = {"name": "Figure 9", "title": "t", "makes": ["figure_9"], "paper": "p", "here": "h", "needs": "n"}
    file.write_text(json.dumps(entry))
    assert index.entries()[0].makes == ("figure_9",)
    file.write_text(json.dumps({**entry, **change}))
    with pytest.raises(ValueError, match="Figure 9: expected makes, paper and here, or else why_not"):
        index.entries()
