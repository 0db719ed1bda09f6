"""A small task in the layout of GLUE's CoLA, from the text miniature's sentences, and the options of its runs."""

from pathlib import Path

from modelsoups.miniature.text.sets import generate

SEARCH = """
kind: random
count: 2
parameters:
  lr: {log10_uniform: [-3.2, -2.8]}
  batch_size: {choice: [8, 16]}
  epochs: {choice: [1]}
"""
COUNTS = {"train": 160, "dev": 48}


def write(home: Path) -> Path:
    """Write home/GLUE/CoLA/train.tsv and dev.tsv, which have no header line, and home/two.yaml."""
    folder = home / "GLUE" / "CoLA"
    folder.mkdir(parents=True)
    examples = iter(generate("acceptability", 0)["train"])
    for name, count in COUNTS.items():
        rows = [next(examples) for _ in range(count)]
        lines = [f"made\t{1 - label}\t{'*' * label}\t{texts['sentence']}\n" for texts, label in rows]
        (folder / f"{name}.tsv").write_text("".join(lines))
    (home / "two.yaml").write_text(SEARCH)
    return folder


def options(home: Path, *more: str) -> list[str]:
    """The options of a run of two models on this task, with the model of the text miniature."""
    return [
        *("experiment=glue", "data=glue_cola", "model=phrase_bert", "name=cola"),
        *(f"data.root={home / 'GLUE'}", f"data.dir={home / 'data'}", "data.check_counts=false"),
        *(f"runs={home / 'run'}", f"results={home / 'results'}", f"sweep.search={home / 'two.yaml'}"),
        *("finetune.parallel=1", "finetune.checkpoint_every=2", "finetune.log_every=1"),
        *("soup.orders=1", "soup.learned_epochs=1", "evaluate.wise_ft=[0.5]", "wandb=disabled"),
        *more,
    ]
