"""The readers-writer lock."""

import threading
from concurrent.futures import ThreadPoolExecutor

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


def test_a_writer_waits_for_readers_and_blocks_later_ones() -> None:
    lock = ReadersWriterLock()
    order: list[str] = []
    writing, finish = threading.Event(), threading.Event()

    def write() -> None:
        with lock.writing():
            order.append("writer comes")
            writing.set()
            finish.wait(10)
            order.append("writer goes")

    def read() -> None:
        with lock.reading():
            order.append("second reader")

    with ThreadPoolExecutor(2) as threads:
        with lock.reading():
            writer = threads.submit(write)
            while not lock._entrance.locked():
                pass
            reader = threads.submit(read)
            assert not writing.wait(0.05)
            order.append("first reader goes")
        assert writing.wait(10)
        finish.set()
        writer.result()
        reader.result()
    assert order == ["first reader goes", "writer comes", "writer goes", "second reader"]


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
