"""Reindexing over HTTP."""

from pathlib import PurePath
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Path, UploadFile, status

from app.errors import InvalidRequest
from app.kit.provide import provided
from app.models.schemas import ReindexOut, UnreadableOut
from app.models.service import ReindexProgress, ReindexService

router = APIRouter(tags=["service"])

ReindexDep = Annotated[ReindexService, Depends(provided(ReindexService))]
ModelIdPath = Annotated[str, Path(description="A model's id, as in `GET /models`", max_length=128)]


@router.post(
    "/reindex",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Switch to another model",
)
async def begin_reindex(
    service: ReindexDep,
    checkpoint: Annotated[UploadFile | None, File(description="A .onnx or .safetensors checkpoint")] = None,
    model_id: Annotated[
        str | None,
        Form(
            description="Or the id of a model whose checkpoint is stored, such as the previous active one",
            max_length=128,
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        Form(description="Switch even if many stored pictures cannot be read; searches do not find their crops then"),
    ] = False,
) -> ReindexOut:
    """Embeds all stored pictures with another checkpoint, in the background, then makes its model the active one.

    Until then searches use the present model; a search uses one model from start to end. `GET /reindex` shows the
    progress. A service that is restarted continues. Posting the same checkpoint again changes nothing, except that
    unreadable pictures are tried again.
    """
    if (checkpoint is None) == (not model_id):
        raise InvalidRequest("give either checkpoint or model_id: which model is to become active?", "checkpoint")
    if checkpoint is not None:
        name = PurePath(checkpoint.filename or "checkpoint").name
        return _out(await service.begin(checkpoint.file, name, allow_missing))
    return _out(await service.begin_stored(str(model_id), allow_missing))


@router.get("/reindex", summary="Progress of the next model")
async def get_reindex(service: ReindexDep) -> ReindexOut:
    """The active model, the next one, and how many crops the next one has embedded."""
    return _out(await service.progress())


@router.delete(
    "/reindex",
    summary="Cancel the switch to the next model",
    status_code=status.HTTP_204_NO_CONTENT,
)
async def cancel_reindex(service: ReindexDep) -> None:
    """The active model stays; the embeddings of the next one are deleted in the background."""
    await service.cancel()


@router.delete(
    "/models/{model_id}",
    summary="Delete a model's embeddings",
    status_code=status.HTTP_204_NO_CONTENT,
)
async def delete_model(service: ReindexDep, model_id: ModelIdPath) -> None:
    """Deletes, in the background, the embeddings of a model that is no longer active; it cannot be switched to then."""
    await service.drop(model_id)


def _out(progress: ReindexProgress) -> ReindexOut:
    active, next_model = progress.active, progress.next_model
    speed = next_model and next_model.crops_per_second
    left = max(0, progress.total - progress.embedded - progress.unreadable)
    state = "idle" if next_model is None else "blocked" if progress.blocked else "embedding"
    return ReindexOut(
        state=state,
        active_model_id=active and active.model_id,
        active_checkpoint=active and PurePath(active.checkpoint).stem,
        next_model_id=next_model and next_model.model_id,
        next_checkpoint=next_model and PurePath(next_model.checkpoint).stem,
        embedded=progress.embedded,
        total=progress.total,
        crops_per_second=speed,
        seconds_left=left / speed if speed else None,
        trouble=progress.trouble,
        unreadable=progress.unreadable,
        unreadable_crops=[
            UnreadableOut(crop_id=crop_id, problem=problem) for crop_id, problem in progress.unreadable_crops
        ],
        dropping=progress.dropping,
    )
