"""Client threads that repeat an action on a service, and the requests that their kinds share."""

import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from bench.clients import Answer, Client, RequestFailed

PAUSE_SECONDS = 0.05
"""How long a client waits where it has nothing to do, and after a failed request."""

BUSY_SECONDS = 0.2
"""How long a client waits after status 429."""

MIN_SELF_SIMILARITY = 0.999
"""Of a crop to its own picture, if one model embedded both; stored embeddings are rounded to float16."""

_PAGE = 1000


@contextmanager
def client_threads(actions: Sequence[Callable[[], None]], on_error: Callable[[str], None]) -> Iterator[None]:
    """Repeat each action in a thread of its own until the block ends. on_error: called with a failed action's error."""
    stop = threading.Event()

    def repeat(action: Callable[[], None]) -> None:
        while not stop.is_set():
            try:
                action()
            except Exception as error:
                on_error(f"{_action_name(error)}: {error!r}")
                time.sleep(PAUSE_SECONDS)

    threads = [threading.Thread(target=repeat, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _action_name(error: Exception) -> str:
    """The name of the function that the client's thread was running."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[min(1, len(frames) - 1)].name


def post_form(client: Client, path: str, body: bytes, expected: int) -> Any:
    """Post a form, with retries while the service is busy; returns the parsed answer. Raises RequestFailed."""
    while (answer := client.send("POST", path, body)).status == HTTPStatus.TOO_MANY_REQUESTS:
        time.sleep(BUSY_SECONDS)
    return json.loads(expect_status(answer, expected).body)


def expect_status(answer: Answer, *expected: int) -> Answer:
    """Return the answer. Raises RequestFailed if its status is unexpected."""
    if answer.status not in expected:
        raise RequestFailed(f"answered {answer.status}, expected {expected}: {answer.body[:300]!r}")
    return answer


def list_crops(get: Callable[[str], bytes]) -> Iterator[Any]:
    """All crops of a gallery, page by page. get: returns the body of the answer to a path."""
    cursor = ""
    while cursor is not None:
        page = json.loads(get(f"/crops?limit={_PAGE}{cursor}"))
        yield from page["items"]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
