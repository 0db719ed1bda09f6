"""What a registry of ours lacks is found in a file of one's own."""

import sys

import pytest

from modelsoups.config.compose import load
from modelsoups.config.registry import find, result

KNOWN = {"ours": 1, "late": "json:dumps"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_name_of_ours_is_its_entry_and_a_text_is_imported_when_asked_for():
    import json

    assert find(KNOWN, "ours", "key") == 1
    assert find(KNOWN, "late", "key") is json.dumps


def test_an_object_in_a_file_of_the_working_folder_is_found(tmp_path):
    (tmp_path / "my_own_things.py").write_text("def mine():\n    return 'mine'\n")
    assert find(KNOWN, "my_own_things:mine", "key")() == "mine"
    assert find(KNOWN, "my_own_things:", "key").mine() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("nobody", "", "key=nobody: expected module:object; built-in names: ours, late"),
        ("not_there:f", "", "No module named 'not_there'"),
        ("half_written:f", "def f(:", "half_written:f cannot be imported"),
        ("without_it:f", "g = 1", "has no attribute 'f'"),
    ],
)
def test_what_is_not_found_is_named_in_one_line_with_the_choices(tmp_path, name, content, says):
    (tmp_path / f"{name.partition(':')[0]}.py").write_text(content) if content else None
    with pytest.raises(ValueError, match="ours, late") as error:
        find(KNOWN, name, "key")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_the_configuration_takes_an_object_of_ones_own_where_a_registry_is_open():
    config = load(["data.library=mine:library", "model.library=mine:", "task=mine:Task", "soup.also=[mine:f]"])
    assert (config.data.library, config.model.library, config.task) == ("mine:library", "mine:", "mine:Task")
    with pytest.raises(ValueError, match="or your own module:object"):
        load(["data.library=mine"])
    with pytest.raises(ValueError, match="expected one of paper, released"):
        load(["protocol=mine:f"])


def test_a_module_finds_its_neighbours_later_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "late_neighbour.py").write_text("value = 5\n")
    (tmp_path / "json.py").write_text("raise SystemExit\n")  # a neighbour hides no library
    (tmp_path / "with_neighbour.py").write_text("def f():\n    import late_neighbour as n\n    return n.value\n")
    assert find(KNOWN, "with_neighbour:f", "key")() == 5
    assert sys.path[-1] == str(tmp_path)
    find(KNOWN, "late", "key")
    assert sys.path.count(str(tmp_path)) == 1


def test_a_function_that_ends_the_process_is_named(tmp_path):
    (tmp_path / "ends_it.py").write_text("import sys\ndef f():\n    sys.exit(0)\n")
    with pytest.raises(ValueError, match=r"ends_it:f ends the process \(SystemExit 0\)"):
        result("ends_it:f")
    (tmp_path / "ends_at_once.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(ValueError, match="ends_at_once ends the process"):
        result("ends_at_once:f")
