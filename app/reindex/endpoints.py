"""Changing the model over HTTP."""

from pathlib import PurePath
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Path, UploadFile, status

from app.errors import InvalidRequest, problem_responses
from app.kit.provide import provided
from app.reindex.schemas import ReindexOut, UnreadableOut
from app.reindex.service import Progress, ReindexService

router = APIRouter(tags=["service"])

ReindexDep = Annotated[ReindexService, Depends(provided(ReindexService))]
ModelIdPath = Annotated[str, Path(description="A model's id, as `GET /models` tells it", max_length=128)]


@router.post(
    "/reindex",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Let another model answer",
    responses=problem_responses(400, 404, 409, 413, 422, 503),
)
async def begin(
    service: ReindexDep,
    checkpoint: Annotated[UploadFile | None, File(description="A .onnx or .safetensors checkpoint")] = None,
    model_id: Annotated[
        str | None,
        Form(description="Or the id of a model that is kept, such as the one that answered before", max_length=128),
    ] = None,
    lossy: Annotated[
        bool,
        Form(description="Take over even where many stored pictures cannot be read; their crops are not found then"),
    ] = False,
) -> ReindexOut:
    """Embeds all stored pictures with another checkpoint, in the background, then answers by that one.

    Until then the present model answers; a search is answered by one of them from end to end. `GET /reindex` tells how
    far it is. It goes on by itself where a service was stopped. Posting the same checkpoint again changes nothing, but
    pictures that could not be read are tried again.
    """
    if (checkpoint is None) == (not model_id):
        raise InvalidRequest("give either checkpoint or model_id: which model is to answer?", "checkpoint")
    if checkpoint is not None:
        name = PurePath(checkpoint.filename or "checkpoint").name
        return _told(await service.begin(checkpoint.file, name, lossy))
    return _told(await service.begin_again(str(model_id), lossy))


@router.get("/reindex", summary="How far is the next model?", responses=problem_responses(503))
async def progress(service: ReindexDep) -> ReindexOut:
    """Which model answers, which one is to take over, and how many crops that has embedded."""
    return _told(await service.progress())


@router.delete(
    "/reindex",
    summary="Give up the next model",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(404, 409, 503),
)
async def give_up(service: ReindexDep) -> None:
    """The present model goes on answering; what was embedded with the next one is deleted in the background."""
    await service.give_up()


@router.delete(
    "/models/{model_id}",
    summary="Drop a model's embeddings",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(404, 409, 422, 503),
)
async def drop(service: ReindexDep, model_id: ModelIdPath) -> None:
    """Deletes, in the background, the embeddings of a model that answers no more; it cannot answer again then."""
    await service.drop(model_id)


def _told(progress: Progress) -> ReindexOut:
    answering, following = progress.answering, progress.following
    speed = following and following.crops_per_second
    left = max(0, progress.total - progress.done - progress.unreadable)
    state = "idle" if following is None else "held" if progress.held else "embedding"
    return ReindexOut(
        state=state,
        answering_model_id=answering and answering.model_id,
        answering_checkpoint=answering and PurePath(answering.checkpoint).stem,
        model_id=following and following.model_id,
        checkpoint=following and PurePath(following.checkpoint).stem,
        done=progress.done,
        total=progress.total,
        crops_per_second=speed,
        seconds_left=left / speed if speed else None,
        trouble=progress.trouble,
        unreadable=progress.unreadable,
        unreadable_crops=[UnreadableOut(crop_id=crop_id, problem=problem) for crop_id, problem in progress.listed],
        dropping=progress.dropping,
    )
