"""A lock for threads that lets many readers in together, or one writer alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadersWriterLock:
    """Many readers together or one writer alone. A waiting writer holds back the readers that come after it.

    So a stream of readers cannot starve a writer, and a reader waits no longer than for the readers that run and
    the writers that came before it. Not reentrant: a thread that holds the lock must not ask for it again.
    """

    def __init__(self) -> None:
        self._entrance = threading.Lock()
        self._readers = 0
        self._readers_changed = threading.Condition()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
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
        """Hold the lock alone."""
        with self._entrance:
            with self._readers_changed:
                self._readers_changed.wait_for(lambda: self._readers == 0)
            yield
