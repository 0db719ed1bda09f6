"""Small trees laid out exactly as CIFAR-10 and CIFAR-10.1 are, with pickles as Python 2 wrote the official ones.

`python tests/cifar_files.py FOLDER` writes them all.
"""

import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [f"data_batch_{n}" for n in range(1, 6)]


def pictures(seed, labels):
    """Pixels, (N, 32, 32, 3), with labels: noise, so that no two are equal."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8), list(labels)


def train_batches():
    """Batch -> (pixels, labels): five batches, in each two images of every class."""
    return {name: pictures(number, list(range(10)) * 2) for number, name in enumerate(BATCHES)}


def text(value):
    data = value.encode("latin-1")
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data


def integer(value):
    return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)


def array(rows_ND):
    """The operations that cPickle writes for a two-dimensional array of bytes."""
    made = b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
    dtype = b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = integer(rows_ND.shape[0]) + integer(rows_ND.shape[1]) + b"\x86"
    content = b"T" + struct.pack("<i", rows_ND.size) + rows_ND.tobytes()
    return made + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"


def listed(items):
    return b"]r\x00\x01\x00\x00(" + b"".join(items) + b"e"


def pickled(entries):
    """A pickle of protocol 2 of a dictionary whose values are given as operations."""
    return b"\x80\x02}q\x01(" + b"".join(text(key) + value for key, value in entries.items()) + b"u."


def batch(pixels_NHWC, labels):
    rows_ND = pixels_NHWC.transpose(0, 3, 1, 2).reshape(len(pixels_NHWC), -1)
    names = [text(f"{CLASSES[label % 10]}_s_{number:06d}.png") for number, label in enumerate(labels)]
    entries = {"batch_label": text("training batch 1 of 5"), "labels": listed(map(integer, labels))}
    return pickled({**entries, "data": array(rows_ND), "filenames": listed(names)})


def write_batches(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, (pixels, labels) in train_batches().items():
        (folder / name).write_bytes(batch(pixels, labels))
    (folder / "test_batch").write_bytes(batch(*pictures(9, range(10))))
    meta = {"num_cases_per_batch": integer(10000), "label_names": listed(map(text, CLASSES)), "num_vis": integer(3072)}
    (folder / "batches.meta").write_bytes(pickled(meta))
    (folder / "readme.html").write_text("")
    return folder


def write_folders(root):
    """The same images as PNG files, in one folder a class, as public copies have them."""
    for split, sets in (("train", train_batches().values()), ("test", [pictures(9, range(10))])):
        number = 0
        for pixels, labels in sets:
            for image, label in zip(pixels, labels, strict=True):
                path = root / split / CLASSES[label] / f"{number:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
                number += 1
    return root


def write_new_test_set(root, version="v6", labels=(0, 9, 3, 3), folder="CIFAR-10.1/datasets"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    pixels, _ = pictures(20 if version == "v6" else 21, labels)
    np.save(root / folder / f"cifar10.1_{version}_data.npy", pixels)
    np.save(root / folder / f"cifar10.1_{version}_labels.npy", np.array(labels, dtype=np.int32))
    return root / folder


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_batches(target / "official")
    write_new_test_set(target / "official")
    write_folders(target / "folders")
