"""Batches concurrent requests of threads."""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class ThreadBatcher(Generic[Item, Result]):
    """Runs `work` in a limited number of the calling threads; requests that wait for a thread are batched.

    No thread is created: a caller that may run takes its own item and waiting items of the same group as one batch. So
    a single caller runs at once, as if it had called `work` itself. If a batch raises an exception, each of its items
    is run again alone, so that an invalid item fails only its own caller. `AsyncBatcher` does the same for coroutines.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]], threads: int, max_batch: int) -> None:
        """work: returns the result of each item, in their order.

        threads: number of threads that run `work` at once. max_batch: number of items of a batch.
        """
        self._work = work
        self._free_threads = threads
        self._max_batch = max_batch
        self._waiting: deque[_Request[Item, Result]] = deque()
        self._lock = threading.Lock()

    def run(self, item: Item, group: Hashable | None) -> Result:
        """The result of an item. Raises what `work` raises.

        group: items of the same group may share a batch; an item whose group is None is run alone.
        """
        request = _Request[Item, Result](item, group)
        with self._lock:
            must_wait = not self._free_threads
            if must_wait:
                self._waiting.append(request)
            else:
                self._free_threads -= 1
        if must_wait:
            request.wake_up.acquire()
        if not request.done:
            self._run_batch(request)
        if request.error is not None:
            raise request.error
        return request.results[0]

    def _run_batch(self, request: "_Request[Item, Result]") -> None:
        """Run a request and waiting ones of its group; then wake the next waiting thread to run."""
        with self._lock:
            batched = [other for other in self._waiting if request.can_share(other)][: self._max_batch - 1]
            for other in batched:
                self._waiting.remove(other)
        self._settle([request, *batched])
        with self._lock:
            following = [self._waiting.popleft()] if self._waiting else []
            if not following:
                self._free_threads += 1
        for other in (*batched, *following):
            other.wake_up.release()

    def _settle(self, requests: "Sequence[_Request[Item, Result]]") -> None:
        try:
            results = self._work([request.item for request in requests])
            for request, result in zip(requests, results, strict=True):
                request.results.append(result)
        except BaseException as error:
            if len(requests) > 1 and isinstance(error, Exception):
                for request in requests:
                    self._settle([request])
                return
            for request in requests:
                request.error = error


class _Request(Generic[Item, Result]):
    """An item, and its result once there is one."""

    def __init__(self, item: Item, group: Hashable | None) -> None:
        self.item = item
        self.group = group
        self.results: list[Result] = []
        self.error: BaseException | None = None
        self.wake_up = threading.Lock()  # released when the request is done, or when its thread should run a batch
        self.wake_up.acquire()

    @property
    def done(self) -> bool:
        return bool(self.results) or self.error is not None

    def can_share(self, other: "_Request[Item, Result]") -> bool:
        return self.group is not None and self.group == other.group
