"""How well an epoch is shuffled: the full permutation that training draws against shards in random order and a buffer.

    python benchmarks/shuffle.py [--shards 128] [--images 1000] [--batch 512]

Per order, means over two epochs of `shards` x `images` images:

    shards in a batch   different shards that a batch's images come from
    together            images of one shard that are in one batch, relative to the full permutation's (1 is independent)
    apart               distance in an epoch of two images that are neighbours in a shard, share of the epoch (1/3)
    again               pairs that share a batch in both epochs, relative to the full permutation's expectation
"""

from __future__ import annotations

import argparse

import numpy as np

from modelsoups.data.order import epoch_order


def buffered(shards: int, images: int, size: int, seed: int) -> np.ndarray:
    """WebDataset's order: shards shuffled, their images through a buffer that gives a random one for each new one."""
    random = np.random.default_rng(seed)
    stream = (random.permutation(shards)[:, None] * images + np.arange(images)).ravel()
    buffer, order = list(stream[:size]), []
    for image in stream[size:]:
        place = random.integers(size)
        order.append(buffer[place])
        buffer[place] = image
    return np.array([*order, *random.permutation(buffer)])


def measures(orders: list[np.ndarray], images: int, batch: int) -> list[float]:
    total = len(orders[0])
    batches = [order[: total // batch * batch].reshape(-1, batch) for order in orders]
    distinct = float(np.mean([len(np.unique(b // images)) for b in batches[0]]))
    same = np.mean([np.sum(np.unique(b // images, return_counts=True)[1] ** 2) - batch for b in batches[0]])
    independent = batch * (batch - 1) * (images - 1) / (total - 1)
    place_N = np.empty(total)
    place_N[orders[0]] = np.arange(total)
    neighbours = np.abs(np.diff(place_N.reshape(-1, images), axis=1)).mean() / total
    number_N = np.full(total, -1)
    number_N[batches[1].ravel()] = np.repeat(np.arange(len(batches[1])), batch)
    counts = [np.unique(number_N[b][number_N[b] >= 0], return_counts=True)[1] for b in batches[0]]
    again = np.mean([np.sum(c * (c - 1)) for c in counts])
    chance = batch * (batch - 1) * (batch - 1) / (total - 1)
    return [distinct, float(same / independent), float(neighbours), float(again / chance)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=128)
    parser.add_argument("--images", type=int, default=1000, help="of a shard")
    parser.add_argument("--batch", type=int, default=512)
    args = parser.parse_args()
    ways = {"full permutation (ours)": [epoch_order(args.shards * args.images, 0, e).numpy() for e in (0, 1)]}
    for size in (1000, 5000, 20_000):
        ways[f"buffer of {size:,}"] = [buffered(args.shards, args.images, size, e) for e in (0, 1)]
    print("| order | shards in a batch | together | apart | again |\n|---|---|---|---|---|")
    for way, orders in ways.items():
        cells = measures(orders, args.images, args.batch)
        print(f"| {way} | {cells[0]:.1f} | {cells[1]:.2f} | {cells[2]:.3f} | {cells[3]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
