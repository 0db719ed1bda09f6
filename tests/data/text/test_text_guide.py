"""The text task of docs/own-data.md is prepared as it stands there."""

import re
from pathlib import Path

from modelsoups.config.compose import load
from modelsoups.data.text import library

GUIDE = Path(__file__).parents[3] / "docs" / "own-data.md"


def test_the_text_task_of_the_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guide = GUIDE.read_text().partition("## Texts")[2]
    blocks = {kind: re.search(rf"```{kind}\n(.*?)```", guide, re.DOTALL)[1] for kind in ("tsv", "yaml")}
    Path("conf/data").mkdir(parents=True)
    Path("conf/data/reviews.yaml").write_text(blocks["yaml"])
    Path("reviews").mkdir()
    header, *lines = blocks["tsv"].splitlines()
    more = [line.replace("\t", f" on day {day}\t") for line in lines for day in range(9)]
    Path("reviews/train.tsv").write_text("\n".join([header, *more]))
    Path("reviews/dev.tsv").write_text(blocks["tsv"])
    data = load(["experiment=glue", "data=reviews", "model=iconvit"]).data
    assert library.make(data, "paper", library.names(data), 1) == {"train": 14, "holdout": 4, "validation": 2}
    test = library.opened(Path("data/reviews/heldout/validation"))
    assert (test.classes, test.counts) == (["good", "bad"], {"good": 1, "bad": 1})
    assert test.prompt.format(**test.fields(0)) in guide
