"""The crop queue: which crops form a batch."""

import random
import threading
from collections.abc import Iterable

import numpy as np
import pytest

from app.embedding.crop_queue import Batch, CropQueue, Priority, QueuedCrop
from tests.app.embedding.scripted_engine import crop
from tests.app.waiting import until

SEARCH, BULK = Priority.SEARCH, Priority.BULK


def crops_of(owner: str, values: Iterable[int], priority: Priority = BULK) -> list[QueuedCrop[str]]:
    return [QueuedCrop(crop(value), priority, owner, i) for i, value in enumerate(values)]


def new_queue(max_batch: int = 8, workers: int = 1) -> CropQueue[str]:
    return CropQueue(max_batch, workers)


def taken(queue: CropQueue[str]) -> list[int]:
    """The values of the next batch, from its pixels."""
    batch = queue.take()
    assert batch is not None
    values: list[int] = batch.pixels()[:, 0, 0, 0].tolist()
    assert [queued.pixels[0, 0, 0] for queued in batch.crops] == values
    return values


def test_a_batch_is_everything_queued() -> None:
    queue = new_queue()
    queue.put(crops_of("a", [1]))
    assert taken(queue) == [1]
    queue.put(crops_of("a", [2, 3]))
    queue.put(crops_of("b", [4]))
    assert taken(queue) == [2, 3, 4]


def test_batches_are_full_while_enough_crops_are_queued() -> None:
    queue = new_queue()
    queue.put(crops_of("a", range(20)))
    assert [taken(queue), taken(queue), taken(queue)] == [
        list(range(8)),
        list(range(8, 16)),
        list(range(16, 20)),
    ]
    assert len(queue) == 0


def test_a_search_overtakes_bulk_crops_in_its_own_batch() -> None:
    queue = new_queue()
    queue.put(crops_of("bulk", range(100)))
    queue.put(crops_of("search", [200], SEARCH))
    assert taken(queue) == [200]


def test_batches_alternate_while_both_priorities_are_queued() -> None:
    queue = new_queue(max_batch=2)
    queue.put(crops_of("search", range(100, 105), SEARCH))
    queue.put(crops_of("bulk", range(5)))
    assert [taken(queue) for _ in range(6)] == [[100, 101], [0, 1], [102, 103], [2, 3], [104], [4]]


def test_after_many_bulk_batches_a_search_is_next() -> None:
    queue = new_queue(max_batch=2)
    queue.put(crops_of("bulk", range(8)))
    assert [taken(queue) for _ in range(2)] == [[0, 1], [2, 3]]
    queue.put(crops_of("search", [100], SEARCH))
    assert [taken(queue) for _ in range(3)] == [[100], [4, 5], [6, 7]]


def test_dropped_crops_never_reach_a_batch() -> None:
    queue = new_queue()
    queue.put(crops_of("goes", [1, 2, 3]) + crops_of("stays", [4, 5]) + crops_of("goes", range(6, 16)))
    queue.put(crops_of("stays", [16]))
    assert queue.drop("goes") == 13
    assert len(queue) == 3
    assert taken(queue) == [4, 5, 16]


def test_dropping_the_whole_next_batch_does_not_strand_the_rest() -> None:
    queue = new_queue()
    queue.put(crops_of("goes", range(8)) + crops_of("stays", [50, 51]))
    queue.drop("goes")
    assert taken(queue) == [50, 51]


def test_a_closed_queue_returns_its_crops_and_then_none() -> None:
    queue = new_queue()
    queue.put(crops_of("a", range(10)))
    queue.close()
    assert [len(taken(queue)), len(taken(queue)), queue.take()] == [8, 2, None]


@pytest.mark.parametrize("event", ["put", "close"])
def test_put_and_close_wake_a_waiting_worker(event: str) -> None:
    queue = new_queue()
    got: list[object] = []
    worker = threading.Thread(target=lambda: got.append(queue.take()), daemon=True)
    worker.start()
    if event == "put":
        queue.put(crops_of("a", [1]))
    else:
        queue.close()
    worker.join(timeout=10)
    assert len(got) == 1


@pytest.mark.parametrize(("crops", "shares"), [(1, {1}), (2, {1}), (7, {2, 3}), (24, {8}), (30, {8})])
def test_idle_workers_split_a_batch_evenly(crops: int, shares: set[int]) -> None:
    queue = new_queue(workers=3)
    got: list[Batch[str] | None] = []
    for _ in range(3):
        threading.Thread(target=lambda: got.append(queue.take()), daemon=True).start()
    until(lambda: queue.idle == 3)
    queue.put(crops_of("a", range(crops)))
    until(lambda: len(got) == min(crops, 3))
    batches = [batch for batch in got if batch is not None]
    assert {len(batch.crops) for batch in batches} == shares
    assert sorted(queued.position for batch in batches for queued in batch.crops) == list(range(min(crops, 24)))
    assert all(batch.single == (crops == 1) for batch in batches)
    queue.close()


def test_a_batch_is_not_single_while_another_worker_is_busy() -> None:
    queue = new_queue(workers=2)
    queue.put(crops_of("a", [1]))
    batch = queue.take()
    assert batch is not None
    assert not batch.single


@pytest.mark.parametrize("max_batch", [1, 2, 3, 8, 32])
def test_every_crop_is_taken_once_and_in_order_after_random_operations(max_batch: int, seed: int) -> None:
    rng = random.Random(seed)
    queue = new_queue(max_batch)
    expected: dict[str, int] = {}
    of: dict[str, Priority] = {}
    waiting = dict.fromkeys(Priority, 0)
    seen: dict[str, list[int]] = {}
    for step in range(400):
        match rng.randrange(4):
            case 0 | 1:
                owner, count, priority = f"owner {step}", rng.randrange(1, 12), rng.choice(list(Priority))
                queue.put(crops_of(owner, [step % 256] * count, priority))
                expected[owner], of[owner] = count, priority
                waiting[priority] += count
            case 2 if expected:
                owner = rng.choice(list(expected))
                dropped = queue.drop(owner)
                waiting[of[owner]] -= dropped
                assert dropped + len(seen.get(owner, [])) == expected.pop(owner)
                expected[owner] = len(seen.get(owner, []))
            case _ if len(queue):
                batch = queue.take()
                assert batch is not None
                assert len({queued.priority for queued in batch.crops}) == 1
                assert len(batch.crops) == min(max_batch, waiting[batch.crops[0].priority])
                for row, taken_crop in zip(batch.pixels(), batch.crops, strict=True):
                    assert np.array_equal(row, taken_crop.pixels)
                    seen.setdefault(taken_crop.owner, []).append(taken_crop.position)
                    waiting[taken_crop.priority] -= 1
    queue.close()
    while (batch := queue.take()) is not None:
        for taken_crop in batch.crops:
            seen.setdefault(taken_crop.owner, []).append(taken_crop.position)
    for owner, count in expected.items():
        assert seen.get(owner, []) == list(range(count))
