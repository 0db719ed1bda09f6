"""The icons: what each set is drawn from, and what pre-training has not seen."""

from __future__ import annotations

from importlib.machinery import ModuleSpec

import pytest

from modelsoups.disk import paths, storage
from modelsoups.miniature import icons, sets


def test_every_class_has_glyphs_of_every_kind():
    for icon_set in sets.SETS.values():
        available = icons.by_class(icon_set.styles)
        assert all(available[c] for c in icon_set.label_of_class), icon_set.title
    assert min(map(len, icons.by_class(icons.IN_DISTRIBUTION))) >= 3


def test_names_of_concepts_are_unambiguous():
    table = storage.read_json(paths.ASSETS / "iconnet" / "concepts.json")
    names = [n for group in table.values() for synonyms in group.values() for n in synonyms]
    assert len(names) == len(set(names))


def test_masks_are_centred_and_fill_the_square():
    mask_SS = icons.masks(icons.by_class(("mdi_fill",))[sets.CLASSES.index("heart")][:1])[0]
    rows, columns = mask_SS.amax(dim=1).nonzero()[:, 0], mask_SS.amax(dim=0).nonzero()[:, 0]
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) >= 0.9 * icons.SIDE
    assert abs(int(rows[0] + rows[-1]) - icons.SIDE) <= 2


def test_missing_package_and_missing_font_say_what_to_install(monkeypatch, tmp_path):
    icons.fonts_dir.cache_clear()
    try:
        monkeypatch.setattr(icons, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match="pip install qtawesome"):
            icons.fonts_dir()
        spec = ModuleSpec("qtawesome", None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path)]
        monkeypatch.setattr(icons, "find_spec", lambda name: spec)
        with pytest.raises(ValueError, match=r"phosphor-1.3.0.ttf.*pip install qtawesome"):
            icons.font_file("phosphor-1.3.0.ttf")
    finally:
        icons.fonts_dir.cache_clear()


@pytest.mark.parametrize(
    ("name", "depicts"),
    [("book-open", True), ("bell-books", True), ("shopping-cart-2", True), ("notebook", False), ("bank", False)],
)
def test_names_that_depict_a_class(name, depicts):
    assert icons.depicts_class(name) is depicts


@pytest.fixture(scope="module")
def pool() -> icons.PretrainingGlyphs:
    return icons.pretraining_glyphs()


def test_pool_has_no_held_out_glyph(pool):
    glyphs = icons.glyphs()
    for i in pool.indices:
        glyph = glyphs[i]
        assert glyph.style in icons.IN_DISTRIBUTION or not (
            glyph.concept in sets.CLASSES or icons.depicts_class(glyph.name)
        ), glyph
    evaluated = {i for s in sets.SETS.values() for group in icons.by_class(s.styles) for i in group}
    held_out = {i for i in evaluated if glyphs[i].style not in icons.IN_DISTRIBUTION}
    assert held_out
    assert not held_out & set(pool.indices)


def test_pool_has_no_near_duplicate_of_a_held_out_glyph(pool):
    own = {i for group in icons.by_class(icons.IN_DISTRIBUTION) for i in group}
    others = [i for i in pool.indices if i not in own]
    evaluated = [i for group in icons.by_class(icons.HELD_OUT) for i in group]
    assert pool.near_duplicates > 100
    assert not any(icons.similar(others, evaluated))
    assert all(icons.similar(evaluated[:5], evaluated))


def test_clutter_is_of_the_pool_and_of_no_class(pool):
    clutter = sets.clutter()
    assert len(clutter) == sets.CLUTTER
    assert set(clutter) <= set(pool.indices)
    assert not any(icons.depicts_class(icons.glyphs()[i].name) for i in clutter)
