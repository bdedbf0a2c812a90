"""Health, metrics and models over HTTP."""

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from app.dependencies import ServicesDep, require_api_key
from app.errors import NotReady, problem_responses
from app.gallery.repository import GalleryRepository
from app.status.schemas import Alive, ModelOut, Ready

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
async def ready(parts: ServicesDep) -> Ready:
    """Green once the model is loaded and warm, the index is in step and the database answers."""
    broken = []
    if not parts.embedding.ready:
        broken.append("the model does not run")
    if not parts.index.ready:
        broken.append("the index is not loaded")
    try:
        await parts.database.ping()
    except (SQLAlchemyError, OSError) as error:
        broken.append(f"the database does not answer ({type(error).__name__})")
    if broken:
        raise NotReady("; ".join(broken))
    return Ready(model_id=parts.embedding.metadata.model_id, gallery_size=parts.index.index.size)


@router.get("/models", summary="The models", responses=problem_responses(503))
async def models(parts: ServicesDep) -> list[ModelOut]:
    """The model in use first, then others whose embeddings the gallery still holds."""
    async with parts.database.read() as session:
        counts = await GalleryRepository(session).embedding_counts()
    metadata = parts.embedding.metadata
    in_use = ModelOut(
        model_id=metadata.model_id,
        in_use=True,
        crops=counts.get(metadata.model_id, 0),
        architecture=f"MGN ({metadata.architecture.name}) on {metadata.architecture.backbone}",
        input_size=metadata.input.size,
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
async def metrics(request: Request) -> Response:
    """Counters and histograms in Prometheus' text format."""
    registry: CollectorRegistry = request.app.state.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
