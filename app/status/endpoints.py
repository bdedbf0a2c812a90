"""Health, metrics and models over HTTP."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database, DatabaseReplaced
from app.disk_reserve import DiskReserve
from app.errors import NotReady
from app.gallery.embedding_repository import EmbeddingRepository
from app.index.port import IndexLost, IndexUnreachable
from app.index.sync import IndexNotReady
from app.kit.provide import provided
from app.models.active import ActiveModel
from app.models.repository import ModelRepository, Progress
from app.status.schemas import Alive, ModelOut, Ready

DatabaseDep = Annotated[Database, Depends(provided(Database))]
ActiveModelDep = Annotated[ActiveModel, Depends(provided(ActiveModel))]
ReserveDep = Annotated[DiskReserve, Depends(provided(DiskReserve))]
RegistryDep = Annotated[CollectorRegistry, Depends(provided(CollectorRegistry))]

health = APIRouter(tags=["service"])
router = APIRouter(tags=["service"])


@health.get("/health/live", summary="Is the process alive?")
async def get_live() -> Alive:
    """Answers as long as the process serves requests."""
    return Alive()


@health.get("/health/ready", summary="Does everything work?")
async def get_ready(active_model: ActiveModelDep, database: DatabaseDep, reserve: ReserveDep) -> Ready:
    """Green once the model is warm and has embedded all crops, the index is up to date and the database answers.

    Where no model is active because the next one has not embedded all crops, the problem has `embedded` and `total`.
    """
    full = await asyncio.to_thread(lambda: reserve.trouble)
    model = active_model.current  # after waiting, as a model that is replaced in between is stopped
    broken = [] if full is None else [full]
    if active_model.ready and active_model.trouble is not None:
        broken.append(active_model.trouble)
    if model.embedding.trouble is not None:
        broken.append(f"the model does not run: {model.embedding.trouble}")
    gallery_size = 0
    try:
        index = model.index.index
        gallery_size = await asyncio.to_thread(lambda: index.size)  # an index on a server sends a request
    except (IndexNotReady, IndexUnreachable, IndexLost) as error:
        broken.append(str(error))
    try:
        progress = await _reindex_progress(database)
    except DatabaseReplaced as error:
        raise NotReady("; ".join([*broken, str(error)])) from error
    except (SQLAlchemyError, OSError) as error:
        raise NotReady("; ".join([*broken, f"the database does not answer ({type(error).__name__})"])) from error
    if (readiness_error := await active_model.readiness_error(*broken)) is not None:
        raise readiness_error
    if broken:
        raise NotReady("; ".join(broken))
    next_model = active_model.next
    return Ready(
        model_id=model.id,
        gallery_size=gallery_size,
        next_model_id=None if next_model is None else next_model.id,
        embedded=progress and progress.embedded,
        total=progress and progress.total,
    )


async def _reindex_progress(database: Database) -> Progress | None:
    """The progress of the next model; None where there is none."""
    async with database.read() as session:
        repository = ModelRepository(session)
        next_id = (await repository.roles()).next_id
        return None if next_id is None else await repository.progress(next_id)


@router.get("/models", summary="The models")
async def list_models(active_model: ActiveModelDep, database: DatabaseDep) -> list[ModelOut]:
    """The model in use first, then others that have embeddings in the gallery."""
    async with database.read() as session:
        counts = await EmbeddingRepository(session).embedding_counts()
    metadata = active_model.current.embedding.metadata
    in_use = ModelOut(
        model_id=metadata.model_id,
        in_use=active_model.ready,
        crops=counts.get(metadata.model_id, 0),
        architecture=f"MGN ({metadata.architecture.name}) on {metadata.architecture.backbone}",
        input_size=metadata.input.size,
        runs_on=active_model.current.embedding.runs_on,
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
    responses={200: {"content": {"text/plain": {}}}},
)
async def get_metrics(registry: RegistryDep) -> Response:
    """Counters and histograms in Prometheus' text format."""
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
