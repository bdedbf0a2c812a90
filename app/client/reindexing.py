"""`passerby reindex`: lets another checkpoint answer, and shows how far that is."""

import asyncio
import hashlib
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.client.errors import ClientError, Unreachable
from app.client.http import ReindexAnswer, ServiceClient
from app.client.importing import INTERRUPTED

_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0  # for a service that is being started again
_LISTED = 20


def run_reindex(model: str, lossy: bool, url: str, console: Console) -> int:
    """Let a model take over and wait until it does: the exit code. Raises ClientError.

    model: a checkpoint's file, or the id of a model that answered before. The work is the service's: whatever stops
    this, running it again shows how far that is.
    """
    try:
        return asyncio.run(_run(model, lossy, url, console))
    except KeyboardInterrupt:
        console.print("[yellow]Not watched any more.[/] The service goes on; the same command shows how far it is.")
        return INTERRUPTED


def give_up(url: str, console: Console) -> int:
    """Let the model that was to take over not do so: the exit code. Raises ClientError."""
    asyncio.run(_give_up(url))
    console.print("Given up. The present model goes on answering; what was embedded with the other is being deleted.")
    return 0


async def _give_up(url: str) -> None:
    async with ServiceClient.at(url) as service:
        await service.give_up_reindex()


async def _run(model: str, lossy: bool, url: str, console: Console) -> int:
    async with ServiceClient.at(url) as service:
        told = await service.reindex()
        if _answers(told, model):
            console.print(f"{told.answering_model_id} answers already.")
            return 0
        if lossy or not _is_next(told, model) or told.state == "held":
            told = await _begin(service, model, lossy)
        return await _watch(service, told, console)


def _answers(told: ReindexAnswer, model: str) -> bool:
    if Path(model).is_file():
        return _sha256(Path(model)) == told.answering_checkpoint
    return model == told.answering_model_id


def _is_next(told: ReindexAnswer, model: str) -> bool:
    if Path(model).is_file():
        return _sha256(Path(model)) == told.checkpoint
    return model == told.model_id


async def _begin(service: ServiceClient, model: str, lossy: bool) -> ReindexAnswer:
    path = Path(model)
    if path.suffix in (".onnx", ".safetensors"):  # which no model's id ends in
        return await service.begin_reindex(path, lossy)
    return await service.begin_reindex_again(model, lossy)


async def _watch(service: ServiceClient, told: ReindexAnswer, console: Console) -> int:
    wanted = told.model_id
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("reindex", total=None, speed="")
        while told.model_id == wanted:
            speed = f"{told.crops_per_second:.0f} crops/s" if told.crops_per_second else ""
            bar.update(task, total=told.total, completed=told.done, speed=speed)
            if told.state == "held":
                bar.stop()
                console.print(
                    f"{wanted} is held: {told.trouble or 'see GET /reindex'}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
                return 1
            await asyncio.sleep(_LOOK_SECONDS)
            told = await _look(service)
        bar.update(task, total=told.total, completed=told.done, speed="")
    return _show_end(told, wanted, console)


async def _look(service: ServiceClient) -> ReindexAnswer:
    waited = 0.0
    while True:
        try:
            return await service.reindex()
        except Unreachable:
            if waited >= _PATIENCE_SECONDS:
                raise
            await asyncio.sleep(_LOOK_SECONDS)
            waited += _LOOK_SECONDS


def _show_end(told: ReindexAnswer, wanted: str | None, console: Console) -> int:
    if told.answering_model_id != wanted:
        console.print(f"{wanted} was given up; {told.answering_model_id or 'no model'} answers.")
        return 1
    console.print(f"{wanted} answers.")
    if not told.unreadable:
        return 0
    console.print(f"{told.unreadable:,} crops could not be embedded, so it does not find them:")
    for one in told.unreadable_crops[:_LISTED]:
        console.print(f"  {one.crop_id}: {one.problem}", markup=False, highlight=False, soft_wrap=True)
    if told.unreadable > _LISTED:
        console.print(f"  and {told.unreadable - _LISTED:,} more")
    return 1


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror}") from error
