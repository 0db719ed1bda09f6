"""Lists the images in class folders, without the hidden files of macOS, Windows and network drives.

Names are compared in one Unicode form (NFC), because macOS writes a letter with an accent as two
characters, and Linux usually as one. Links are followed.
"""

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

SUFFIXES = {
    **{".jpg": "jpg", ".jpeg": "jpg", ".png": "png", ".webp": "webp", ".bmp": "bmp", ".gif": "gif"},
    **{".tif": "tif", ".tiff": "tif", ".ppm": "ppm", ".pgm": "pgm"},
}
IGNORED = {  # in lower case; names that begin with a dot are ignored too: .DS_Store, ._1.jpg
    *("__macosx", "icon\r", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found"),
    *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
}
MOST_BYTES = 256 * 2**20  # of a file that is read as a whole


def is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED


def one_name(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def class_folders(root: Path) -> dict[str, list[Path]]:
    """Return folders by class name, sorted; ValueError if a folder's name is not UTF-8."""
    found: dict[str, list[Path]] = {}
    for path in _inside(root):
        if not path.is_dir():
            continue
        try:
            path.name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{root}: the name of folder {path.name!a} is not UTF-8; rename it") from None
        found.setdefault(one_name(path.name), []).append(path)
    return found


def images(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return (path in the class folder, full path) of all images; ValueError if there are none."""
    files = [(name, path) for folder in folders for name, path in _files(folder)]
    found = [(name, path) for name, path in files if path.suffix.lower() in SUFFIXES]
    if not found:
        others = kinds([path for _, path in files])
        held = f"it contains {others}" if others else "it is empty"
        way_out = "add images, or move the folder elsewhere"
        raise ValueError(f"{folders[0]}: no image of this class ({', '.join(SUFFIXES)}): {held}; {way_out}")
    return found


def left_out(root: Path) -> list[Path]:
    """Return the files of a data set that have no image suffix or are in no class folder."""
    inside = [path for path in _inside(root) if not path.is_dir()]
    for folders in class_folders(root).values():
        for folder in folders:
            inside += [path for _, path in _files(folder) if path.suffix.lower() not in SUFFIXES]
    return inside


def kinds(paths: Sequence[Path]) -> str:
    """Return how many files have each suffix, such as "3 .heic, 1 .txt"."""
    counts = Counter(path.suffix.lower() or "without a suffix" for path in paths)
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())


def content(path: Path, kind: str = "an image") -> bytes:
    """Return a file's bytes; ValueError if it is not a regular file or exceeds MOST_BYTES."""
    try:
        status = path.stat()  # before it is opened: a pipe would be waited for
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); repair the link or the file") from error
    if not stat.S_ISREG(status.st_mode):
        way_out = "move it elsewhere"
        raise ValueError(f"{path} is not a regular file but a pipe, a device or a socket; {way_out}")
    if status.st_size > MOST_BYTES:
        size = f"{status.st_size / 2**20:,.0f} MiB"
        raise ValueError(f"{path} has {size}, but {kind} may have at most {MOST_BYTES >> 20}; make it smaller")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error


def _inside(folder: Path) -> list[Path]:
    kept = [path for path in folder.iterdir() if not is_ignored(path.name)]
    return sorted(kept, key=lambda path: (one_name(path.name), path.name))


def _files(folder: Path, prefix: str = "", above: frozenset[str] = frozenset()) -> Iterator[tuple[str, Path]]:
    """Yield (path in the class folder, full path) of all files; ValueError for a circular link."""
    here = os.path.realpath(folder)
    if here in above:
        way_out = "move the link elsewhere"
        raise ValueError(f"{folder} is a link to a folder that contains it; {way_out}")
    for path in _inside(folder):
        name = prefix + one_name(path.name)
        if path.is_dir():
            yield from _files(path, f"{name}/", above | {here})
        else:
            yield name, path
