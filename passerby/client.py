"""The client of a service for programs without an event loop."""

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from passerby.async_client import AsyncClient

P = ParamSpec("P")
R = TypeVar("R")

_END = object()


def _waiting(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate["Client", P], R]:
    """A method of Client that waits for the method of AsyncClient."""

    @wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._wait(method(self._client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[AsyncClient, P], AsyncIterator[R]],
) -> Callable[Concatenate["Client", P], Iterator[R]]:
    """A method of Client that iterates over what the method of AsyncClient yields."""

    @wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        items = method(self._client, *args, **kwargs)

        async def step() -> Any:
            return await anext(items, _END)

        while (item := self._wait(step())) is not _END:
            yield item

    return call


class Client:
    """AsyncClient for programs without an event loop: the same methods, each of which waits for its answer.

    It runs in a thread of its own, and any number of threads may use it.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        """See AsyncClient."""
        self._client = AsyncClient(url, api_key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self._loop, self._client), name="passerby-client", daemon=True
        )
        self._thread.start()
        self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    @property
    def url(self) -> str:
        """The URL of the service, without a slash at its end."""
        return self._client.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread."""
        self._stop()
        self._thread.join()

    def absolute(self, link: str) -> str:
        """A link of an answer, such as its `sheet_url`, as a whole URL."""
        return self._client.absolute(link)

    def _wait(self, work: Coroutine[Any, Any, R]) -> R:
        if self._loop.is_closed() or threading.current_thread() is self._thread:
            work.close()
            why = "it is closed" if self._loop.is_closed() else "its own thread, as in a progress callback, cannot wait"
            raise RuntimeError(f"this client cannot be used: {why}")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C, too, ends the request
            future.cancel()
            raise

    search = _waiting(AsyncClient.search)
    get_search = _waiting(AsyncClient.get_search)
    get_sheet = _waiting(AsyncClient.get_sheet)
    list_searches = _waiting(AsyncClient.list_searches)
    searches = _iterating(AsyncClient.searches)
    delete_search = _waiting(AsyncClient.delete_search)
    embed = _waiting(AsyncClient.embed)
    embed_frame = _waiting(AsyncClient.embed_frame)
    upload = _waiting(AsyncClient.upload)
    list_crops = _waiting(AsyncClient.list_crops)
    crops = _iterating(AsyncClient.crops)
    get_crop = _waiting(AsyncClient.get_crop)
    get_crop_image = _waiting(AsyncClient.get_crop_image)
    patch_crop = _waiting(AsyncClient.patch_crop)
    patch_crops = _waiting(AsyncClient.patch_crops)
    delete_crop = _waiting(AsyncClient.delete_crop)
    delete_crops = _waiting(AsyncClient.delete_crops)
    list_cameras = _waiting(AsyncClient.list_cameras)
    get_camera = _waiting(AsyncClient.get_camera)
    put_camera = _waiting(AsyncClient.put_camera)
    delete_camera = _waiting(AsyncClient.delete_camera)
    list_models = _waiting(AsyncClient.list_models)
    delete_model = _waiting(AsyncClient.delete_model)
    begin_reindex = _waiting(AsyncClient.begin_reindex)
    get_reindex = _waiting(AsyncClient.get_reindex)
    cancel_reindex = _waiting(AsyncClient.cancel_reindex)
    get_live = _waiting(AsyncClient.get_live)
    get_ready = _waiting(AsyncClient.get_ready)
    wait_until_ready = _waiting(AsyncClient.wait_until_ready)
    get_metrics = _waiting(AsyncClient.get_metrics)


def _run(loop: asyncio.AbstractEventLoop, client: AsyncClient) -> None:
    loop.run_forever()
    loop.run_until_complete(client.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
