"""The text task of docs/own-data.md, as it stands there: prepared, and with a tiny model to the report."""

import json
import re
from pathlib import Path

import pytest
from pico import modelsoups
from text_runs import SEARCH
from tiny_text import tiny

from modelsoups.config.compose import load
from modelsoups.data.text import library

GUIDE = Path(__file__).parents[3] / "docs" / "own-data.md"
TEXTS = GUIDE.read_text().partition("## Texts")[2]
SMALL = [
    *("model.text.max_length=160", "sweep.search=two.yaml", "finetune.parallel=1", "wandb=disabled"),
    *("soup.orders=1", "soup.learned_epochs=1", "evaluate.wise_ft=[0.5]"),
]


def block(kind):
    return re.search(rf"```{kind}\n(.*?)```", TEXTS, re.DOTALL)[1]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, with the guide's YAML and tables; each line of train.tsv stands for nine."""
    monkeypatch.chdir(tmp_path)
    Path("conf/data").mkdir(parents=True)
    Path("conf/data/reviews.yaml").write_text(block("yaml"))
    Path("reviews").mkdir()
    header, *lines = block("tsv").splitlines()
    more = [line.replace("\t", f" on day {day}\t") for line in lines for day in range(9)]
    Path("reviews/train.tsv").write_text("\n".join([header, *more]))
    Path("reviews/dev.tsv").write_text(block("tsv"))
    return tmp_path


def test_the_text_task_of_the_guide_is_prepared(here):
    data = load(["experiment=glue", "data=reviews", "model=iconvit"]).data
    assert library.make(data, "paper", library.names(data), 1) == {"train": 14, "holdout": 4, "validation": 2}
    test = library.opened(Path("data/reviews/heldout/validation"))
    assert (test.classes, test.counts) == (["good", "bad"], {"good": 1, "bad": 1})
    assert test.prompt.format(**test.fields(0)) in TEXTS


def test_the_command_of_the_guide_ends_with_a_report(here):
    prepare, whole = re.findall("^modelsoups (.*)$", TEXTS, re.MULTILINE)
    assert prepare == f"prepare {whole}"
    Path("two.yaml").write_text(SEARCH.replace("[8, 16]", "[4, 7]"))
    done = modelsoups(here, *whole.split(), f"model.name={tiny(here, 'bert')}", *SMALL)
    assert done.returncode == 0, done.stderr
    (report,) = Path("results/glue").glob("*/index.html")
    lines = map(json.loads, (report.parent / "results.jsonl").read_text().splitlines())
    scores = {line["row"]: line["n"] for line in lines if line.get("dataset") == "validation"}
    assert {"best", "uniform", "greedy", "ensemble"} <= set(scores)
    assert set(scores.values()) == {2}
