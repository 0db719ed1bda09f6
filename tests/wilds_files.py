"""Small trees laid out exactly as FMoW v1.1 and iWildCam v2.0 of WILDS are: columns, names and quirks of the tables.

`python tests/wilds_files.py FOLDER` writes both.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

FMOW_COLUMNS = [
    *("split", "img_filename", "img_path", "spatial_reference", "epsg", "category", "visible", "img_width"),
    *("img_height", "country_code", "cloud_cover", "timestamp", "lat", "lon", "region"),
]
COUNTRIES = {"KEN": ("Kenya", "Africa"), "USA": ("United States of America", "Americas"), "JPN": ("Japan", "Asia")}
COUNTRIES |= {"FRA": ("France", "Europe"), "FJI": ("Fiji", "Oceania"), "ATA": ("Antarctica", "")}
FMOW_ROWS = [  # split, category, country, timestamp, and the official split (None: the image is in none)
    ("train", "airport", "KEN", "2009-05-12T08:46:01Z", "train"),
    ("train", "zoo", "USA", "2012-12-31T23:59:59Z", "train"),
    ("train", "zoo", "JPN", "2013-01-01T00:00:00Z", None),
    ("seq", "airport", "FRA", "2010-01-01T00:00:00Z", None),
    ("train", "wind_farm", "FJI", "2002-01-01T00:00:00Z", "train"),
    ("val", "airport", "KEN", "2012-06-01T00:00:00Z", "id_val"),
    ("val", "zoo", "USA", "2010-06-01T00:00:00Z", "id_val"),
    ("val", "zoo", "XKX", "2015-12-31T23:59:59Z", "val"),
    ("val", "airport", "KEN", "2016-01-01T00:00:00Z", None),
    ("test", "airport_hangar", "FRA", "2011-06-01T00:00:00Z", "id_test"),
    ("test", "zoo", "ATA", "2012-06-01T00:00:00Z", "id_test"),
    ("test", "airport", "KEN", "2014-06-01T00:00:00Z", None),
    ("test", "airport", "KEN", "2016-01-01T00:00:00Z", "test"),
    ("test", "zoo", "USA", "2017-09-01T12:00:00Z", "test"),
    ("test", "zoo", "FJI", "2017-09-02T12:00:00Z", "test"),
]
CAM_COLUMNS = [
    *("", "split", "location_remapped", "location", "sequence_remapped", "seq_id", "y", "category_id", "datetime"),
    *("filename", "image_id"),
]
ANIMALS = ["empty", "tayassu pecari", "dasyprocta punctata"]
CAM_SPLITS = {"id_test": [0, 2], "id_val": [1, 0], "test": [2, 2, 1], "train": [0, 1, 2, 0], "val": [1]}


def table(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([columns, *rows])


def image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


def fmow(root):
    """fmow_v1.1/: images are named by the row of the table, also those of rows in no split."""
    folder = root / "fmow_v1.1"
    rows = []
    for number, (split, category, country, stamp, _) in enumerate(FMOW_ROWS):
        place = f"{split}/{category}/{category}_{number}/{category}_{number}_0_rgb.jpg"
        reference = 'GEOGCS["WGS 84",DATUM["WGS_1984"]]'
        region = COUNTRIES.get(country, ("", "Other"))[1]
        about = [split, place.rpartition("/")[2], place, reference, 4326, category, True, 500, 400]
        rows.append([*about, country, 3, stamp, 1.5, 2.5, region])
        image(folder / "images" / f"rgb_img_{number}.png", number)
    table(folder / "rgb_metadata.csv", FMOW_COLUMNS, rows)
    countries = [[name, code[:2], code, region] for code, (name, region) in COUNTRIES.items()]
    table(folder / "country_code_mapping.csv", ["name", "alpha-2", "alpha-3", "region"], countries)
    (folder / "RELEASE_v1.1.txt").write_text("")
    return folder


def cam_name(number):
    return f"{number:08x}-21bc-11ea-a13a-137349068a90"


def iwildcam(root):
    """iwildcam_v2.0/: the images of all splits are in train/, with some that no row names."""
    folder = root / "iwildcam_v2.0"
    rows, number = [], 0
    for split, labels in CAM_SPLITS.items():
        for y in labels:
            name = cam_name(number)
            ids = [number, split, 3, 17, number, f"seq{number}", y, [0, 2, 3][y]]
            rows.append([*ids, "2013-05-12 08:46:01.000", f"{name}.jpg", name])
            image(folder / "train" / f"{name}.jpg", 100 + number)
            number += 1
    table(folder / "metadata.csv", CAM_COLUMNS, rows)
    categories = [[0, 0, ANIMALS[0]], [1, 2, ANIMALS[1]], [2, 3, ANIMALS[2]], [99999, 4, "not used"]]
    table(folder / "categories.csv", ["y", "category_id", "name"], categories)
    image(folder / "train" / "unnamed.jpg", 99)
    return folder


if __name__ == "__main__":
    fmow(Path(sys.argv[1]))
    iwildcam(Path(sys.argv[1]))
