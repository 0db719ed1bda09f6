"""Ensembles from cached logits against the same done in memory, calibration against a scan, and bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_choosing import Margins, holdout, states
from torch import Tensor

from modelsoups import soup
from modelsoups.soup import logit_blocks
from modelsoups.stats import scores


def models(count: int = 4, images: int = 90, classes: int = 5) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(classes, (images,), generator=generator)
    right_NC = torch.nn.functional.one_hot(labels_N, classes).float()
    return {
        f"m{k}": 2 * right_NC + (1 + k) * torch.randn(images, classes, generator=generator) for k in range(count)
    }, labels_N


def on_disk(folder: Path, logits: dict[str, Tensor], dtype: str = "float32") -> dict[str, Path]:
    for name, logits_NC in logits.items():
        np.save(folder / f"{name}.npy", logits_NC.numpy().astype(dtype))
    return {name: folder / f"{name}.npy" for name in logits}


@pytest.mark.parametrize("weights", [None, [0.5, 0.3, 0.2, 0.0]])
def test_scores_are_those_of_the_whole(tmp_path: Path, monkeypatch, weights) -> None:
    monkeypatch.setattr(logit_blocks, "BLOCK", 200)  # ten images at a time
    logits, labels_N = models()
    mean_NC = scores.ensemble(list(logits.values()), weights)
    for cached in (logits, on_disk(tmp_path, logits)):
        got = soup.ensemble(cached, labels_N, weights)
        assert (got.n, got.correct) == (90, scores.correct(mean_NC, labels_N))
        assert got.accuracy == got.correct / 90
        assert got.loss == pytest.approx(scores.cross_entropy(mean_NC, labels_N), rel=1e-5)
    one = soup.ensemble({"m0": logits["m0"]}, labels_N)
    assert one.correct == scores.correct(logits["m0"], labels_N)


def test_the_calibration_error_by_hand() -> None:
    """15 bins of two images with confidence 3/4 for class 0, which is right for one of the two: |1/2 - 3/4|."""
    logits_NC = torch.tensor([[3.0, 1.0]]).log().expand(30, 2)
    labels_N = torch.tensor([0, 1]).repeat(15)
    assert soup.ensemble({"a": logits_NC}, labels_N).calibration_error == pytest.approx(0.25)


def test_calibration_finds_the_least_loss() -> None:
    logits, labels_N = models()
    beta = soup.calibrated(logits, labels_N)
    losses = [soup.ensemble(logits, labels_N, beta=b).loss for b in (beta, 0.97 * beta, 1.03 * beta)]
    assert losses[0] == min(losses)
    assert soup.calibrated({"m": 4 * logits["m0"]}, labels_N) == pytest.approx(
        soup.calibrated({"m": logits["m0"]}, labels_N) / 4, rel=1e-4
    )


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda n: st.lists(st.lists(st.integers(-9, 9), min_size=n, max_size=n), min_size=1, max_size=6)
    ),
    st.booleans(),
)
def test_a_greedy_ensemble_is_recipe_1(margins: list[list[int]], strict: bool) -> None:
    logits = {str(k): torch.stack([torch.tensor(m).float(), torch.zeros(len(m))], dim=1) for k, m in enumerate(margins)}
    labels_N = torch.zeros(len(margins[0]), dtype=torch.long)

    def right(members: list[int]) -> int:
        return int((sum(torch.tensor(margins[i]) for i in members) >= 0).sum())

    order = sorted(range(len(margins)), key=lambda i: right([i]))[::-1]
    members = [order[0]]
    for i in order[1:]:
        gain = right([*members, i]) - right(members)
        if gain > 0 or (gain == 0 and not strict):
            members.append(i)
    chosen = soup.greedy_ensemble(logits, labels_N, strict=strict)
    assert chosen.ingredients == tuple(map(str, members))
    assert (chosen.space, chosen.coefficients) == ("logits", {"*": [1 / len(members)] * len(members)})


def test_learned_weights_prefer_the_good_model() -> None:
    logits, labels_N = models()
    chosen = soup.learned_ensemble(logits, labels_N, epochs=20, batch_size=30)
    weights = chosen.coefficients["*"]
    assert weights[0] == max(weights)
    assert sum(weights) == pytest.approx(1)
    assert soup.ensemble(logits, labels_N, weights, chosen.beta).loss < soup.ensemble(logits, labels_N).loss


def test_no_forward_pass_is_made_twice(tmp_path: Path) -> None:
    data, made = holdout(6), states([[1, 2, -3, 4, 5, -6], [1, -2, 3, -4, 5, 6]])
    first = soup.cache_logits({"a": made[0]}, data, tmp_path)
    both = soup.cache_logits({"a": made[0], "b": made[1]}, data, tmp_path)
    assert data.seen == 12
    assert first["a"] == both["a"]
    assert soup.ensemble(both, data.labels_N).correct == 6  # of equal logits the first class counts
    (again,) = soup.cache_logits({"a": {"margin": made[0]["margin"][:3]}}, holdout(3), tmp_path).values()
    assert again not in both.values()
    with pytest.raises(ValueError, match="b: hold-out logits contain NaN or infinity, or do not fit into float16"):
        soup.cache_logits({"b": {"margin": torch.full((6,), 1e6)}}, data, tmp_path)
    assert isinstance(data.model, Margins)


def test_what_ensembles_refuse(tmp_path: Path) -> None:
    logits, labels_N = models()
    paths = on_disk(tmp_path, logits)
    bad = {"nan": logits["m0"] * float("nan"), "few": logits["m0"][:5]}
    for cached, message in [
        ({}, "no models"),
        ({**logits, "few": bad["few"]}, r"few: logits \(5, 5\), expected \(90, 5\)"),
        ({"nan": bad["nan"]}, "NaN"),
        ({"m": tmp_path / "no.npy"}, "no.npy: not an .npy file"),
    ]:
        with pytest.raises(ValueError, match=message):
            soup.ensemble(cached, labels_N)
    with pytest.raises(ValueError, match="2 weights for 4 models"):
        soup.ensemble(logits, labels_N, [1, 2])
    with pytest.raises(ValueError, match="nan: logits contain NaN"):
        soup.greedy_ensemble({"nan": bad["nan"]}, labels_N)
    paths["m0"].write_bytes(paths["m0"].read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"m0\.npy: not an .npy file of logits, or truncated"):
        soup.ensemble(paths, labels_N)


MEASURE = """
import json, sys, torch
from pathlib import Path
from modelsoups.soup.ensembles import ensemble, greedy_ensemble
def peak():
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
paths = {p.name: p for p in sorted(Path(sys.argv[1]).glob("*.npy"))}
labels = torch.zeros(int(sys.argv[2]), dtype=torch.long)
before = peak()
ensemble(paths, labels)
greedy_ensemble(paths, labels)
print(json.dumps((peak() - before) / 1024))
"""


def test_memory_does_not_grow_with_the_number_of_models(tmp_path: Path) -> None:
    """24 models of 20,000 x 100 logits are 96 MB in float16 and 192 in float32; a sum is 8, a block 16."""
    generator = np.random.default_rng(0)
    for k in range(24):
        np.save(tmp_path / f"{k:02}.npy", generator.standard_normal((20_000, 100), dtype=np.float32).astype("float16"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), "20000"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) < 100


def test_cached_logits_are_of_one_hold_out_and_one_content(tmp_path: Path) -> None:
    made = {"a": states([[1, 2, -3, 4, 5, -6]])[0]}
    (path,) = soup.cache_logits(made, holdout(6), tmp_path).values()
    data = holdout(6)
    data.inputs = data.inputs.flip(0)  # a loader that shuffles
    (shuffled,) = soup.cache_logits(made, data, tmp_path).values()
    data = holdout(6)
    data.prepare = lambda x: x.flip(0)
    (scaled,) = soup.cache_logits(made, data, tmp_path).values()
    assert len({path, shuffled, scaled}) == 3
    assert soup.ensemble({"a": path}, data.labels_N).n == 6
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(content)
    changed = r"\.npy has changed since it was written; move it away"
    with pytest.raises(ValueError, match=changed):
        soup.ensemble({"a": path}, data.labels_N)
    with pytest.raises(ValueError, match=changed):
        soup.cache_logits(made, holdout(6), tmp_path)
