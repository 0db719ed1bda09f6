"""From the sources of the sets to the shards that are to be written: lists, checks, the split, what is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelsoups.config.schema import Config
from modelsoups.data import shards
from modelsoups.data.imagenet import counts, holdout, metadata, parquet, sources, trees, writing
from modelsoups.data.imagenet.listing import Listing
from modelsoups.workers.processes import run_tasks

SPOOL = ".parquet"  # folder of copies under data.dir, while they are needed
SPLIT = "split.json"  # in the hold-out's folder: the names of its images
TAR_OVERHEAD = 2560  # bytes of headers, padding and label an image, at most
FEW = 100  # parts of a source that are listed without other processes


@dataclass
class Plan:
    """A set that is to be written."""

    folder: Path
    inputs: dict[str, Any]
    facts: dict[str, Any]
    shards: list[writing.Shard]
    done: dict[str, dict[str, Any]]  # manifest entries of the shards that are there, by file name

    @property
    def todo(self) -> list[writing.Shard]:
        return [s for s in self.shards if s.tar.name not in self.done]

    @property
    def bytes_needed(self) -> int:
        return sum(int(s.images.size_N.sum()) + TAR_OVERHEAD * len(s) for s in self.todo if s.resize is None)

    def finish(self) -> int:
        """Write the manifest; the number of images."""
        entries = [self.done[s.tar.name] for s in self.shards]
        shards.finish_set(self.folder, self.inputs, entries, self.facts)
        (self.folder / writing.PLAN).unlink()
        return sum(e["images"] for e in entries)


def listings(cfg: Config, found: dict[str, sources.Source], workers: int) -> dict[str, Listing]:
    """Every image of each source, in order, checked for doubles and completeness; train and hold-out share one."""
    listed: dict[str, Listing] = {}  # by layout, where several sets have it
    made: dict[str, Listing] = {}
    for name, source in found.items():
        layout = metadata.SETS[name].layout
        if layout not in sources.ORIGINALS:
            made[name] = trees.list_tree(name, source).in_order()
        else:
            made[name] = listed[layout] = listed.get(layout) or _originals(cfg, layout, source, workers)
        if cfg.data.check_counts:
            counts.check(name, made[name], str(source))
    return made


def _originals(cfg: Config, layout: str, source: sources.Source, workers: int) -> Listing:
    """Every image of train or val."""
    spool = Path(cfg.data.dir) / SPOOL / layout
    parts = sources.parts(layout, source, spool, cfg.data.check_counts)
    if source.form == "parquet":
        there = sum(p.stat().st_size for p in spool.glob("*.bin"))
        counts.free_space(Path(cfg.data.dir), source.bytes - there, f"copies of the images in {source}")
        size = {p: parquet.count(p.path) for p in parts}.__getitem__
        pieces = [p for _, p in run_tasks(sources.list_part, parts, workers, f"prepare: reading {layout}", size)]
    elif len(parts) > FEW:
        pieces = [p for _, p in run_tasks(sources.list_part, parts, workers, f"prepare: listing {layout}")]
    else:
        pieces = [sources.list_part(part) for part in parts]
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
        raise ValueError(f"{layout}: {source} holds no images")
    return Listing.concatenate(pieces).in_order()


def plan(cfg: Config, inputs: dict[str, Any], facts: dict[str, Any], source: sources.Source, listing: Listing) -> Plan:
    """What is to be written of one set. Training images are shuffled, the others stay in order."""
    name, data = facts["name"], cfg.data
    folder = Path(data.dir) / name
    known = {**facts, "source": {"form": source.form, "path": str(source.paths[0])}}
    if metadata.SETS[name].layout == "train":
        held_N = holdout.split(listing, data.holdout_per_class, data.holdout_file)
        held_out = metadata.SETS[name].role == "holdout"
        if held_out:
            known["split"] = holdout.write_names(folder / SPLIT, listing, held_N, inputs["holdout"])
        listing = listing.take(held_N) if held_out else listing.take(~held_N).shuffled()
    known["counts"] = np.bincount(listing.label_N, minlength=len(facts["labels"])).tolist()
    resize = data.train_resize if facts["role"] == "train" else None
    todo = writing.cut(folder, listing, data.shard_images, resize, data.verify)
    return Plan(folder, inputs, known, todo, writing.keep_finished(folder, inputs, todo))
