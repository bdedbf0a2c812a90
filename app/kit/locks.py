"""What threads wait at: a lock for many readers together or one writer alone, and a limit to how many go on at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue


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


class AtMost:
    """A context that so many threads may be in at once; others wait before it.

    What the standard library has for it, `BoundedSemaphore`, is itself Python, which costs a thread that waits its turn
    more of the interpreter's lock than this.
    """

    def __init__(self, threads: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(threads):
            self._free.put(None)

    def __enter__(self) -> None:
        self._free.get()

    def __exit__(self, *_: object) -> None:
        self._free.put(None)
