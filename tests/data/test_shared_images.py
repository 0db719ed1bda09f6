"""Decoded images that training runs on one machine share (finetune.share)."""

import multiprocessing
import os
import signal
import time

import pytest
from photos import MEAN, encoded, photos

from modelsoups.data import loader, shared_images
from modelsoups.data.shards import ShardSet, finish_set, write_shard
from modelsoups.data.shared_images import SLOT, TABLE, SharedImages, shared_file
from modelsoups.recipes.recipe import Recipe

FORK = multiprocessing.get_context("fork")


def content(epoch, place):
    return f"{epoch} {place} ".encode() * 100


def taken(images, epoch, place, data):
    """What a run gets for an image that it would decode to `data`."""
    found = images.image(epoch, place, lambda: [data[:3], data[3:]])
    return data if found is None else found


def read_all(path, decoded, results, places):
    images = SharedImages(path)

    def decode(place):
        decoded.put(place)
        return [content(0, place)]

    for place in places:
        found = images.image(0, place, lambda place=place: decode(place))
        results.put(found in (None, content(0, place)))


def test_each_image_is_decoded_by_one_of_the_runs_that_need_it():
    """Three processes begin at different images of the same 60."""
    decoded, results = FORK.SimpleQueue(), FORK.SimpleQueue()
    with shared_file(64) as path:
        starts = ([*range(k, 60), *range(k)] for k in (0, 20, 40))
        runs = [FORK.Process(target=read_all, args=(path, decoded, results, places), daemon=True) for places in starts]
        for run in runs:
            run.start()
        assert all(results.get() for _ in range(3 * 60))
        for run in runs:
            run.join()
    assert sorted(decoded.get() for _ in range(60)) == list(range(60))
    assert decoded.empty()


def never_ends(path, begun):
    def decode():
        begun.put(True)
        time.sleep(60)
        return [b""]

    SharedImages(path).image(0, 3, decode)


def test_a_run_that_is_killed_while_it_decodes_holds_nobody_up():
    begun = FORK.SimpleQueue()
    with shared_file(8) as path:
        other = FORK.Process(target=never_ends, args=(path, begun), daemon=True)
        other.start()
        begun.get()
        os.kill(other.pid, signal.SIGKILL)
        assert taken(SharedImages(path), 0, 3, b"decoded here") == b"decoded here"
        other.join()


def test_a_slot_that_was_being_written_is_not_read(monkeypatch):
    with shared_file(8) as path:
        images = SharedImages(path)
        taken(images, 0, 1, content(0, 1))

        def killed(file, parts, offset):
            os.pwrite(file, parts[0], offset)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "pwritev", killed)
        with pytest.raises(KeyboardInterrupt):
            taken(images, 1, 1, content(1, 1))
        monkeypatch.undo()
        assert taken(images, 0, 1, b"again") == b"again"


def test_an_image_that_the_leading_run_needs_stays_when_a_run_behind_decodes_another():
    with shared_file(8) as path:
        images = SharedImages(path)
        taken(images, 2, 1, content(2, 1))
        assert taken(images, 1, 9, content(1, 9)) == content(1, 9)  # the same slot
        assert taken(images, 2, 1, b"lost") == content(2, 1)
        assert taken(images, 2, 9, content(2, 9)) == content(2, 9)  # further on: the slot is free for it
        assert taken(images, 2, 9, b"lost") == content(2, 9)


@pytest.mark.parametrize("full", [True, False])
def test_an_image_that_does_not_fit_is_decoded_by_each_run(monkeypatch, full):
    with shared_file(8) as path:
        images, huge = SharedImages(path), b"x" * (10 if full else SLOT)
        if full:

            def no_memory(file, parts, offset):
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(os, "pwritev", no_memory)
        assert taken(images, 0, 1, huge) == huge
        assert taken(images, 0, 1, b"again") == b"again"
        assert path.stat().st_size == TABLE + 8 * SLOT


def another(path, moves, said):
    member = SharedImages(path).joined()
    member.reached(0, wait=False)
    said.put(member.row)
    while (images := moves.get()) is not None:
        member.reached(images)
        said.put(images)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_far_ahead_waits_for_one_that_moves_and_not_for_one_that_does_not(monkeypatch):
    moves, said = FORK.SimpleQueue(), FORK.SimpleQueue()
    with shared_file(16) as path:  # so a run may be 8 images ahead
        member = SharedImages(path).joined()
        other = FORK.Process(target=another, args=(path, moves, said), daemon=True)
        other.start()
        assert (member.row, said.get()) == (0, 1)
        member.reached(8)  # at once
        monkeypatch.setattr(shared_images, "STALLED", 0.2)
        begin = time.monotonic()
        member.reached(20)  # the other one stands still, so this one gives up waiting
        assert time.monotonic() - begin > 0.2
        begin = time.monotonic()
        member.reached(30)  # and does not wait for it again
        assert time.monotonic() - begin < 0.2
        moves.put(10)
        assert said.get() == 10
        monkeypatch.setattr(shared_images, "STALLED", 60.0)
        FORK.Process(target=lambda: (time.sleep(0.3), moves.put(25)), daemon=True).start()
        begin = time.monotonic()
        member.reached(32)  # it moves again, to 25
        assert time.monotonic() - begin > 0.2
        moves.put(None)
        other.join()
        member.reached(1000)  # it was killed: nobody waits for it
        member.leave()


def test_more_runs_than_rows_are_refused(monkeypatch):
    monkeypatch.setattr(shared_images, "MEMBERS", 0)
    with shared_file(8) as path, pytest.raises(ValueError, match=r"set finetune\.parallel to at most 0"):
        SharedImages(path).joined()


def read_batches(folder, recipe, how, first, said):
    batches = loader.train_batches(ShardSet(folder), recipe, how, first)
    said.put([(pixels.numpy().tobytes(), labels.tolist()) for pixels, labels in batches])


@pytest.mark.parametrize("decoder", ["pil", "turbo"])
def test_a_runs_batches_are_the_same_alone_and_beside_others(tmp_path, monkeypatch, decoder):
    """Two runs of other seeds, batch sizes and lengths, one of them resumed, share one order of 24 images."""
    monkeypatch.setattr(loader, "KEEP_DECODED", 0)
    monkeypatch.setattr(loader, "cores", lambda: 1)
    samples = [(f"{i:03d}", encoded(image), "jpg", i % 3) for i, image in enumerate(photos(24))]
    entry = write_shard(tmp_path / "train" / "train-000000.tar", iter(samples))
    facts = {"name": "train", "title": "Train", "role": "train", "templates": ["{}"], "projection": None}
    finish_set(tmp_path / "train", {}, [entry], {**facts, "classes": ["a", "b", "c"]})
    values = {
        "lr": 1e-3,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "mixup": 0.0,
        "aug": "rand-m5-n1",
        "order_seed": 7,
    }
    runs = [
        (Recipe(**values, seed=1, epochs=2, batch_size=4), 0),
        (Recipe(**values, seed=2, epochs=3, batch_size=5), 2),
    ]
    decoded = FORK.Value("i", 0)
    image = loader.Augmented.image

    def counted(self, index):
        with decoded.get_lock():
            decoded.value += 1
        return image(self, index)

    monkeypatch.setattr(loader.Augmented, "image", counted)
    both, reached = FORK.Barrier(2), shared_images.Place.reached

    def begun_together(self, images, wait=True):
        reached(self, images, wait)
        if not wait:
            both.wait(timeout=60)

    monkeypatch.setattr(shared_images.Place, "reached", begun_together)
    found = {}
    with shared_file(32) as path:
        for shared in (None, path):
            decoded.value, queues, processes = 0, [], []
            for recipe, first in runs:
                how = loader.Preprocessing(24, MEAN, decoder, side_by_side=2, shared=shared)
                queues.append(FORK.Queue())
                arguments = (tmp_path / "train", recipe, how, first, queues[-1])
                processes.append(FORK.Process(target=read_batches, args=arguments, daemon=True))
                processes[-1].start()
            found[shared] = [queue.get() for queue in queues]
            for process in processes:
                process.join()
            found[shared].append(decoded.value)
    *alone, decoded_alone = found[None]
    *beside, decoded_beside = found[path]
    assert alone == beside
    assert decoded_alone == 2 * 24 + 3 * 20 - 2 * 5
    assert decoded_beside <= decoded_alone - 15  # 30 images are in epochs of both: most were decoded once
