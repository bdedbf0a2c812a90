"""The readers-writer lock."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from app.kit.locks import ReadersWriterLock


def test_readers_hold_the_lock_together() -> None:
    lock = ReadersWriterLock()
    together = threading.Barrier(3, timeout=10)

    def read() -> None:
        with lock.reading():
            together.wait()

    with ThreadPoolExecutor(3) as threads:
        for reader in [threads.submit(read) for _ in range(3)]:
            reader.result()


def test_a_writer_waits_for_readers() -> None:
    lock = ReadersWriterLock()
    order: list[str] = []

    def write() -> None:
        with lock.writing():
            order.append("writer")

    with ThreadPoolExecutor(1) as threads:
        with lock.reading():
            writer = threads.submit(write)
            assert not wait([writer], timeout=0.05).done
            order.append("reader")
        writer.result(10)
    assert order == ["reader", "writer"]


def test_readers_that_overlap_do_not_starve_a_writer() -> None:
    lock = ReadersWriterLock()
    entered = [threading.Event(), threading.Event()]
    done = threading.Event()

    def read(me: int) -> None:
        while not done.is_set():
            with lock.reading():
                entered[me].set()
                entered[1 - me].wait(0.2)  # held until the other reader holds it, too, or cannot
                entered[1 - me].clear()

    with ThreadPoolExecutor(3) as threads:
        readers = [threads.submit(read, me) for me in (0, 1)]
        writer = threads.submit(lambda: lock.writing().__enter__())
        wrote = bool(wait([writer], timeout=30).done)
        done.set()
    assert wrote
    for reader in readers:
        reader.result()


def test_writers_exclude_each_other() -> None:
    lock = ReadersWriterLock()
    count = 0

    def add() -> None:
        nonlocal count
        for _ in range(500):
            with lock.writing():
                before = count
                threading.Event().wait(0)  # lets another thread run
                count = before + 1

    with ThreadPoolExecutor(4) as threads:
        for writer in [threads.submit(add) for _ in range(4)]:
            writer.result()
    assert count == 2000


def test_an_error_releases_the_lock() -> None:
    lock = ReadersWriterLock()
    with pytest.raises(RuntimeError), lock.reading():
        raise RuntimeError
    with pytest.raises(RuntimeError), lock.writing():
        raise RuntimeError
    with lock.writing():
        pass
    with lock.reading():
        pass
