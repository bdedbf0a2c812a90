"""Health, metrics and models over HTTP."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database
from app.errors import NotReady, problem_responses
from app.gallery.answering import Answering
from app.gallery.model_repository import ModelRepository
from app.gallery.repository import GalleryRepository
from app.index.port import IndexLost, IndexUnreachable, VectorIndex
from app.index.sync import IndexNotReady
from app.kit.provide import provided
from app.security import require_api_key
from app.status.schemas import Alive, ModelOut, Ready

DatabaseDep = Annotated[Database, Depends(provided(Database))]
AnsweringDep = Annotated[Answering, Depends(provided(Answering))]
RegistryDep = Annotated[CollectorRegistry, Depends(provided(CollectorRegistry))]

health = APIRouter(tags=["service"])
router = APIRouter(tags=["service"], dependencies=[Depends(require_api_key)])


@health.get("/health/live", summary="Is the process alive?")
async def live() -> Alive:
    """Answers as long as the process can answer anything."""
    return Alive()


@health.get(
    "/health/ready",
    summary="Does everything work?",
    responses={503: problem_responses(503)[503]},
)
async def ready(answering: AnsweringDep, database: DatabaseDep) -> Ready:
    """Green once the model is loaded and warm, has embedded all crops, the index is in step and the database answers.

    Where crops are still to be embedded with the model that is to answer, the problem tells `embedded` and `total`.
    """
    model = answering.now
    broken = [] if answering.trouble is None or not answering.ready else [answering.trouble]
    if model.embedding.trouble is not None:
        broken.append(f"the model does not run: {model.embedding.trouble}")
    gallery_size = 0
    try:
        gallery_size = await asyncio.to_thread(_size, model.index.index)
    except (IndexNotReady, IndexUnreachable, IndexLost) as error:
        broken.append(str(error))
    try:
        change = await _change(database)
    except (SQLAlchemyError, OSError) as error:
        raise NotReady("; ".join([*broken, f"the database does not answer ({type(error).__name__})"])) from error
    if (not_ready := await answering.not_ready(*broken)) is not None:
        raise not_ready
    if broken:
        raise NotReady("; ".join(broken))
    following = answering.next
    return Ready(
        model_id=model.id,
        gallery_size=gallery_size,
        next_model_id=None if following is None else following.id,
        embedded=change and change[0],
        total=change and change[1],
    )


async def _change(database: Database) -> tuple[int, int] | None:
    """How many crops the model has embedded that is to take over, and of how many; None where there is none."""
    async with database.read() as session:
        repository = ModelRepository(session)
        following = (await repository.active()).following
        if following is None:
            return None
        return await repository.count_embeddings(following), await repository.count_crops()


def _size(index: VectorIndex) -> int:
    """For a thread: where a server keeps the index, it is asked."""
    return index.size


@router.get("/models", summary="The models", responses=problem_responses(503))
async def models(answering: AnsweringDep, database: DatabaseDep) -> list[ModelOut]:
    """The model in use first, then others whose embeddings the gallery still holds."""
    async with database.read() as session:
        counts = await GalleryRepository(session).embedding_counts()
    metadata = answering.now.embedding.metadata
    in_use = ModelOut(
        model_id=metadata.model_id,
        in_use=answering.ready,
        crops=counts.get(metadata.model_id, 0),
        architecture=f"MGN ({metadata.architecture.name}) on {metadata.architecture.backbone}",
        input_size=metadata.input.size,
        runs_on=answering.now.embedding.runs_on,
        training_data=metadata.training_data,
        results=list(metadata.results),
    )
    others = [
        ModelOut(model_id=model_id, in_use=False, crops=crops)
        for model_id, crops in sorted(counts.items())
        if model_id != metadata.model_id
    ]
    return [in_use, *others]


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **problem_responses()},
)
async def metrics(registry: RegistryDep) -> Response:
    """Counters and histograms in Prometheus' text format."""
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
