"""Files of class folders: which are images, in which order, and what is said about those that cannot be read."""

import os

import pytest

from modelsoups.data import walk


def put(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_images_come_in_the_order_of_their_names_at_any_depth(tmp_path):
    for name in ("b.JPG", "a/2.png", "a/1/9.webp", "c.txt", "a.bmp", ".hidden/1.jpg", "._b.JPG", "@eaDir/b.JPG"):
        put(tmp_path / name)
    assert [name for name, _ in walk.images([tmp_path])] == ["a/1/9.webp", "a/2.png", "a.bmp", "b.JPG"]


def test_a_class_without_images_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "rose").mkdir()
    with pytest.raises(ValueError, match=r"rose: no image of this class \(.*\): it is empty; add images"):
        walk.images([tmp_path / "rose"])
    for name in ("1.heic", "2.HEIC", "3.txt", "Thumbs.db"):
        put(tmp_path / "rose" / name)
    with pytest.raises(ValueError, match=r"rose: no image .*: it contains 2 \.heic, 1 \.txt; add images"):
        walk.images([tmp_path / "rose"])


def test_two_unicode_forms_of_a_name_are_one_class(tmp_path):
    put(tmp_path / "caf\u00e9" / "1.jpg")
    put(tmp_path / "cafe\u0301" / "2.jpg")
    (tmp_path / "cat").mkdir()
    found = walk.class_folders(tmp_path)
    assert list(found) == ["caf\u00e9", "cat"]
    assert sorted(name for name, _ in walk.images(found["caf\u00e9"])) == ["1.jpg", "2.jpg"]


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(ValueError, match=r"name of folder 'caf\\udce9' is not UTF-8; rename it"):
        walk.class_folders(tmp_path)


def test_a_link_to_a_folder_above_is_refused_and_other_links_are_followed(tmp_path):
    put(tmp_path / "elsewhere" / "2.jpg")
    put(tmp_path / "rose" / "1.jpg")
    (tmp_path / "rose" / "more").symlink_to(tmp_path / "elsewhere")
    assert [name for name, _ in walk.images([tmp_path / "rose"])] == ["1.jpg", "more/2.jpg"]
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "rose")
    with pytest.raises(ValueError, match=r"more/back is a link to a folder that contains it; move the link"):
        walk.images([tmp_path / "rose"])


def test_only_regular_files_of_a_sane_size_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        with pytest.raises(ValueError, match=rf"{name} is not a regular file but a pipe, a device or a socket"):
            walk.content(tmp_path / name)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"gone\.jpg cannot be read \(No such file or directory\); repair the link"):
        walk.content(tmp_path / "gone.jpg")
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(walk.MOST_BYTES + 2**20)
    with pytest.raises(ValueError, match=r"huge\.jpg has 257 MiB, but an image may have at most 256"):
        walk.content(tmp_path / "huge.jpg")
    assert walk.content(put(tmp_path / "1.jpg", b"content")) == b"content"


def test_what_is_left_out_is_found_in_classes_and_beside_them(tmp_path):
    for name in ("rose/1.jpg", "rose/deep/2.tar", "rose/.DS_Store", "3.jpg", "labels.csv"):
        put(tmp_path / name)
    found = walk.left_out(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found] == ["3.jpg", "labels.csv", "rose/deep/2.tar"]
    assert walk.kinds(found) == "1 .jpg, 1 .csv, 1 .tar"
