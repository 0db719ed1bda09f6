"""Recognize files and folders that cannot be read as checkpoints, and say what to do instead."""

import errno
import stat
from pathlib import Path

from modelsoups.disk.opening import irregular

LFS = b"version https://git-lfs"
STARTS = {  # of files, whatever their names
    LFS: "is a pointer of Git LFS, not the weights; fetch them with `git lfs pull` in its folder",
    b"\x89HDF": "is an HDF5 file, as Keras and TensorFlow save; convert it to .safetensors first",
    b"GGUF": "is a GGUF file of llama.cpp, whose weights are quantized; use the model that it was made from",
    b"<!DOCTYPE html": "is a web page, not the weights; download the file itself",
    b"<html": "is a web page, not the weights; download the file itself",
}
FORMATS = {  # by suffix
    ".h5": "TensorFlow's or Keras's HDF5",
    ".keras": "Keras's",
    ".msgpack": "Flax's",
    ".onnx": "ONNX's",
    ".npz": "NumPy's",
    ".npy": "NumPy's",
    ".gguf": "llama.cpp's (quantized)",
    ".index": "TensorFlow's checkpoint",
    ".pkl": "a Python pickle, which can run code",
    ".pickle": "a Python pickle, which can run code",
}
DCP = "a distributed checkpoint of PyTorch (DCP)"
FOLDERS = {  # by a file in them that tells
    "__*.metadata": f"{DCP} that each process saved for itself; save it again with use_collectives=True",
    "*.distcp": f"{DCP} without its .metadata, which is written last; copy the whole folder, or save it again",
    "zero_to_fp32.py": "a checkpoint of DeepSpeed; run its zero_to_fp32.py, and give its output",
    "tf_model.h5": "weights of TensorFlow; save them from PyTorch as .safetensors first",
    "flax_model.msgpack": "weights of Flax; save them from PyTorch as .safetensors first",
    "_CHECKPOINT_METADATA": "a checkpoint of Orbax (JAX); save its weights as .safetensors first",
}
AT_LIMIT = "memory or open files are at their limit; free memory, or raise the limits (ulimit -v, ulimit -n)"


def strange(path: Path) -> str | None:
    """Return why a path is not a readable checkpoint, as text after its name, or else None.

    Only regular files are opened, because reading a pipe or a device may never end.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return None
        if what := irregular(mode):
            return f"cannot be read: {what}; write the checkpoint to a regular file first"
        with open(path, "rb") as file:
            start = file.read(32)
    except OSError:
        return None  # the reader tells it
    found = next((what for known, what in STARTS.items() if start.startswith(known)), None)
    if start[8:10] == b'{"' and path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        found = "is a safetensors file by its content; give its name the suffix .safetensors"
    if path.suffix == ".distcp":
        found = f"is one file of {DCP}; give its folder"
    if found is None and path.suffix in FORMATS:
        found = f"is in another format ({FORMATS[path.suffix]}); save the weights as .safetensors first"
    return found


def told(error: OSError) -> str:
    """Return why a file cannot be read, as text that follows "cannot be read: "."""
    return AT_LIMIT if error.errno == errno.ENOMEM else error.strerror or str(error)


def kind_of_folder(path: Path) -> str | None:
    """Return what a folder without readable weights contains and what to do; None if unknown."""
    return next((what for name, what in FOLDERS.items() if next(path.glob(name), None)), None)
