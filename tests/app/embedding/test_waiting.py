"""The waiting room: who travels with which batch."""

import random
import threading
from collections.abc import Iterable

import numpy as np
import pytest
from faults import until
from scripted_engine import SIZE, crop

from app.embedding.waiting import Batch, Priority, WaitingCrop, WaitingRoom

SEARCH, BULK = Priority.SEARCH, Priority.BULK


def crops_of(owner: str, values: Iterable[int], priority: Priority = BULK) -> list[WaitingCrop[str]]:
    return [WaitingCrop(crop(value), priority, owner, i) for i, value in enumerate(values)]


def room(max_batch: int = 8, takers: int = 1) -> WaitingRoom[str]:
    return WaitingRoom(SIZE, max_batch, takers)


def taken(room: WaitingRoom[str]) -> list[int]:
    """The values of the next batch, as its pixels show them."""
    batch = room.take()
    assert batch is not None
    assert [waiting.pixels[0, 0, 0] for waiting in batch.crops] == batch.pixels[:, 0, 0, 0].tolist()
    values: list[int] = batch.pixels[:, 0, 0, 0].tolist()
    return values


def test_a_batch_is_what_waits() -> None:
    waiting = room()
    waiting.put(crops_of("a", [1]))
    assert taken(waiting) == [1]
    waiting.put(crops_of("a", [2, 3]))
    waiting.put(crops_of("b", [4]))
    assert taken(waiting) == [2, 3, 4]


def test_batches_are_full_while_enough_waits() -> None:
    waiting = room()
    waiting.put(crops_of("a", range(20)))
    assert [taken(waiting), taken(waiting), taken(waiting)] == [
        list(range(8)),
        list(range(8, 16)),
        list(range(16, 20)),
    ]
    assert len(waiting) == 0


def test_a_search_that_comes_last_goes_next_and_alone() -> None:
    waiting = room()
    waiting.put(crops_of("bulk", range(100)))
    waiting.put(crops_of("search", [200], SEARCH))
    assert taken(waiting) == [200]


def test_both_priorities_take_turns_while_both_wait() -> None:
    waiting = room(max_batch=2)
    waiting.put(crops_of("search", range(100, 105), SEARCH))
    waiting.put(crops_of("bulk", range(5)))
    waiting.prepare()
    assert [taken(waiting) for _ in range(6)] == [[100, 101], [0, 1], [102, 103], [2, 3], [104], [4]]


def test_bulk_work_that_had_many_turns_leaves_the_next_to_a_search() -> None:
    waiting = room(max_batch=2)
    waiting.put(crops_of("bulk", range(8)))
    assert [taken(waiting) for _ in range(2)] == [[0, 1], [2, 3]]
    waiting.put(crops_of("search", [100], SEARCH))
    assert [taken(waiting) for _ in range(3)] == [[100], [4, 5], [6, 7]]


def test_dropped_crops_never_reach_a_batch() -> None:
    waiting = room()
    waiting.put(crops_of("goes", [1, 2, 3]) + crops_of("stays", [4, 5]) + crops_of("goes", range(6, 16)))
    waiting.put(crops_of("stays", [16]))
    assert waiting.drop("goes") == 13
    assert len(waiting) == 3
    assert taken(waiting) == [4, 5, 16]


def test_dropping_all_that_is_laid_out_does_not_strand_the_rest() -> None:
    waiting = room()
    waiting.put(crops_of("goes", range(8)) + crops_of("stays", [50, 51]))
    waiting.drop("goes")
    assert taken(waiting) == [50, 51]


def test_laying_out_the_next_batch_leaves_the_taken_one_alone() -> None:
    waiting = room()
    waiting.put(crops_of("a", range(8)))
    batch = waiting.take()
    waiting.put(crops_of("b", range(100, 120)))
    waiting.prepare()
    assert batch is not None
    assert batch.pixels[:, 0, 0, 0].tolist() == list(range(8))


def test_a_closed_room_hands_out_what_waits_and_then_nothing() -> None:
    waiting = room()
    waiting.put(crops_of("a", range(10)))
    waiting.close()
    assert [len(taken(waiting)), len(taken(waiting)), waiting.take()] == [8, 2, None]


@pytest.mark.parametrize("happening", ["put", "close"])
def test_a_taker_wakes_up_when_something_happens(happening: str) -> None:
    waiting = room()
    got: list[object] = []
    taker = threading.Thread(target=lambda: got.append(waiting.take()), daemon=True)
    taker.start()
    if happening == "put":
        waiting.put(crops_of("a", [1]))
    else:
        waiting.close()
    taker.join(timeout=10)
    assert len(got) == 1


@pytest.mark.parametrize(("crops", "shares"), [(1, {1}), (2, {1}), (7, {2, 3}), (24, {8}), (30, {8})])
def test_takers_that_idle_share_what_comes(crops: int, shares: set[int]) -> None:
    waiting = room(takers=3)
    got: list[Batch[str] | None] = []
    for _ in range(3):
        threading.Thread(target=lambda: got.append(waiting.take()), daemon=True).start()
    until(lambda: waiting._idle == 3)
    waiting.put(crops_of("a", range(crops)))
    until(lambda: len(got) == min(crops, 3))
    batches = [batch for batch in got if batch is not None]
    assert {len(batch.crops) for batch in batches} == shares
    assert sorted(one.position for batch in batches for one in batch.crops) == list(range(min(crops, 24)))
    assert all(batch.lone == (crops == 1) for batch in batches)
    waiting.close()


def test_a_batch_is_not_lone_while_another_taker_is_busy() -> None:
    waiting = room(takers=2)
    waiting.put(crops_of("a", [1]))
    batch = waiting.take()
    assert batch is not None
    assert not batch.lone


@pytest.mark.parametrize("max_batch", [1, 2, 3, 8, 32])
def test_every_crop_is_taken_once_and_in_order_whatever_happens(max_batch: int) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    waiting = room(max_batch)
    expected: dict[str, int] = {}
    seen: dict[str, list[int]] = {}
    for step in range(400):
        match rng.randrange(5):
            case 0 | 1:
                owner, count = f"owner {step}", rng.randrange(1, 12)
                waiting.put(crops_of(owner, [step % 256] * count, rng.choice(list(Priority))))
                expected[owner] = count
            case 2:
                waiting.prepare()
            case 3 if expected:
                owner = rng.choice(list(expected))
                gone = waiting.drop(owner)
                assert gone + len(seen.get(owner, [])) == expected.pop(owner)
                expected[owner] = len(seen.get(owner, []))
            case _ if len(waiting):
                before = {priority: len(waiting._lines[priority]) for priority in Priority}
                batch = waiting.take()
                assert batch is not None
                assert len({one.priority for one in batch.crops}) == 1
                assert len(batch.crops) == min(max_batch, before[batch.crops[0].priority])
                for row, taken_crop in zip(batch.pixels, batch.crops, strict=True):
                    assert np.array_equal(row, taken_crop.pixels)
                    seen.setdefault(taken_crop.owner, []).append(taken_crop.position)
    waiting.close()
    while (batch := waiting.take()) is not None:
        for taken_crop in batch.crops:
            seen.setdefault(taken_crop.owner, []).append(taken_crop.position)
    for owner, count in expected.items():
        assert seen.get(owner, []) == list(range(count))
