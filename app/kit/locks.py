"""A readers-writer lock for threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadersWriterLock:
    """Held by many readers or by one writer. A waiting writer blocks later readers.

    So readers cannot starve a writer, and a reader waits only for running readers and earlier writers. Not reentrant: a
    thread that holds the lock must not acquire it again.
    """

    def __init__(self) -> None:
        self._entrance = threading.Lock()
        self._readers = 0
        self._readers_changed = threading.Condition()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock as a reader."""
        with self._entrance, self._readers_changed:
            self._readers += 1
        try:
            yield
        finally:
            with self._readers_changed:
                self._readers -= 1
                self._readers_changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock as the writer."""
        with self._entrance:
            with self._readers_changed:
                self._readers_changed.wait_for(lambda: self._readers == 0)
            yield
