"""`passerby demo`: starts a service, imports crops, searches, and prints each step."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from app.client.errors import ClientError
from app.client.importing import import_items, show_source, show_summary
from app.client.searching import Found, search, show_matches
from app.client.sources import Source, SourceItem, read_source
from model.datasets.synthetic import DRAWN_PEOPLE
from passerby import AsyncClient, SearchOptions, ServiceError, UploadSummary

HOST = "127.0.0.1"
PREFERRED_PORT = 8000
TOP_K = 10

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0

# The demo must not write into the operator's gallery or need the operator's key.
_NOT_FOR_THE_DEMO = tuple(f"PASSERBY_{name}" for name in ("API_KEY", "DATABASE_URL", "IMAGES_URL", "INDEX_URL"))


@dataclass(frozen=True)
class Trial:
    """The query's crop, the gallery's crops, and the cameras to leave out of the search."""

    query: SourceItem
    gallery: tuple[SourceItem, ...]
    exclude_camera_ids: tuple[str, ...]
    seen_elsewhere: tuple[str, ...]
    """The other cameras that saw the query's person, where the source has person ids."""


def run_demo(data: Path | None, camera_id: str | None, port: int | None, check: bool, console: Console) -> int:
    """Import, search and show; then run until Ctrl-C, or stop with `check`; the exit code. Raises PasserbyError.

    data: any source of an import, by default the drawn crops that are shipped; port: by default a free one.
    """
    with tempfile.TemporaryDirectory(prefix="passerby-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _step(console, 1, "A gallery")
        source = _drawn_source(console) if data is None else _read(data, camera_id, console)
        show_source(source, console)
        trial = choose_trial(source.items)
        if check and not trial.seen_elsewhere:
            raise ClientError(f"there is nothing to check: {data} has no person whom two cameras saw")
        port = _loopback_port(port)
        _step(console, 2, "The service")
        with _service(folder, port, console) as (url, process):
            console.print(f"Ready at {url}; it embeds on {asyncio.run(_runs_on(url))}", soft_wrap=True)
            _step(console, 3, "The import")
            summary = UploadSummary()
            import_items(trial.gallery, _client(url), summary, console)
            show_summary(summary, trial.gallery, None, console)
            _step(console, 4, "The search")
            found = _search(trial, url, console)
            show_matches(found, None, console)
            is_first = _check_first(trial, found, console)
            if check:
                return 0 if is_first else 1
            _stay_up(url, folder, process, console)
            return 0


def choose_trial(items: Sequence[SourceItem]) -> Trial:
    """A trial with the first crop of the person whom most cameras saw, or the first of all if no person is known.

    The query's camera is left out of the search if there are others, so every match is across cameras.
    """
    cameras: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.person_id is not None:
            cameras[item.person_id].add(item.camera_id)
    person_id = min(cameras, key=lambda person: (-len(cameras[person]), person), default=None)
    position = next(i for i, item in enumerate(items) if item.person_id == person_id)
    query = items[position]
    gallery = (*items[:position], *items[position + 1 :])
    in_gallery = {item.camera_id for item in gallery}
    leave_out = query.camera_id in in_gallery and len(in_gallery) > 1
    return Trial(
        query,
        gallery,
        exclude_camera_ids=(query.camera_id,) if leave_out else (),
        seen_elsewhere=tuple(sorted(cameras.get(person_id or "", set()) - {query.camera_id})),
    )


def _step(console: Console, number: int, title: str) -> None:
    console.print(f"\n[bold]{number}. {title}[/]", highlight=False)


def _drawn_source(console: Console) -> Source:
    console.print("Drawn people, each as several cameras see them")
    return read_source(DRAWN_PEOPLE)


def _read(data: Path, camera_id: str | None, console: Console) -> Source:
    with console.status(f"Reading {escape(str(data))}"):
        return read_source(data, camera_id)


def _loopback_port(wanted: int | None) -> int:
    """A free port."""
    for port in (wanted,) if wanted else (PREFERRED_PORT, 0):
        with socket.socket() as probe:
            if os.name == "posix":  # ignores connections in TIME_WAIT; on Windows it would share ports
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ClientError(f"port {wanted} is in use; without --port the demo takes a free one")


@contextmanager
def _service(folder: Path, port: int, console: Console) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a service in a separate process; yields its URL when it is ready."""
    log, data_dir = folder / "service.log", folder / "data"
    serve = ("serve", "--host", HOST, "--port", str(port), "--data-dir", str(data_dir))
    console.print(f"passerby {' '.join(serve)}", highlight=False, soft_wrap=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            (sys.executable, "-P", "-m", "app.cli", *serve),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd=folder,  # without the settings in the operator's working folder
        )
    try:
        url = f"http://{HOST}:{port}"
        with console.status("Loading the model"):
            if not asyncio.run(_ready(url, process)):
                raise ClientError(f"the service did not start; it says:\n{_tail(log)}")
        yield url, process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment() -> Mapping[str, str]:
    """The environment of a service in another working folder, with this package first in PYTHONPATH."""
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_THE_DEMO}
    if checkpoint := kept.get("PASSERBY_CHECKPOINT"):
        kept["PASSERBY_CHECKPOINT"] = str(Path(checkpoint).resolve())
    reach = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(reach)}


def _client(url: str) -> AsyncClient:
    """A client without the operator's key."""
    return AsyncClient(url, api_key="")


async def _ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    async with _client(url) as client:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while process.poll() is None:
                    try:
                        await client.get_ready()
                    except ServiceError:
                        await asyncio.sleep(0.2)
                    else:
                        return True
        except TimeoutError:
            pass
    return False


async def _runs_on(url: str) -> str | None:
    async with _client(url) as client:
        return (await client.list_models())[0].runs_on


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _search(trial: Trial, url: str, console: Console) -> Found:
    query = trial.query
    console.print(
        f"The query, which is not in the gallery: {query.path}", markup=False, highlight=False, soft_wrap=True
    )
    if query.person_id:
        others = f"; also seen by {', '.join(trial.seen_elsewhere)}" if trial.seen_elsewhere else ""
        console.print(f"It shows person {query.person_id}, by {query.camera_id}{others}", markup=False, highlight=False)
    if trial.exclude_camera_ids:
        console.print(
            f"Left out: crops by {query.camera_id}, so that every match is by another camera", highlight=False
        )
    options: SearchOptions = {"exclude_camera_ids": trial.exclude_camera_ids, "top_k": TOP_K}
    return asyncio.run(search(_client(url), [query.path], [], options))


def _check_first(trial: Trial, found: Found, console: Console) -> bool:
    """Whether the query's person is ranked first; False without output where that cannot be checked."""
    if not trial.seen_elsewhere:
        return False
    first = found.answer.matches[0].crop.person_id if found.answer.matches else None
    is_first = first == trial.query.person_id
    verdict = "[green]is first[/]" if is_first else f"[red]is not first[/], but {escape(first or 'nobody')} is"
    console.print(f"The query's person, {escape(trial.query.person_id or '')}, {verdict}", highlight=False)
    return is_first


def _stay_up(url: str, folder: Path, process: subprocess.Popen[bytes], console: Console) -> None:
    _step(console, 5, "Your turn")
    console.print(f"Try it in the browser: {url}/docs", soft_wrap=True)
    console.print("Keep a gallery of your own: passerby serve, and in a second terminal passerby import FOLDER")
    console.print(f"This one is in {folder} until the demo stops. Ctrl-C stops it.", soft_wrap=True)
    try:
        process.wait()
    except KeyboardInterrupt:
        console.print("Stopped")
        return
    raise ClientError(f"the service ended by itself; it says:\n{_tail(folder / 'service.log')}")
