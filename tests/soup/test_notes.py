"""Notes on soups that are mixed as asked, but may not be meant; and what replaces mixed tensors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modelsoups import soup
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.notes import notes_on


def one(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2,), float(value))}


def weighted(row: list[float], method: str = "weights", **more: object) -> Soup:
    states = {f"m{n}": one(n) for n in range(len(row))}
    return Soup(method, tuple(states), tuple(f"d{n}" for n in range(len(row))), {"*": row}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "total"), [([1, 1], "2"), ([0, 0], "0"), ([0.5, 0.6], "1.1"), ([-1, -1], "-2"), ([0.333] * 3, "0.999")]
)
def test_a_sum_other_than_one_is_said(row: list[float], total: str) -> None:
    assert notes_on(weighted(row))[0].startswith(f"the coefficients sum to {total}, not 1")


def test_a_soup_of_one_checkpoint_is_noted() -> None:
    assert notes_on(weighted([1.0], "uniform")) == ["there is only one checkpoint, so nothing is averaged"]


def test_sums_of_one_are_not_noted() -> None:
    for row in ([1.5, -0.5], [1 / 3] * 3, [0.3333333, 0.3333333, 0.3333334]):
        assert notes_on(weighted(row)) == []


@pytest.mark.parametrize("row", [[float("nan"), 0.5], [float("inf"), 0.5], ["1", 0.5], [True, 0.5]])
def test_a_coefficient_must_be_a_finite_number(row: list[float]) -> None:
    with pytest.raises(ValueError, match=r"coefficient (nan|inf|'1'|True) of group \*; expected finite numbers"):
        weighted(row)


def test_the_same_content_twice_is_said(tmp_path: Path) -> None:
    torch.save(one(1), tmp_path / "a.pt")
    torch.save(one(1), tmp_path / "b.pt")
    notes = soup.mix(soup.uniform([tmp_path / "a.pt", tmp_path / "b.pt"]), tmp_path / "soup.safetensors")
    assert notes == [f"{tmp_path}/a.pt and {tmp_path}/b.pt contain the same weights, which are averaged more than once"]
    assert notes[0] in (tmp_path / "soup.md").read_text()


def test_scores_that_are_all_the_same_are_said(tmp_path: Path) -> None:
    states = [one(1), one(2), one(3)]
    for choose in (soup.greedy, soup.pruned):
        chosen = choose(states, lambda state: 0.731)
        mixed = [states[int(name.removeprefix("state "))] for name in chosen.ingredients]
        notes = soup.mix(chosen, tmp_path / "soup.safetensors", mixed)
        assert "evaluations gave the same score (0.731), so it had no influence" in notes[0]
    chosen = soup.greedy(states, lambda state: float(state["w"].sum()))
    assert notes_on(chosen) == []
    assert notes_on(soup.greedy(states[:1], lambda state: 0.5)) == []


def test_batchnorm_is_noted_by_whether_the_statistics_differ(tmp_path: Path) -> None:
    """Frozen statistics are those of the soup; new ones would describe other activations than it was trained with."""
    frozen = [{**one(n), "bn.running_mean": torch.ones(2), "bn.running_var": torch.ones(2)} for n in (1, 3)]
    live = [{**s, "bn.running_var": torch.full((2,), 1.0 + n)} for n, s in enumerate(frozen)]
    fresh = {"bn.running_mean": torch.zeros(2), "bn.running_var": torch.full((2,), 9.0)}
    out = tmp_path / "soup.safetensors"
    assert soup.mix(soup.uniform(frozen), out, frozen) == []
    assert "have equal running statistics" in soup.mix(soup.uniform(frozen), out, frozen, statistics=fresh)[0]
    assert load_file(out)["bn.running_var"].tolist() == [9, 9]
    assert "averaged statistics do not fit" in soup.mix(soup.uniform(live), out, live)[0]
    assert soup.mix(soup.uniform(live), out, live, statistics=fresh) == []


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"w": torch.ones(1)}, r"tensor w is \(1,\); expected \(2,\)"),
        ({"w": torch.ones(2, 1)}, r"tensor w is \(2, 1\); expected \(2,\)"),
        ({"ww": torch.ones(2)}, "tensor ww is not in state 0"),
        ({"w": torch.tensor([1.0, float("nan")])}, "tensor w contains NaN or infinity"),
        ({"w": torch.tensor([1.0, 1e300], dtype=torch.float64)}, "does not fit into torch.float32"),
    ],
)
def test_what_replaces_mixed_tensors_is_checked(tmp_path: Path, statistics, message: str) -> None:
    states = [one(1), one(3)]
    with pytest.raises(ValueError, match=message):
        soup.mix(soup.uniform(states), tmp_path / "soup.safetensors", states, statistics=statistics)
    assert not list(tmp_path.iterdir())


def matrices(seed: int, count: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"l{n}.weight": torch.randn(32, 32, generator=generator) for n in range(count)}


def test_models_of_different_initializations_are_noted(tmp_path: Path) -> None:
    one, other = matrices(0), matrices(1)
    near = {key: tensor + 0.3 * other[key] for key, tensor in one.items()}
    few = {key: other[key] if n < 4 else tensor for n, (key, tensor) in enumerate(one.items())}
    for states, noted in (([one, near], False), ([one, few], False), ([one, near, other], True)):
        notes = soup.mix(soup.uniform(states), tmp_path / "s.safetensors", states)
        told = [note for note in notes if "seem to have different initializations" in note]
        assert len(told) == noted
    assert told[0].startswith("state 2 and state 0 seem to")


def test_statistics_are_tensors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="statistics: w is a list; expected a tensor"):
        soup.mix(soup.uniform([one(1)]), tmp_path / "s.safetensors", [one(1)], statistics={"w": [1, 2]})
