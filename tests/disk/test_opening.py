"""Only regular files are opened, however many."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelsoups import soup
from modelsoups.disk import opening


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.safetensors.index.json", "x.bin"])
@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_pipes_and_devices_are_named_and_never_opened(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    with pytest.raises(ValueError, match=rf"{name} cannot be read: it is a {kind}, not a regular file"):
        soup.load(path)
    with pytest.raises(OSError, match=f"it is a {kind}|No such device"):
        os.close(opening.open_to_read(path))


def test_a_shard_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"w": "a.safetensors"}}')
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="it is a pipe, not a regular file"):
        soup.load(tmp_path)


MIX = """
import resource, sys
from pathlib import Path
from modelsoups import soup
resource.setrlimit(resource.RLIMIT_NOFILE, (100, int(sys.argv[2])))
soup.mix(soup.uniform(sorted(Path(sys.argv[1]).glob("*.*"))), Path(sys.argv[1]) / "soup" / "out.safetensors")
"""


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_more_files_than_the_usual_limit_are_mixed(tmp_path: Path, suffix: str) -> None:
    """200 files under a limit of 100, which may be raised; if it may not be, the way out is said."""
    for n in range(200):
        path = tmp_path / f"{n}{suffix}"
        save_file({"w": torch.full((3,), float(n))}, path) if suffix > ".q" else torch.save(
            {"w": torch.full((3,), float(n))}, path
        )
    command = [sys.executable, "-c", MIX, str(tmp_path)]
    subprocess.run([*command, "1000"], check=True)
    assert soup.load(tmp_path / "soup" / "out.safetensors")["w"].tolist() == [99.5] * 3
    done = subprocess.run([*command, "100"], capture_output=True, text=True, check=False)
    assert "at most 100 files may be open at a time; mix fewer checkpoints at a time, or" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100  # of this process, which is another one
