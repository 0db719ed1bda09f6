"""Checkpoints that are written while training goes on: `snapshot` copies, a `Writer` writes in a thread."""

from __future__ import annotations
