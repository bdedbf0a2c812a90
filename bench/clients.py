"""Cheap HTTP clients, the same for every side of a comparison; request bodies are built in advance."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

_BOUNDARY = "a-boundary-that-no-picture-holds"
_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"
_TIMEOUT_SECONDS = 600

CAPTURED_AT = "2026-05-04T17:30:00Z"
"""The time of every crop that is posted here."""

MAX_TOP_K = 1000
"""The most matches that one search may ask for."""


@dataclass(frozen=True)
class Load:
    """Concurrent clients, each of which posts `requests` requests of `crops` crops in a round."""

    clients: int
    crops: int
    requests: int

    @property
    def total(self) -> int:
        """The number of crops in a round."""
        return self.clients * self.crops * self.requests

    def __str__(self) -> str:
        return f"{self.clients} clients x {self.crops}"


@dataclass(frozen=True)
class Answer:
    """The response to a request."""

    status: int
    body: bytes


class RequestFailed(Exception):
    """A request got an unexpected answer."""


class NotAnswered(RequestFailed):
    """A request got no answer."""


def multipart(files: Sequence[bytes], fields: Mapping[str, str]) -> bytes:
    """The body of a form with its fields, and the files, all under the name `files`."""
    chunks = [_part(f'name="{name}"', value.encode()) for name, value in fields.items()]
    content_type = "\r\nContent-Type: image/jpeg"
    chunks += [_part(f'name="files"; filename="{i}.jpg"{content_type}', content) for i, content in enumerate(files)]
    return b"".join(chunks) + f"--{_BOUNDARY}--\r\n".encode()


def _part(disposition: str, content: bytes) -> bytes:
    head = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return head.encode() + content + b"\r\n"


def raw_post(path: str, body: bytes) -> bytes:
    """All bytes of a request that posts a form, for clients that send only a part of them or read no answer."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Client:
    """One keep-alive connection; not thread-safe."""

    def __init__(self, port: int, timeout: float = _TIMEOUT_SECONDS) -> None:
        """timeout: seconds to wait for an answer."""
        self._connection = HTTPConnection("127.0.0.1", port, timeout=timeout)

    def send(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Send a request and wait for its answer, of any status. Raises NotAnswered without one."""
        try:
            self._connection.request(method, path, body, {"Content-Type": _TYPE} if body else {})
            answer = self._connection.getresponse()
            return Answer(answer.status, answer.read())
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise NotAnswered(f"{method} {path} was not answered: {error!r}") from error

    def post(self, path: str, body: bytes, expected: int) -> bytes:
        """Post a form; returns the body of the answer. Raises RequestFailed if its status is unexpected."""
        answer = self.send("POST", path, body)
        if answer.status != expected:
            raise RequestFailed(f"POST {path} was answered {answer.status}: {answer.body[:500]!r}")
        return answer.body

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def post_all(port: int, clients: int, path: str, bodies: Sequence[bytes], expected: int) -> tuple[float, list[bytes]]:
    """Post all bodies, split evenly between concurrent clients; returns the seconds that it took, and the answers.

    Raises RequestFailed if a status is unexpected; then the other clients stop too.
    """
    failed = threading.Event()

    def post(share: Sequence[bytes]) -> list[bytes]:
        with closing(Client(port)) as client:
            try:
                return [client.post(path, body, expected) for body in share if not failed.is_set()]
            except RequestFailed:
                failed.set()
                raise

    shares = [bodies[i::clients] for i in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        try:
            answers = list(pool.map(post, shares))
        except BaseException:  # also KeyboardInterrupt and SystemExit
            failed.set()
            raise
        seconds = time.perf_counter() - began
    return seconds, [answer for share in answers for answer in share]
