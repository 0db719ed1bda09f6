"""Search file -> the draw, one recipe a line, for review: `modelsoups sweep`.

A recipe, once drawn, is fixed: finetune reads the draw, never the search file.
"""

from __future__ import annotations

from modelsoups.config.schema import Config
from modelsoups.experiment import draw


def run(cfg: Config) -> bool:
    """Write runs/<name>/draw.jsonl; refuse to change one that exists (the sweep may have begun)."""
    return draw.write(cfg)
