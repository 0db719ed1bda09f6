"""Fuzz the readers of foreign bytes: each changed file is read, or refused with its name, in bounded time and memory.

    python benchmarks/fuzz.py [--seconds 300] [--seed 0] [tar parquet jpeg yaml index draw safetensors zip]

A second process reads the files, and this one watches it: a crash, another error than the reader promises, 10 seconds
of computing for one small file, or 2 GB of memory is a finding. Exits with 1 after a finding, whose file is kept in the
current folder as fuzz-<reader>-<try>.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from mutations import mutated, with_another_number

HANG, MEMORY = 10.0, 2e9  # seconds of computing for one file, bytes
LABELS = {"n01440764_1.JPEG": b"one", "n01440764_1.cls": b"7", "d/" * 60 + "n01440764_2.JPEG": b"two"}


def tars() -> Iterator[bytes]:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            for name, content in LABELS.items():
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(content), 1.5
                archive.addfile(info, io.BytesIO(content))
        yield buffer.getvalue()


def with_checksums(content: bytes) -> bytes:
    """Correct the checksums of a tar's headers, without which no reader looks at the rest of them."""
    data = bytearray(content)
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            data[start + 148 : start + 156] = b" " * 8
            total = sum(data[start : start + 512])
            data[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(data)


def read_tar(path: Path) -> None:
    from modelsoups.data.imagenet import tars, wds

    with suppress(ValueError):
        list(wds.labelled(path))
    list(tars.members(path))


def parquets() -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"image": {"bytes": b"abc" * n, "path": f"n01440764_{n}.JPEG"}, "label": n} for n in range(1, 40)]
    for compression in ("none", "snappy", "zstd"):
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer, compression=compression, row_group_size=20)
        yield buffer.getvalue()


def read_parquet(path: Path) -> None:
    from modelsoups.data.imagenet import parquet
    from modelsoups.data.text import columnar

    with suppress(ValueError):
        list(columnar.read(path).rows)
    parquet.count(path)
    list(parquet.rows(path))


def pictures() -> Iterator[bytes]:
    from PIL import Image

    image = Image.effect_noise((24, 16), 60)
    for mode, form in (("RGB", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("I;16", "PNG"), ("RGB", "WEBP"), ("P", "GIF")):
        buffer = io.BytesIO()
        (image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)).save(buffer, form)
        yield buffer.getvalue()


def read_picture(path: Path) -> None:
    from modelsoups.data import decoders
    from modelsoups.data import pictures as room

    data = path.read_bytes()
    for read in (room.check, room.by_pil, decoders.by_turbo, decoders.left_encoded):
        with suppress(*room.DAMAGE):
            read(data)


def yamls() -> Iterator[bytes]:
    from modelsoups.disk.paths import shipped

    for path in sorted(shipped("sweeps").glob("*.yaml")):
        if not path.stem.startswith("wandb"):
            yield path.read_bytes()
    yield b"kind: grid\nparameters:\n  lr: &l [1.0e-5, 3.0e-5]\n  weight_decay: *l\n  <<: {mixup: [0.0]}\n"


def read_yaml(path: Path) -> None:
    from modelsoups.experiment.draw import load_search

    load_search(str(path))


def draws() -> Iterator[bytes]:
    recipe: dict[str, Any] = {
        "lr": 1e-5,
        "weight_decay": 0.1,
        "epochs": 4,
        "batch_size": 64,
        "seed": 3,
        "aug": "minimal",
    }
    recipe |= {"label_smoothing": 0.0, "mixup": 0.5, "warmup_steps": 500, "clip": 1.0}
    yield b"".join(json.dumps({"index": i, "recipe": recipe}).encode() + b"\n" for i in range(3))


def read_draw(path: Path) -> None:
    from modelsoups.config.schema import SweepConfig
    from modelsoups.disk.paths import Run
    from modelsoups.experiment.draw import Draw

    Draw(Run(path.parent, path.parent), SweepConfig("random"), {}).recipes()


def weights() -> dict[str, Any]:
    import torch

    return {"a.w": torch.arange(6.0).reshape(2, 3), "b.w": torch.ones(2), "steps": torch.tensor(7)}


def safetensors() -> Iterator[bytes]:
    from safetensors.torch import save

    yield save(weights(), {"format": "pt"})
    yield save({name: tensor.half() for name, tensor in weights().items()})


def indexes() -> Iterator[bytes]:
    yield json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights(), "part-1.safetensors")}).encode()


def zips() -> Iterator[bytes]:
    import torch

    for options in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
        buffer = io.BytesIO()
        torch.save({"state_dict": weights(), "epoch": 3}, buffer, **options)
        yield buffer.getvalue()


def read_checkpoint(path: Path) -> None:
    from modelsoups.checkpoints.formats import open_checkpoint

    dict(open_checkpoint(path))


class Reader(NamedTuple):
    file: str
    originals: Callable[[], Iterator[bytes]]
    read: Callable[[Path], None]
    repair: Callable[[bytes], bytes] = bytes


READERS = {
    "tar": Reader("a.tar", tars, read_tar, with_checksums),
    "parquet": Reader("a.parquet", parquets, read_parquet),
    "jpeg": Reader("a.jpg", pictures, read_picture),
    "yaml": Reader("a.yaml", yamls, read_yaml),
    "index": Reader("model.safetensors.index.json", indexes, read_checkpoint),
    "draw": Reader("draw.jsonl", draws, read_draw),
    "safetensors": Reader("a.safetensors", safetensors, read_checkpoint),
    "zip": Reader("a.pt", zips, read_checkpoint),
}


def changed(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 2])):
        content = rng.choice([mutated, with_another_number])(content, rng)
    return content


def read_all(names: list[str], seconds: float, seed: int, folder: Path) -> None:
    """Read changed files; print how many were tried and refused, and stop at an error that no reader promises."""
    for name in names:
        reader, place = READERS[name], folder / name
        place.mkdir(exist_ok=True)
        originals, path = list(reader.originals()), place / reader.file
        if name == "index":
            (place / "part-1.safetensors").write_bytes(next(safetensors()))
        for content in originals:  # also imports what the reader needs
            path.write_bytes(content)
            reader.read(path)
        rng, tried, refused, end = random.Random(f"{seed} {name}"), 0, 0, time.monotonic() + seconds
        while time.monotonic() < end or not tried:
            path.write_bytes(reader.repair(changed(rng.choice(originals), rng)))
            tried += 1
            (folder / "now").write_text(f"{name} {tried}")
            try:
                reader.read(path)
            except (ValueError, OSError) as error:
                if str(path) not in str(error):
                    raise AssertionError(f"the error does not name the file: {error!r}") from error
                refused += 1
        print(f"{name}: {tried:,} files, {refused:,} refused, {tried - refused:,} read", flush=True)


def computed(pid: int) -> tuple[float, float]:
    """Seconds of computing and bytes of memory of a process; zeros once it has ended."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")
    return 0.0, 0.0


def watched(child: subprocess.Popen[bytes], folder: Path) -> str | None:
    """Wait for the process that reads; return why it was ended, if it was."""
    last, since = "", 0.0
    while child.poll() is None:
        time.sleep(0.05)
        now = (folder / "now").read_text() if (folder / "now").exists() else ""
        seconds, size = computed(child.pid)
        if now != last:
            last, since = now, seconds
        why = f"{size / 1e9:.1f} GB of memory" if size > MEMORY else None
        if now and seconds - since > HANG:  # importing what the readers need is no hang
            why = f"{seconds - since:.0f} s of computing"
        if why:
            child.kill()
            child.wait()
            return why
    if child.returncode:
        crash = child.returncode < 0
        return signal.Signals(-child.returncode).name if crash else "an error that the reader does not promise"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", default=list(READERS), help="all by default")
    parser.add_argument("--seconds", type=float, default=300.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="of the process that reads; used by this script itself")
    args = parser.parse_args()
    if unknown := set(args.readers) - set(READERS):
        parser.error(f"no such reader: {', '.join(sorted(unknown))}; choose from {', '.join(READERS)}")
    if args.folder:
        read_all(args.readers, args.seconds, args.seed, args.folder)
        return
    found, names = 0, list(args.readers)
    while names:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, *names, "--seconds", str(args.seconds), "--seed", str(args.seed)]
            why = watched(subprocess.Popen([*command, "--folder", folder]), Path(folder))
            if why is None:
                break
            now = Path(folder, "now")
            name, tried = now.read_text().split() if now.exists() else (names[0], "0")
            Path(f"fuzz-{name}-{tried}").write_bytes(Path(folder, name, READERS[name].file).read_bytes())
            print(f"{name}: {why}; the file is kept as fuzz-{name}-{tried}", flush=True)
            found, names = found + 1, names[names.index(name) + 1 :]
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
