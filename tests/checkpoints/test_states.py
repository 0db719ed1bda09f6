"""Reading, hashing and comparing states."""

import hashlib
import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from modelsoups.weights.state_dicts import check_alike, load_state, state_sha256

STATE = {"head.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7), "half": torch.ones(2).half()}


def save(path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path)
    return path


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.pth", "a.bin"])
def test_every_container_gives_the_same_state(tmp_path: Path, name: str) -> None:
    state = load_state(save(tmp_path / name))
    assert sorted(state) == sorted(STATE)
    assert all(torch.equal(state[k], STATE[k]) and state[k].dtype == STATE[k].dtype for k in STATE)
    assert state_sha256(state) == state_sha256(STATE)


def test_checkpoints_of_old_pytorch_load(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert state_sha256(load_state(tmp_path / "old.pt")) == state_sha256(STATE)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


def write_bad(path: Path, how: str) -> None:
    whole = save(path).read_bytes()
    content = {
        "half": whole[: len(whole) // 2],
        "cut": whole[:-3],
        "empty": b"",
        "text": b"hello world, this is no checkpoint",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "zip": b"PK\x03\x04" + bytes(200),
        "bomb": struct.pack("<Q", 2**60) + b"{}",
    }
    path.write_bytes(content[how])


@pytest.mark.parametrize("how", ["half", "cut", "empty", "text", "picture", "zip", "bomb"])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_damaged_and_foreign_files_are_named(tmp_path: Path, name: str, how: str) -> None:
    write_bad(tmp_path / name, how)
    with pytest.raises(ValueError, match=f"{name} is truncated") as error:
        load_state(tmp_path / name)
    assert "\n" not in str(error.value)
    assert "make it again" in str(error.value)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(ValueError, match=r"a\.pt is truncated, empty or not"):
        load_state(tmp_path / "a.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.pt holds Python objects \(\w+\.mkdir\)") as error:
        load_state(Path("evil.pt"))
    assert "\n" not in str(error.value)
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not tensors by name"),
        ({}, "holds a dict, not tensors by name"),
        ({"epoch": 3, "state_dict": STATE}, "entry epoch is a int, not a tensor"),
        ({1: torch.ones(1)}, "entry 1 is a Tensor"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        load_state(tmp_path / "a.pt")


def test_missing_files_folders_and_unknown_kinds(tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    for name in ("no.pt", "no.safetensors", "folder.pt"):
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            load_state(tmp_path / name)
    with pytest.raises(ValueError, match=r"expected \.safetensors, \.pt, \.pth, \.bin"):
        load_state(tmp_path / "a.onnx")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([".pt", ".safetensors"]))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.(pt|safetensors)"):
        load_state(path)


def test_the_hash_is_frozen() -> None:
    """Caches are keyed by it: a change throws all of them away. Name, dtype, shape as a JSON line, then the bytes."""
    content = b'["a", "torch.float32", [2]]\n' + struct.pack("<2f", 1.0, 2.0)
    assert state_sha256({"a": torch.tensor([1.0, 2.0])}) == hashlib.sha256(content).hexdigest()


def test_the_hash_sees_content_and_nothing_else() -> None:
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([True, False])
    whole = state_sha256({"a": a, "b": b})
    assert whole == state_sha256({"b": b, "a": a})
    assert whole == state_sha256({"a": a.T.contiguous().T, "b": b})  # strides are not content
    others = [
        {"a": a, "c": b},
        {"a": a.double(), "b": b},
        {"a": a.reshape(4), "b": b},
        {"a": a.T, "b": b},
        {"a": a},
        {"a": a, "b": ~b},
        {"a": -a.neg() * 1.0000001, "b": b},
    ]
    assert len({whole, *map(state_sha256, others)}) == 1 + len(others)
    assert state_sha256({"a": torch.ones(2).bfloat16(), "b": torch.ones(0), "c": torch.tensor(1)})


# ---- check_alike ----


def test_alike_states_pass_and_generators_may_load_one_at_a_time() -> None:
    check_alike({"000": STATE, "001": dict(reversed(STATE.items()))})
    check_alike((name, STATE) for name in ("000", "001"))
    with pytest.raises(ValueError, match="no ingredients"):
        check_alike({})


def test_the_odd_ones_out_are_named_with_both_shapes() -> None:
    usual, odd = {"a": torch.ones(1), "w": torch.ones(2, 3)}, {"a": torch.ones(1), "w": torch.ones(4, 3)}
    with pytest.raises(ValueError, match="cannot be mixed") as error:
        check_alike({"000": odd, "001": usual, "002": usual, "003": odd, "004": usual})
    assert str(error.value) == (
        "ingredients 000, 003 cannot be mixed with 001, 002, 004: tensor w is (4, 3) float32 in 000, "
        "(2, 3) float32 in 001; mix checkpoints of one architecture"
    )


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"a": torch.ones(2)}, r"ingredient 002 .* tensor b is missing in 002, \(1,\) int64 in 000"),
        ({"a": torch.ones(2), "b": torch.tensor([1]), "c": torch.ones(1)}, r"tensor c is \(1,\) float32 in 002, missi"),
        ({"a": torch.ones(2).half(), "b": torch.tensor([1])}, r"tensor a is \(2,\) float16 in 002, \(2,\) float32"),
    ],
)
def test_names_and_dtypes_must_agree(odd: dict[str, torch.Tensor], message: str) -> None:
    usual = {"a": torch.ones(2), "b": torch.tensor([1])}
    with pytest.raises(ValueError, match=message):
        check_alike({"000": usual, "001": usual, "002": odd})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match="ingredient 001: tensor w holds NaN or infinity"):
        check_alike({"000": {"w": torch.ones(2)}, "001": {"w": torch.tensor([1.0, value])}})
