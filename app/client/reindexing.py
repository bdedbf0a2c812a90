"""`passerby reindex`: switches to another model, and shows the progress."""

import asyncio
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.client.errors import ClientError
from app.client.importing import INTERRUPTED
from model.errors import counted
from model.files import file_sha256
from passerby import AsyncClient, ReindexOut, Unreachable

_POLL_SECONDS = 0.5
_MAX_WAIT_SECONDS = 60.0  # for a service that restarts
_LISTED = 20


def run_reindex(model: str, allow_missing: bool, url: str, console: Console) -> int:
    """Switch to a model and wait until it is active; the exit code. Raises PasserbyError.

    model: a checkpoint's file, or the id of a model that was active before. The service does the work: after an
    interruption, the same command shows the progress again.
    """
    try:
        return asyncio.run(_run(model, allow_missing, url, console))
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted.[/] The service goes on; the same command shows the progress.")
        return INTERRUPTED


def cancel(url: str, console: Console) -> int:
    """Cancel the switch to the next model; the exit code. Raises PasserbyError."""
    asyncio.run(_cancel(url))
    console.print("Cancelled. The active model stays; the embeddings of the other one are being deleted.")
    return 0


async def _cancel(url: str) -> None:
    async with AsyncClient(url) as client:
        await client.cancel_reindex()


async def _run(model: str, allow_missing: bool, url: str, console: Console) -> int:
    checkpoint = Path(model) if model.endswith((".onnx", ".safetensors")) else None  # no model id ends in these
    async with AsyncClient(url) as client:
        status = await client.get_reindex()
        if checkpoint is not None:
            identity, active, next_id = _sha256(checkpoint), status.active_checkpoint, status.next_checkpoint
        else:
            identity, active, next_id = model, status.active_model_id, status.next_model_id
        if identity == active:
            console.print(f"{status.active_model_id} is already the active model.")
            return 0
        if allow_missing or identity != next_id or status.state == "blocked":
            if checkpoint is not None:
                status = await client.begin_reindex(checkpoint, allow_missing=allow_missing)
            else:
                status = await client.begin_reindex(model_id=model, allow_missing=allow_missing)
        return await _watch(client, status, console)


async def _watch(client: AsyncClient, status: ReindexOut, console: Console) -> int:
    model_id = status.next_model_id
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("reindex", total=None, speed="")
        while status.next_model_id == model_id:
            speed = f"{status.crops_per_second:.0f} crops/s" if status.crops_per_second else ""
            bar.update(task, total=status.total, completed=status.embedded, speed=speed)
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
            status = await _poll(client)
        bar.update(task, total=status.total, completed=status.embedded, speed="")
    return _show_end(status, model_id, console)


async def _poll(client: AsyncClient) -> ReindexOut:
    waited = 0.0
    while True:
        try:
            return await client.get_reindex()
        except Unreachable:
            if waited >= _MAX_WAIT_SECONDS:
                raise
            await asyncio.sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS


def _show_end(status: ReindexOut, model_id: str | None, console: Console) -> int:
    if status.active_model_id != model_id:
        console.print(f"{model_id} was cancelled; the active model is {status.active_model_id or 'none'}.")
        return 1
    console.print(f"{model_id} is the active model.")
    if not status.unreadable:
        return 0
    console.print(f"not embedded, so searches do not find them: {counted(status.unreadable, 'crop')}")
    for crop in status.unreadable_crops[:_LISTED]:
        console.print(f"  {crop.crop_id}: {crop.problem}", markup=False, highlight=False, soft_wrap=True)
    if status.unreadable > _LISTED:
        console.print(f"  and {status.unreadable - _LISTED:,} more")
    return 1


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror}") from error
