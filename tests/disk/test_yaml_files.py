"""YAML from strangers: errors, tags and bombs are one line with file and line number, at once."""

import time

import pytest

from modelsoups.disk.yaml_files import read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
BOMB += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{b: *a{i - 1}, c: *a{i - 1}}}\n" for i in range(1, 40))
BAD = {
    "a: [gpu\n": (2, "expected ',' or"),
    "a:\n\tgpu\n": (2, "cannot start any token"),
    "a: 1\nb: \x00\n": (2, "the character U+0000 is not allowed"),
    "a: !!python/object/apply:os.system ['touch PWNED']\n": (1, "could not determine a constructor"),
    "x: 1\na: !!python/name:os.system\n": (2, "could not determine a constructor"),
    "a: !!python/module:os\n": (1, "could not determine a constructor"),
    "a: !own x\n": (1, "could not determine a constructor"),
    "a: *b\n": (1, "undefined alias"),
    "a: &a [*a]\n": (1, "an alias of what it is in"),
    "x: 1\n---\ny: 2\n": (2, "another document"),
    "? [a]\n: {}\n": (1, "unhashable"),
    "a: " + "[" * 5000 + "]" * 5000: (1, "more than 50 deep"),
    "a: " + '{"b": ' * 5000 + "1" + "}" * 5000: (1, "more than 50 deep"),
    "".join("  " * i + f"a{i}:\n" for i in range(1000)): (51, "more than 50 deep"),
    "- " * 5000 + "x\n": (1, "more than 50 deep"),
    BOMB: (6, "more than 100,000 values"),
    MERGED: (15, "more than 100,000 values"),
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_bad_yaml_is_one_line_with_file_and_line_number(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.yaml"
    path.write_text(text)
    begun = time.process_time()
    with pytest.raises(ValueError, match="evil") as error:
        read_yaml(path)
    assert time.process_time() - begun < 1
    line, problem = BAD[text]
    assert str(error.value).startswith(f"{path} line {line}: ")
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + len(str(path))
    assert [file.name for file in tmp_path.iterdir()] == ["evil.yaml"]


def test_files_that_are_none_or_too_large_are_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xe9\n")
    with pytest.raises(ValueError, match=r"a\.yaml is not in UTF-8 \(byte 3\)"):
        read_yaml(path)
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"a\.yaml has 1,099,511,627,776 bytes; a YAML file may have at most"):
        read_yaml(path)
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"zero\.yaml is not a regular file"):
        read_yaml(tmp_path / "zero.yaml")


def test_aliases_and_anchors_in_measure_are_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("base: &base {lr: 1.0e-3, x: &x [1, 2]}\nmore: {<<: *base, y: *x, z: *x}\n")
    assert read_yaml(path)["more"] == {"lr": 1e-3, "x": [1, 2], "y": [1, 2], "z": [1, 2]}
