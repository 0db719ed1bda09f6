"""Sums over ingredients: the same in memory, in bfloat16 and streamed from files as mixing and dot products give."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.checkpoints.mapped import MappedFile
from modelsoups.weights import coefficient_gradients
from modelsoups.weights.coefficient_gradients import Stack, grams
from modelsoups.weights.fast import blocks
from modelsoups.weights.state_dicts import mix

ROW = [0.7, -0.2, 0.4, 0.1]


def states(dtype: torch.dtype = torch.float32) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    base = {"blocks.0.w": torch.randn(33, 17, generator=generator), "blocks.1.w": torch.randn(70, generator=generator)}
    base |= {"empty": torch.zeros(0, 3), "scalar": torch.tensor(2.0)}
    noisy = ({k: v + 0.01 * torch.randn(v.shape, generator=generator) for k, v in base.items()} for _ in ROW)
    return [{**{k: v.to(dtype) for k, v in s.items()}, "count": torch.tensor(n)} for n, s in enumerate(noisy)]


def opened(folder: Path, made: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
    for n, state in enumerate(made):
        save_file(state, folder / f"{n}.safetensors")
    return [open_checkpoint(folder / f"{n}.safetensors") for n in range(len(made))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("resident", "small", "multiplied"),  # 4 rows of 561 numbers, of 70, of 1 and of none
    [
        (2**30, 2**20, {"blocks.0.w", "blocks.1.w", "scalar", "empty"}),
        (2**30, 4 * 70, {"blocks.1.w", "scalar", "empty"}),
        (2**30, -1, set()),
        (0, 2**20, set()),
    ],
)
@pytest.mark.parametrize("from_files", [True, False])
def test_both_sums_are_those_of_mixing_and_of_dot_products(
    tmp_path: Path, monkeypatch, dtype, resident: int, small: int, multiplied: set[str], from_files: bool
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 25)  # several pieces a tensor, several blocks a piece
    monkeypatch.setattr(blocks, "PIECE", 50)
    monkeypatch.setattr(coefficient_gradients, "SMALL", small)
    made = states(dtype)
    rows = Stack(opened(tmp_path, made) if from_files else made, resident=resident)
    assert set(rows.rows) == multiplied
    assert multiplied.isdisjoint(rows.opened[0].entries)  # what is multiplied is there once
    got = rows.mixed({"blocks.0": ROW, "*": [0.25] * 4})
    for key, tensor in mix(made, {"blocks.0": ROW, "*": [0.25] * 4}).items():
        assert (got[key].dtype, got[key].shape) == (tensor.dtype, tensor.shape)
        torch.testing.assert_close(got[key], tensor, rtol=1e-5 if dtype != torch.bfloat16 else 1e-2, atol=1e-6)
    by_weights = {k: torch.randn(v.shape, dtype=v.dtype) for k, v in made[0].items() if v.is_floating_point()}
    for key, products_K in rows.products(by_weights).items():
        expected = torch.stack([(by_weights[key].double() * s[key].double()).sum() for s in made])
        torch.testing.assert_close(products_K, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("resident", [0, 2**30])
def test_a_gradient_may_be_one_number_for_all(tmp_path: Path, resident: int) -> None:
    """As that of a sum, which autograd gives as a view without memory for each."""
    made = [{"w": torch.arange(n, n + 3.0)} for n in range(2)]
    by = torch.tensor(2.0).expand(3)
    assert Stack(opened(tmp_path, made), resident=resident).products({"w": by})["w"].tolist() == [6, 12]


def test_rows_that_fit_stay_in_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(coefficient_gradients, "SMALL", 0)
    made = states()
    there, streamed = (Stack(opened(tmp_path, made), resident=r) for r in (2**30, 0))
    expected = streamed.mixed({"*": ROW})
    monkeypatch.setattr(MappedFile, "check", lambda file, stop: pytest.fail(f"{file.path} was read again"))
    got = there.mixed({"*": ROW})
    assert all(torch.equal(got[key], tensor) for key, tensor in expected.items())
    assert there.products({"blocks.0.w": got["blocks.0.w"]})["blocks.0.w"].shape == (4,)


def test_rows_of_bfloat16_keep_what_differs(monkeypatch) -> None:
    """On a GPU whose memory is short: rows differ by a hundredth, so eight bits of that are right to 4e-5."""
    monkeypatch.setattr(coefficient_gradients, "COLUMNS", 50)
    made, rows = states(), Stack(states(), resident=0)
    rows.load(rows.averaged, halved=True)
    assert rows.rows["blocks.0.w"].dtype == torch.bfloat16
    got, expected = rows.mixed({"*": ROW}), mix(made, {"*": ROW})
    torch.testing.assert_close(got["blocks.0.w"], expected["blocks.0.w"], rtol=0, atol=1e-4)
    g = torch.randn(33, 17, generator=torch.Generator().manual_seed(3))
    exact = torch.stack([(g.double() * s["blocks.0.w"].double()).sum() for s in made])
    assert (rows.products({"blocks.0.w": g})["blocks.0.w"] - exact).norm() < 1e-4 * exact.norm()


def test_inner_products_of_all_models(monkeypatch) -> None:
    monkeypatch.setattr(coefficient_gradients, "TOGETHER", 50)
    made = states()
    flat = torch.stack([s["blocks.0.w"].double().flatten() for s in made])
    torch.testing.assert_close(grams(made, ["blocks.0.w"])["blocks.0.w"], flat @ flat.T)


def test_streamed_rows_take_no_memory_of_their_own(tmp_path: Path) -> None:
    """Eight files of 16 MB, read twice: beyond the files' cache the process grows by one model and its buffers."""
    for n in range(8):
        save_file({"w": torch.full((2**22,), float(n))}, tmp_path / f"{n}.safetensors")
    rows = Stack([open_checkpoint(tmp_path / f"{n}.safetensors") for n in range(8)], resident=0)
    before = resident_mb()
    mixed = rows.mixed({"*": [1 / 8] * 8})
    assert mixed["w"][7].item() == 3.5
    assert rows.products(mixed)["w"].tolist() == pytest.approx([3.5 * n * 2**22 for n in range(8)])
    assert resident_mb() - before < 40


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def test_grams_release_the_pages_they_have_read(tmp_path: Path, monkeypatch) -> None:
    released: list[Path] = []
    monkeypatch.setattr(blocks, "WINDOW", 2 * 8000)  # bytes, of 24,000 that are read
    monkeypatch.setattr(coefficient_gradients, "TOGETHER", 2 * 500)
    monkeypatch.setattr(MappedFile, "release", lambda file: released.append(file.path))
    grams(opened(tmp_path, [{"w": torch.ones(3000)}] * 2), ["w"])
    assert [path.name for path in released] == ["0.safetensors", "1.safetensors"] * 2
