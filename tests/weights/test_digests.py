"""Digests of content, worked out from their definition."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from xxhash import xxh3_128, xxh3_128_digest

from modelsoups import soup
from modelsoups.weights import digests as digest
from modelsoups.weights import mixing


class Facts:
    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    def __call__(self, digests: tuple[str, ...]) -> dict[str, str]:
        self.seen.append(digests)
        return {"digests": " ".join(digests)}


def test_a_digest_is_of_the_content_whatever_the_format_order_or_ties(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    save_file({"b": shared, "a": torch.ones(2).half()}, tmp_path / "one.safetensors", metadata={"c": "b"})
    torch.save({"a": torch.ones(2).half(), "b": shared, "c": shared}, tmp_path / "two.pt")
    sources = [
        tmp_path / "one.safetensors",
        tmp_path / "two.pt",
        {"c": shared.clone(), "b": shared, "a": torch.ones(2).half()},
    ]
    checkpoints = soup.library.open_all(sources)
    assert len(set(soup.library.hashes(checkpoints))) == 1
    mixing.mix_to_file(checkpoints, {"*": [1, 1, 1]}, tmp_path / "out.safetensors", facts := Facts())
    assert set(facts.seen[-1]) == set(soup.library.hashes(checkpoints))


@pytest.mark.parametrize("count", [1, 8, 9, 17])  # whose pieces are of 4, 4, 3 and 1 blocks
def test_a_digest_is_that_of_its_definition_however_many_are_mixed(tmp_path: Path, count: int) -> None:
    block = 2**16
    states = [{"w": torch.arange(n, n + 9.0 * block + 5), "a": torch.tensor([n])} for n in range(count)]
    expected = []
    for made in states:
        whole = xxh3_128(b'["a", "torch.int64", [1]]\n' + xxh3_128_digest(made["a"].numpy()))
        whole.update(f'["w", "torch.float32", [{9 * block + 5}]]\n'.encode())
        for part in made["w"].split(block):
            whole.update(xxh3_128_digest(part.numpy()))
        expected.append("xxh3_128:" + whole.hexdigest())
    checkpoints = soup.library.open_all(states)
    mixing.mix_to_file(checkpoints, {"*": [1 / count] * count}, tmp_path / "out.safetensors", facts := Facts())
    assert facts.seen[-1] == tuple(expected)
    assert digest.digest(checkpoints[0]) == expected[0]
