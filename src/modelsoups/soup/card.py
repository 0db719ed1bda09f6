"""The model card (README) of a mixed soup, with its method, ingredients and coefficients."""

from collections.abc import Sequence

from modelsoups.soup.coefficients import Soup

# The front matter is constant, so huggingface_hub.ModelCard is not needed.
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
        table="\n".join(f"| `{name}` | {coefficient} | `{digest}` |" for name, coefficient, digest in rows),
        notes="\n".join(f"- {note}" for note in notes),
    )
