"""`passerby reindex`: switches to another model, and shows the progress."""

import asyncio
import hashlib
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.client.errors import ClientError, Unreachable
from app.client.http import ReindexAnswer, ServiceClient
from app.client.importing import INTERRUPTED

_POLL_SECONDS = 0.5
_MAX_WAIT_SECONDS = 60.0  # for a service that restarts
_LISTED = 20


def run_reindex(model: str, allow_missing: bool, url: str, console: Console) -> int:
    """Switch to a model and wait until it is active; the exit code. Raises ClientError.

    model: a checkpoint's file, or the id of a model that was active before. The service does the work: after an
    interruption, the same command shows the progress again.
    """
    try:
        return asyncio.run(_run(model, allow_missing, url, console))
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted.[/] The service goes on; the same command shows the progress.")
        return INTERRUPTED


def cancel(url: str, console: Console) -> int:
    """Cancel the switch to the next model; the exit code. Raises ClientError."""
    asyncio.run(_cancel(url))
    console.print("Cancelled. The active model stays; the embeddings of the other one are being deleted.")
    return 0


async def _cancel(url: str) -> None:
    async with ServiceClient.at(url) as service:
        await service.cancel_reindex()


async def _run(model: str, allow_missing: bool, url: str, console: Console) -> int:
    async with ServiceClient.at(url) as service:
        status = await service.reindex()
        if _is_active(status, model):
            console.print(f"{status.answering_model_id} is already the active model.")
            return 0
        if allow_missing or not _is_next(status, model) or status.state == "blocked":
            status = await _begin(service, model, allow_missing)
        return await _watch(service, status, console)


def _is_active(status: ReindexAnswer, model: str) -> bool:
    if Path(model).is_file():
        return _sha256(Path(model)) == status.answering_checkpoint
    return model == status.answering_model_id


def _is_next(status: ReindexAnswer, model: str) -> bool:
    if Path(model).is_file():
        return _sha256(Path(model)) == status.checkpoint
    return model == status.model_id


async def _begin(service: ServiceClient, model: str, allow_missing: bool) -> ReindexAnswer:
    path = Path(model)
    if path.suffix in (".onnx", ".safetensors"):  # no model id ends in these
        return await service.begin_reindex(path, allow_missing)
    return await service.begin_reindex_stored(model, allow_missing)


async def _watch(service: ServiceClient, status: ReindexAnswer, console: Console) -> int:
    model_id = status.model_id
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("reindex", total=None, speed="")
        while status.model_id == model_id:
            speed = f"{status.crops_per_second:.0f} crops/s" if status.crops_per_second else ""
            bar.update(task, total=status.total, completed=status.done, speed=speed)
            if status.state == "blocked":
                bar.stop()
                console.print(
                    f"{model_id} is blocked: {status.trouble or 'see GET /reindex'}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
                return 1
            await asyncio.sleep(_POLL_SECONDS)
            status = await _poll(service)
        bar.update(task, total=status.total, completed=status.done, speed="")
    return _show_end(status, model_id, console)


async def _poll(service: ServiceClient) -> ReindexAnswer:
    waited = 0.0
    while True:
        try:
            return await service.reindex()
        except Unreachable:
            if waited >= _MAX_WAIT_SECONDS:
                raise
            await asyncio.sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS


def _show_end(status: ReindexAnswer, model_id: str | None, console: Console) -> int:
    if status.answering_model_id != model_id:
        console.print(f"{model_id} was cancelled; the active model is {status.answering_model_id or 'none'}.")
        return 1
    console.print(f"{model_id} is the active model.")
    if not status.unreadable:
        return 0
    console.print(f"{status.unreadable:,} crops could not be embedded, so searches do not find them:")
    for crop in status.unreadable_crops[:_LISTED]:
        console.print(f"  {crop.crop_id}: {crop.problem}", markup=False, highlight=False, soft_wrap=True)
    if status.unreadable > _LISTED:
        console.print(f"  and {status.unreadable - _LISTED:,} more")
    return 1


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror}") from error
