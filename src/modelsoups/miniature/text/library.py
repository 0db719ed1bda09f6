"""The text miniature as a library of data sets (data.library=phrases): generated, nothing is read.

With data.choose_on=validation, the hold-out has the examples of the test set again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelsoups.config.data import DataConfig
from modelsoups.data.text.examples import Example, content_hash
from modelsoups.data.text.sets import TextSet, write_set
from modelsoups.miniature.text import sets
from modelsoups.miniature.text.sets import PhraseTask


def names(data: DataConfig) -> list[str]:
    """Return the names of all configured data sets; ValueError if one does not exist, or the task differs."""
    task = _task(data)
    wanted = [data.train, data.holdout, data.test, *data.shifts, *data.extra]
    for name in wanted:
        sets.phrase_set(name)
    options = list(dict.fromkeys(data.text.labels.values()))
    if options != list(task.options):
        raise ValueError(
            f"data.text.labels has the options {', '.join(options) or '(none)'}; those of data.text.phrases="
            f"{data.text.phrases} are {', '.join(task.options)}, in this order"
        )
    if list(data.text.fields) != list(task.fields):
        raise ValueError(
            f"data.text.fields names {', '.join(data.text.fields) or '(none)'}; the texts of data.text.phrases="
            f"{data.text.phrases} are {', '.join(task.fields)}"
        )
    return wanted


def inputs(data: DataConfig, protocol: str, name: str) -> dict[str, Any]:
    """Return what identifies a data set: task, seed, version of the grammar and prompt."""
    return {
        "library": "phrases",
        "task": data.text.phrases,
        "set": _drawn(data, name),
        "seed": data.seed,
        "version": sets.VERSION,
        "prompt": data.text.prompt,
    }


def facts(data: DataConfig, protocol: str, name: str) -> dict[str, Any]:
    """Return a data set's metadata for its manifest.json: name, role, options and others."""
    wanted = sets.phrase_set(name)
    return {
        "name": name,
        "title": f"{data.name} {wanted.title}",
        "role": wanted.role,
        "classes": list(_task(data).options),
        "prompt": data.text.prompt,
        "templates": [],
        "projection": None,
    }


def make(data: DataConfig, protocol: str, todo: Sequence[str], workers: int) -> dict[str, int]:
    """Generate the sets in `todo`; return the number of examples of each."""
    names(data)
    generated = sets.generate(data.text.phrases, data.seed)
    made = {}
    for name in todo:
        drawn = generated[_drawn(data, name)]
        examples = [Example(content_hash(texts), label, texts, "") for texts, label in drawn]
        about = facts(data, protocol, name) | {"notes": [], "overlaps": {}, "by_content": name == _drawn(data, name)}
        made[name] = write_set(Path(data.dir) / name, examples, inputs(data, protocol, name), about)
    return made


def opened(folder: Path) -> TextSet:
    """Open a prepared data set."""
    return TextSet(folder)


def _task(data: DataConfig) -> PhraseTask:
    return sets.TASKS[data.text.phrases]


def _drawn(data: DataConfig, name: str) -> str:
    """Return the name of the generated set whose examples the set `name` has."""
    return data.test if name == data.holdout and data.choose_on == "validation" else name
