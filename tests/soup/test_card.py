"""The card beside a soup: where it is written, and names in it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelsoups import soup
from modelsoups.soup.coefficients import Soup


def two(folder: Path, *names: str) -> Soup:
    for n, name in enumerate(names or ("a.safetensors", "b.safetensors")):
        save_file({"w": torch.full((2,), float(n))}, folder / name)
    return soup.uniform([folder / name for name in names or ("a.safetensors", "b.safetensors")])


def test_a_card_of_ours_is_replaced_and_the_users_notes_are_not(tmp_path: Path) -> None:
    chosen = two(tmp_path)
    out, usual, other = tmp_path / "notes.safetensors", tmp_path / "notes.md", tmp_path / "notes.safetensors.md"
    assert soup.mix(chosen, out) == []
    assert soup.mix(replace(chosen, method="another"), out) == []
    assert soup.mix(chosen, out) == []
    assert "# Model soup: uniform" in usual.read_text()
    usual.write_text(usual.read_text().replace("| coefficient |", "| my share |"))  # within what we wrote
    assert len(soup.mix(chosen, out)) == 1
    assert "my share" in usual.read_text()
    other.unlink()
    usual.write_text(usual.read_text() + "\nMy own thoughts.\n")
    kept = f"{usual} is not a card that modelsoups wrote, so it is kept"
    assert soup.mix(chosen, out) == [f"{kept}; the soup's card is {other}"]
    assert usual.read_text().endswith("My own thoughts.\n")
    assert "# Model soup: uniform" in other.read_text()
    other.write_text("mine")
    assert soup.mix(chosen, out) == [f"{usual} is not a card that modelsoups wrote, so it is kept; no card was written"]
    assert other.read_text() == "mine"


def test_a_link_in_the_cards_place_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "s.md").symlink_to(tmp_path / "elsewhere.md")
    soup.mix(two(tmp_path), tmp_path / "s.safetensors")
    assert (tmp_path / "s.md").is_symlink()
    assert not (tmp_path / "elsewhere.md").exists()
    assert (tmp_path / "s.safetensors.md").is_file()


def test_dots_in_a_files_name_are_kept_in_the_cards(tmp_path: Path) -> None:
    soup.mix(two(tmp_path), tmp_path / "Qwen2.5-0.5B.safetensors")
    assert (tmp_path / "Qwen2.5-0.5B.md").is_file()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b.safetensors", r"a\|b.safetensors"),
        ("a\nb.safetensors", r"a\nb.safetensors"),
        ("a\x1b[2J.safetensors", r"a\x1b[2J.safetensors"),
        ("a`b.safetensors", "a'b.safetensors"),
        (os.fsdecode(b"mod\xe8le.safetensors"), r"mod\udce8le.safetensors"),
    ],
)
def test_names_are_one_line_of_text_in_the_table(tmp_path: Path, name: str, shown: str) -> None:
    chosen = two(tmp_path)
    chosen = Soup(chosen.method, (name, "b"), chosen.hashes, chosen.coefficients)
    soup.mix(chosen, tmp_path / "s.safetensors", [tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    assert f"| `{shown}` | 0.5 |" in (tmp_path / "s.md").read_text(encoding="utf-8")
