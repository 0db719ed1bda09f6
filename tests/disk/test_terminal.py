"""Control characters of a file's content never reach the terminal."""

import pytest
import torch
from safetensors.torch import save_file

from modelsoups.cli.commands import main
from modelsoups.disk.terminal import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("head.weight \u00e9\u4e2d", "head.weight \u00e9\u4e2d"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),  # one-character forms
        ("a\u202eb\u2066\u200b", r"a\u202eb\u2066\u200b"),  # writes from right to left; shows nothing
        ("mod\udce8le", r"mod\udce8le"),  # a byte of a name that is not UTF-8
    ],
)
def test_what_a_terminal_obeys_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_names_of_tensors_and_files_in_errors_notes_and_findings(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    evil = "x\r\x1b[2K\x1b[1Adoctor: a soup of these can succeed\x1b[8m"
    save_file({"w": torch.ones(2), evil: torch.tensor([1.0])}, "a\x1b[31m.safetensors")
    save_file({"w": torch.ones(2), evil: torch.tensor([2.0])}, "b.safetensors")
    save_file({"w": torch.ones(2)}, "c.safetensors")
    main(["mix", "uniform", "a\x1b[31m.safetensors", "b.safetensors", "-o", "o\x1b[2J.safetensors"])
    for command in (["mix", "uniform"], ["doctor"]):
        with pytest.raises(SystemExit):
            main(
                [
                    *command,
                    "a\x1b[31m.safetensors",
                    "c.safetensors",
                    *["-o", "p.safetensors"][: 2 * (command[0] == "mix")],
                ]
            )
    out, err = capsys.readouterr()
    assert r"x\r\x1b[2K\x1b[1A" in out
    assert r"\x1b[31m" in err
    assert not {"\x1b", "\r"} & {*out, *err}
