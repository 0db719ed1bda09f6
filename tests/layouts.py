"""Small trees laid out exactly as ImageNet and its test sets are: real folders, wnids, file names; tiny images.

Every form holds the same images, among them what ImageNet really has: a CMYK JPEG, a grey one, and a PNG that is
named .JPEG. `python tests/imagenet/layouts.py FOLDER` writes them all.
"""

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

from PIL import Image

from modelsoups.config.schema import Config
from modelsoups.data.imagenet import metadata
from modelsoups.experiment.experiment import Experiment

FORMS = ("tar", "folder", "kaggle", "parquet", "webdataset")
TRAIN = {  # file names as strings sort otherwise than by number: 1002 before 10026
    "n01440764": (10026, 1002, 10027, 10029, 10040, 10042),
    "n01443537": (10007, 10014, 1003, 10025, 10034, 10092),
    "n01498041": (1, 10, 10018, 10033, 2, 9),
    "n02105855": (2933, 10, 101, 1017, 1030, 104),
}
PNG, CMYK, GREY = "n02105855_2933", "n01440764_10042", "n01443537_1003"
VAL = (1, 2, 3, 10, 100, 1000, 10218, 49999, 50000)
SHIFTS = {  # folder -> class folder -> images
    "imagenetv2-matched-frequency-format-val": {
        "0": ["0ff5dc6e.jpeg"],
        "2": ["51b9c1a8.jpeg"],
        "10": ["0d8f9e53.jpeg"],
        "999": ["f0a4.jpeg", "f1a5.jpeg"],
    },
    "imagenet-r": {"n01443537": ["art_0.jpg", "cartoon_12.jpg"], "n12267677": ["sketch_3.jpg"]},
    "sketch": {"n01440764": ["sketch_0.JPEG"], "n04019541": ["sketch_7.JPEG"], "n15075141": ["sketch_2.JPEG"]},
    "objectnet-1.0/images": {
        "air_freshener": ["0a1b.png"],
        "alarm_clock": ["5c2d.png", "6c2d.png"],
        "banana": ["71aa.png"],
        "wok": ["8e.png"],
    },
    "imagenet-a": {
        "n01498041": [
            "0.000116_digital clock _ digital clock_0.865662.jpg",
            "0.000348_revolver, six-gun_0.4.jpg",
        ],
        "n12267677": ["0.1_acorn squash_0.5.jpg"],
    },
}


def picture(key: str) -> bytes:
    """An encoded image that depends on its key."""
    digest = hashlib.sha256(key.encode()).digest()
    mode = "CMYK" if key == CMYK else "L" if key == GREY else "RGB"
    image = Image.frombytes("RGB", (8, 8), (digest * 6)[:192]).resize((24, 20)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format="png" if key == PNG or key.endswith(".png") else "jpeg", quality=90)
    return buffer.getvalue()


def train_images() -> dict[str, bytes]:
    return {f"{wnid}_{n}": picture(f"{wnid}_{n}") for wnid, numbers in TRAIN.items() for n in numbers}


def val_images() -> dict[str, bytes]:
    return {key: picture(key) for key in (f"ILSVRC2012_val_{n:08d}" for n in VAL)}


def wnid_of(key: str) -> str:
    label = metadata.val_labels()[int(key[-8:]) - 1] if key.startswith("ILSVRC") else None
    return key.partition("_")[0] if label is None else metadata.wnids()[label]


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def tar_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def originals(root: Path, form: str) -> Path:
    """train and val in one form."""
    train, val = train_images(), val_images()
    {"tar": _tars, "folder": _folder, "kaggle": _kaggle, "parquet": _parquet, "webdataset": _webdataset}[form](
        root, train, val
    )
    return root


def _tars(root, train, val):
    classes = {w: {f"{k}.JPEG": v for k, v in train.items() if wnid_of(k) == w} for w in TRAIN}
    put(root / "ILSVRC2012_img_train.tar", tar_bytes({f"{w}.tar": tar_bytes(files) for w, files in classes.items()}))
    put(root / "ILSVRC2012_img_val.tar", tar_bytes({f"{k}.JPEG": v for k, v in val.items()}))


def _folder(root, train, val):
    for split, images in (("train", train), ("val", val)):
        for key, data in images.items():
            put(root / split / wnid_of(key) / f"{key}.JPEG", data)
    put(root / "train" / "n01440764" / "._n01440764_10026.JPEG", b"macOS leaves these")


def _kaggle(root, train, val):
    base = root / "ILSVRC" / "Data" / "CLS-LOC"
    for key, data in train.items():
        put(base / "train" / wnid_of(key) / f"{key}.JPEG", data)
    for key, data in val.items():
        put(base / "val" / f"{key}.JPEG", data)


def _parquet(root, train, val):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (root / "data").mkdir(parents=True)
    for split, images in (("train", train), ("validation", val)):
        keys = sorted(images, key=lambda k: hashlib.md5(k.encode()).digest())  # theirs are in no order either
        for number, part in enumerate((keys[::2], keys[1::2])):
            rows = [{"bytes": images[k], "path": f"{k}_{wnid_of(k)}.JPEG"} for k in part]
            labels = [metadata.class_of()[wnid_of(k)] for k in part]
            table = pa.table({"image": rows, "label": labels})
            pq.write_table(table, root / "data" / f"{split}-{number:05d}-of-00002.parquet", row_group_size=3)


def _webdataset(root, train, val):
    for split, width, images in (("train", 4, train), ("validation", 2, val)):
        keys = sorted(images, reverse=True)
        for number, part in enumerate((keys[::2], keys[1::2])):
            files = {}
            for k in part:
                files[f"{k}.cls"] = str(metadata.class_of()[wnid_of(k)]).encode()
                files[f"{k}.jpg"] = images[k]
                files[f"{k}.json"] = json.dumps({"filename": f"{k}.JPEG"}).encode()
            put(root / f"imagenet1k-{split}-{number:0{width}d}.tar", tar_bytes(files))
    put(root / "_info.json", b"{}")


def shift_sets(root: Path) -> Path:
    """The five shifts, as they unpack."""
    for folder, classes in SHIFTS.items():
        for name, files in classes.items():
            for file in files:
                put(root / folder / name / file, picture(f"{folder}/{name}/{file}"))
    put(root / "imagenet-r" / "README.txt", b"ImageNet-R")
    put(root / "objectnet-1.0" / "mappings" / "folder_to_objectnet_label.json", b"{}")
    return root


if __name__ == "__main__":
    for form in FORMS:
        shift_sets(originals(Path(sys.argv[1]) / form, form))


def prepared_sets(config: Config) -> list[str]:
    """The names of a configuration's sets that are prepared, in their order."""
    data, sets = config.data, Experiment(config).sets
    return [n for n in ("train", "holdout", data.test, *data.shifts, *data.extra) if sets.is_prepared(n)]
