"""Reads YAML files of unknown origin: an error names file and line, and none takes long.

A small file may stand for billions of values by aliases of aliases, or be nested too deep for a
recursive reader. Tags that would make Python objects are errors of `yaml.safe_load`.
"""

from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 2**20
MOST_VALUES = 100_000  # aliases written out
DEEPEST = 50  # mappings and lists within each other
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the compiled one, where it is installed


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; ValueError, with file and line, if it is not valid."""
    check_size(path)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(told(error, path)) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 (byte {error.start:,}); save it as UTF-8") from error


def check_size(path: Path) -> None:
    """Raise ValueError, with file and line, if a file is too large, too deep or has too many values.

    Other errors are left to the reader of the file.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file; write the YAML to a file")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; a YAML file may have at most {MOST_BYTES:,}")
    try:
        _check_events(path, path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return


def _check_events(path: Path, text: str) -> None:
    values, sizes, outer = 0, dict[str, int](), list[tuple[str | None, int]]()
    for event in yaml.parse(text, Loader=Loader):
        problem = ""
        if isinstance(event, yaml.AliasEvent):
            values += sizes.get(str(event.anchor), 1)
            problem = "an alias of what it is in" if event.anchor in (anchor for anchor, _ in outer) else ""
        elif isinstance(event, yaml.NodeEvent):  # a scalar, or the start of a list or mapping
            values += 1
            if isinstance(event, yaml.CollectionStartEvent):
                outer.append((event.anchor, values))
            elif event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = outer.pop()
            if anchor:
                sizes[anchor] = values - before + 1
        problem = f"more than {MOST_VALUES:,} values with aliases written out" if values > MOST_VALUES else problem
        problem = f"lists or mappings more than {DEEPEST} deep" if len(outer) > DEEPEST else problem
        if problem:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ValueError(f"{path} line {line}: {problem}; write it in a simpler form")


def told(error: yaml.YAMLError, path: Path | None = None) -> str:
    """Return a YAML error as one line with file and line number."""
    if isinstance(error, yaml.reader.ReaderError):
        file = path or Path(error.name)
        before = file.read_bytes()[: error.position] if file.is_file() else b""
        code = f"U+{error.character:04X}" if isinstance(error.character, int) else repr(error.character)
        line = before.count(b"\n") + 1
        return f"{file} line {line}: the character {code} is not allowed in YAML; remove it"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{path or mark.name} line {mark.line + 1}" if mark else str(path or "a YAML file")
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"{where}: {problem}; correct the YAML"
