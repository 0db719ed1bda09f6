"""Plans how data sets are written: lists, checks and splits images, and divides them into tars."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelsoups.config.data import DataConfig
from modelsoups.data import shards
from modelsoups.data.imagenet import counts, holdout, metadata, parquet, sources, trees, wds, writing
from modelsoups.data.imagenet.listing import Listing
from modelsoups.data.shards import Json
from modelsoups.data.storing import Storing
from modelsoups.workers.processes import Size, run_tasks

PARQUET_COPIES = ".parquet"  # a temporary folder under data.dir
SPLIT = "split.json"  # in the hold-out's folder: the names of its images
TAR_OVERHEAD = 2560  # at most this many bytes of headers, padding and label per image
FEW = 100  # up to this many parts of a source are listed without other processes


@dataclass
class SetPlan:
    """A data set to write; `done` has the manifest entries of finished shards, by tar name."""

    folder: Path
    inputs: Json
    facts: Json
    shards: list[writing.Shard]
    done: dict[str, Json]

    @property
    def todo(self) -> list[writing.Shard]:
        return [shard for shard in self.shards if shard.tar.name not in self.done]

    @property
    def bytes_needed(self) -> int:
        """Return the bytes that missing shards will take, estimated for decoded images; 0 for resized JPEGs."""
        sizes = [(shard, shard.storing.expected(shard.images.size_N)) for shard in self.todo]
        return sum(size + TAR_OVERHEAD * len(shard) for shard, size in sizes if size)

    def finish(self) -> int:
        """Write the data set's manifest after its last shard; return the number of images."""
        entries = [self.done[shard.tar.name] for shard in self.shards]
        shards.finish_set(self.folder, self.inputs, entries, self.facts)
        (self.folder / writing.PLAN).unlink()
        return sum(entry["images"] for entry in entries)


def listings(data: DataConfig, found: dict[str, sources.Source], workers: int) -> dict[str, Listing]:
    """Return each set's images; train and hold-out, which are split later, have the same list."""
    originals: dict[str, Listing] = {}  # by layout
    made: dict[str, Listing] = {}
    for name, source in found.items():
        layout = metadata.SETS[name].layout
        if source.form == wds.FORM:
            made[name] = wds.list_folder(name, source.paths[0]).in_order()
        elif layout == "hard":
            made[name] = parquet.list_hard(source.paths, Path(data.dir) / PARQUET_COPIES / name).in_order()
        elif layout not in sources.ORIGINALS:
            made[name] = trees.list_tree(name, source).in_order()
        else:
            if layout not in originals:
                originals[layout] = _list_originals(data, layout, source, workers)
            made[name] = originals[layout]
        if data.check_counts:
            counts.check(name, made[name], str(source))
    return made


def _list_originals(data: DataConfig, layout: str, source: sources.Source, workers: int) -> Listing:
    copies = Path(data.dir) / PARQUET_COPIES / layout
    parts = sources.parts(layout, source, copies, data.check_counts)
    if source.form == "parquet":
        present = sum(path.stat().st_size for path in copies.glob("*.bin"))
        counts.check_free_space(copies, source.bytes - present, f"copies of the images in {source}")
        size = Size({part: parquet.count(part.path) for part in parts}.__getitem__, "images")
        tasks = run_tasks(sources.list_part, parts, workers, f"prepare: reading {layout}", size)
    elif len(parts) > FEW:
        tasks = run_tasks(sources.list_part, parts, workers, f"prepare: listing {layout}")
    else:
        tasks = ((part, sources.list_part(part)) for part in parts)
    pieces = [piece for _, piece in tasks if len(piece)]
    if not pieces:
        raise ValueError(f"{layout}: {source} contains no images; check this path")
    return Listing.concatenate(pieces).in_order()


def plan_set(data: DataConfig, inputs: Json, facts: Json, source: sources.Source, listing: Listing) -> SetPlan:
    """Split off the hold-out, shuffle train, divide a data set into shards; return this plan."""
    name = facts["name"]
    folder = Path(data.dir) / name
    known = {**facts, "source": {"form": source.form, "path": str(source.paths[0])}}
    if metadata.SETS[name].layout == "train":
        held_N = holdout.split(listing, data.holdout_per_class, data.holdout_file)
        if metadata.SETS[name].role == "holdout":
            known["split"] = holdout.write_names(folder / SPLIT, listing, held_N, inputs["holdout"])
            listing = listing.take(held_N)
        else:
            listing = listing.take(~held_N).shuffled()
    known["counts"] = np.bincount(listing.label_N, minlength=len(facts["labels"])).tolist()
    storing = Storing.of(data, facts["role"] == "train")
    todo = writing.cut(folder, listing, data.shard_images, storing)
    return SetPlan(folder, inputs, known, todo, writing.keep_finished(folder, inputs, todo))
