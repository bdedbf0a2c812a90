"""Visitors of a service: threads that repeat an action, and their requests."""

import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.clients import Answer, Client, RequestFailed

REST = 0.05
"""Seconds that a visitor waits without work or after a failed request."""

_BUSY, _BUSY_SECONDS = 429, 0.2
_PAGE = 1000


@contextmanager
def visiting(works: Sequence[Callable[[], None]], failed: Callable[[str], None]) -> Iterator[None]:
    """Repeat all works concurrently until the block ends. failed: called with the exception of a work."""
    stop = threading.Event()

    def go_on(work: Callable[[], None]) -> None:
        while not stop.is_set():
            try:
                work()
            except Exception as error:
                failed(f"{_name_of_work(error)}: {error!r}")
                time.sleep(REST)

    threads = [threading.Thread(target=go_on, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _name_of_work(error: Exception) -> str:
    """That of the function which a visitor's thread called."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[min(1, len(frames) - 1)].name


def asked(client: Client, path: str, body: bytes, wanted: int) -> Any:
    """The answer to a form, with retries while the service is busy. Raises RequestFailed."""
    while (answer := client.send("POST", path, body)).status == _BUSY:
        time.sleep(_BUSY_SECONDS)
    return json.loads(required(answer, wanted).body)


def required(answer: Answer, *wanted: int) -> Answer:
    """The answer. Raises RequestFailed unless its status is an expected one."""
    if answer.status not in wanted:
        raise RequestFailed(f"answered {answer.status} where {wanted} was right: {answer.body[:300]!r}")
    return answer


def listed(get: Callable[[str], bytes]) -> Iterator[Any]:
    """All crops of a gallery. get: returns the body of a path's answer."""
    cursor = ""
    while cursor is not None:
        page = json.loads(get(f"/crops?limit={_PAGE}{cursor}"))
        yield from page["items"]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
