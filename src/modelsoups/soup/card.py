"""The model card (README) of a mixed soup, with its method, ingredients and coefficients."""

import os
from collections.abc import Sequence
from pathlib import Path

from xxhash import xxh3_64

from modelsoups.disk import storage
from modelsoups.soup.coefficients import Soup

MARK = "\n<!-- modelsoups "
LONGEST = 255  # bytes of a file name
# The front matter is one constant line, so huggingface_hub.ModelCard would save nothing here.
CARD = """---
tags: [model-soup]
---
# Model soup: {method}

{facts}| ingredient | coefficient | hash of the content |
|---|---|---|
{table}

{notes}

Created by modelsoups; method: Wortsman et al., Model soups, ICML 2022 (arXiv:2203.05482).
"""


def card(chosen: Soup, notes: Sequence[str], holdout_accuracy: float | None) -> str:
    """Return the model card in Markdown, with `notes`; holdout_accuracy is 0 to 1 or None."""
    facts = ""
    if holdout_accuracy is not None:
        facts += f"Accuracy on the hold-out: {holdout_accuracy:.4f}\n\n"
    if chosen.beta != 1:
        facts += f"Multiply the logits by {chosen.beta:.6g} (learned temperature).\n\n"
    column = [f"{c:.6g}" for c in next(iter(chosen.coefficients.values()))]
    if len(chosen.coefficients) > 1:
        column = ["differs by layer (see the file's metadata)"] * len(column)
    rows = zip(chosen.ingredients, column, chosen.hashes, strict=True)
    return CARD.format(
        method=chosen.method,
        facts=facts,
        table="\n".join(f"| `{_shown(name)}` | {value} | `{digest}` |" for name, value, digest in rows),
        notes="\n".join(f"- {_shown(note)}" for note in notes),
    )


def write_card(weights: Path, text: str) -> list[str]:
    """Write a model card beside soup.safetensors: soup.md, or soup.safetensors.md.

    An existing soup.md is replaced only if modelsoups wrote it and nobody changed it; otherwise
    the other name is used, and a note is returned.
    """
    usual, other = weights.with_suffix(".md"), weights.with_name(f"{weights.name}.md")
    if _is_free(usual):
        storage.write_text(usual, _signed(text))
        return []
    if len(os.fsencode(other.name)) <= LONGEST and _is_free(other):
        storage.write_text(other, _signed(text))
        return [f"{usual} is not a card that modelsoups wrote, so it is kept; the soup's card is {other}"]
    return [f"{usual} is not a card that modelsoups wrote, so it is kept; no card was written"]


def _is_free(path: Path) -> bool:
    """Return whether `path` is missing, or is a card that modelsoups wrote and nobody changed."""
    if not path.exists() and not path.is_symlink():
        return True
    start = CARD.split("{method}")[0].encode()
    found = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    text, mark, _ = found.rpartition(MARK.encode())
    return found.startswith(start) and bool(mark) and _signed(text.decode(errors="replace")).encode() == found


def _signed(text: str) -> str:
    """Append a comment with the card's hash, by which `_is_free` notices later changes."""
    return f"{text}{MARK}{xxh3_64(text.encode()).hexdigest()} -->\n"


def _shown(name: str) -> str:
    """Return a name for a Markdown table: unprintable characters, `|` and backticks are escaped."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return plain.replace("|", r"\|").replace("`", "'")
