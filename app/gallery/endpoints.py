"""The gallery over HTTP."""

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, File, Form, Path, Query, Response, UploadFile, status
from numpy.typing import NDArray

from app.embedding.service import EmbeddedCrop, EmbeddedCut
from app.errors import InvalidRequest, problem_of, problem_responses
from app.gallery.answering import Answering
from app.gallery.crop_store import StoredCrop
from app.gallery.forms import EmbedForm, crop_filter, parse_attributes, parse_items
from app.gallery.metadata import CropMetadata
from app.gallery.posted import PostedFiles, PostedFrame, read_posted
from app.gallery.schemas import (
    CameraId,
    CameraIn,
    CameraOut,
    CropId,
    CropOut,
    CropPage,
    EmbedAnswer,
    EmbeddingOut,
    EmbedItem,
    Instant,
    ItemMetadata,
    Name,
)
from app.gallery.service import GalleryService
from app.kit.forms import Several
from app.kit.leaving import Departure, departure_of, unless_left
from app.kit.pagination import decode_cursor, encode_cursor
from app.kit.provide import provided
from app.settings import Settings

router = APIRouter()

GalleryDep = Annotated[GalleryService, Depends(provided(GalleryService))]
SettingsDep = Annotated[Settings, Depends(provided(Settings))]
AnsweringDep = Annotated[Answering, Depends(provided(Answering))]
DepartureDep = Annotated[Departure, Depends(departure_of)]
Include = Literal["embedding", "vector", "parts"]
Outcome = StoredCrop | EmbeddedCrop | EmbeddedCut | Exception
CropIdPath = Annotated[CropId, Path(description="A crop's id, as `POST /embed` and matches tell it")]
CameraIdPath = Annotated[CameraId, Path(description="A camera's id", examples=["gate-north"])]

_IMAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {} for kind in ("image/jpeg", "image/png", "image/webp")}}
}


@router.post(
    "/embed",
    status_code=status.HTTP_201_CREATED,
    tags=["crops"],
    summary="Put crops into the gallery",
    responses=problem_responses(400, 413, 422, 429, 503),
)
async def embed(
    gallery: GalleryDep,
    answering: AnsweringDep,
    departure: DepartureDep,
    settings: SettingsDep,
    files: Annotated[
        Several[UploadFile] | None, File(description="One or many crops: jpeg, png or webp, one person each")
    ] = None,
    frame: Annotated[
        UploadFile | None, File(description="Or the whole picture of a camera: jpeg, png or webp, with boxes")
    ] = None,
    boxes: Annotated[
        str | None,
        Form(
            description="Where in the frame people are, one crop each: a JSON array of [x, y, width, height] in pixels "
            "of the upright frame, such as [[640, 212.5, 118, 342]]"
        ),
    ] = None,
    camera_id: Annotated[
        CameraId | None,
        Form(description="Which camera saw them; new ones come to be", examples=["gate-north"]),
    ] = None,
    captured_at: Annotated[
        Instant | None, Form(description="When, with the zone", examples=["2026-05-04T17:30:00+02:00"])
    ] = None,
    track_id: Annotated[Name | None, Form(description="The track, where all crops are of one")] = None,
    person_id: Annotated[Name | None, Form(description="The person, where it is known")] = None,
    attributes: Annotated[
        str | None,
        Form(
            description="A JSON object, kept and given back as it is; searches can ask for its values",
            examples=['{"lane": 2}'],
        ),
    ] = None,
    items: Annotated[
        str | None,
        Form(
            description="A JSON array with an object for each file or box, in order, whose camera_id, captured_at, "
            "track_id, person_id and attributes hold for that crop alone"
        ),
    ] = None,
    store: Annotated[bool, Form(description="false: embed only, keep nothing; no metadata is needed then")] = True,
    include: Annotated[
        Several[Include] | None,
        Form(description="embedding: give embeddings back; or only their vector or parts"),
    ] = None,
) -> EmbedAnswer:
    """Embeds crops and stores them with their pictures and metadata, so that searches find them.

    They come as files of their own, or as boxes of one frame; the service cuts those out and keeps each as a JPEG.
    Every file or box has its own outcome, in the order given: one that cannot be used fails alone. The same bytes, or
    the same box of the same frame, by the same camera at the same time are the same crop: posting them again changes
    nothing and answers `existing`.
    """
    posted = await read_posted(files, frame, boxes, settings.max_files)
    shared = ItemMetadata(
        camera_id=camera_id,
        captured_at=captured_at,
        track_id=track_id,
        person_id=person_id,
        attributes=parse_attributes(attributes),
    )
    form = EmbedForm(shared, parse_items(items, len(posted.names)))
    if store:
        model_id, outcomes = await _store(gallery, form, posted, departure)
    else:
        with answering.use() as model:
            model_id, outcomes = model.id, list(await unless_left(departure, posted.embed(model.embedding)))
    wanted = set(include or ())
    answers = [_item(i, name, one, wanted) for i, (name, one) in enumerate(zip(posted.names, outcomes, strict=True))]
    return EmbedAnswer(model_id=model_id, items=answers)


async def _store(
    gallery: GalleryService, form: EmbedForm, posted: PostedFiles | PostedFrame, departure: Departure
) -> tuple[str, list[Outcome]]:
    """By which model, and what became of each crop: one whose metadata is wrong fails before it is looked at."""
    told = form.metadata(len(posted.names))
    good = {place: one for place, one in enumerate(told) if isinstance(one, CropMetadata)}
    stored = await posted.store(gallery, good, departure)
    outcomes = iter(stored.outcomes)
    return stored.model_id, [next(outcomes) if isinstance(one, CropMetadata) else one for one in told]


def _item(index: int, filename: str | None, outcome: Outcome, wanted: set[Include]) -> EmbedItem:
    if isinstance(outcome, Exception):
        return EmbedItem(index=index, filename=filename, status="failed", problem=problem_of(outcome))
    stored = outcome if isinstance(outcome, StoredCrop) else None
    return EmbedItem(
        index=index,
        filename=filename,
        status=stored.status if stored else "embedded",
        crop=CropOut.of(stored.crop) if stored else None,
        box=None if isinstance(outcome, EmbeddedCrop) else outcome.box,
        embedding=_embedding(outcome.parts, wanted),
    )


def _embedding(parts: NDArray[np.float32], wanted: set[Include]) -> EmbeddingOut | None:
    if not wanted:
        return None
    both = "embedding" in wanted
    return EmbeddingOut.of(parts, both or "vector" in wanted, both or "parts" in wanted)


@router.get("/crops", tags=["crops"], summary="List crops, latest first", responses=problem_responses(422, 503))
async def list_crops(
    gallery: GalleryDep,
    camera_ids: Annotated[list[CameraId] | None, Query(description="Only these cameras")] = None,
    exclude_camera_ids: Annotated[list[CameraId] | None, Query(description="None of these cameras")] = None,
    captured_from: Annotated[Instant | None, Query(description="Captured then or later")] = None,
    captured_to: Annotated[Instant | None, Query(description="Captured before then")] = None,
    person_id: Annotated[Name | None, Query()] = None,
    track_id: Annotated[Name | None, Query()] = None,
    attributes: Annotated[
        str | None,
        Query(description='Only crops with these attributes and values: a JSON object, such as {"colour": "red"}'),
    ] = None,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> CropPage:
    """One page of the crops that pass all filters. Pages neither skip nor repeat crops while new ones come."""
    which = crop_filter(
        camera_ids,
        exclude_camera_ids,
        captured_from,
        captured_to,
        person_id,
        track_id,
        parse_attributes(attributes),
    )
    try:
        before = None if cursor is None else decode_cursor(cursor)
    except ValueError as error:
        raise InvalidRequest(f"{error}: give next_cursor of the page before", "cursor") from error
    crops, following = await gallery.page(which, before, limit)
    return CropPage(
        items=[CropOut.of(crop) for crop in crops],
        next_cursor=None if following is None else encode_cursor(following),
    )


@router.get("/crops/{crop_id}", tags=["crops"], summary="One crop", responses=problem_responses(404, 422, 503))
async def get_crop(gallery: GalleryDep, crop_id: CropIdPath) -> CropOut:
    """A crop with its metadata."""
    return CropOut.of(await gallery.crop(crop_id))


@router.get(
    "/crops/{crop_id}/image",
    tags=["crops"],
    summary="A crop's picture",
    response_class=Response,
    responses={**_IMAGE, **problem_responses(404, 422, 503)},
)
async def get_crop_image(gallery: GalleryDep, crop_id: CropIdPath) -> Response:
    """The picture, byte for byte as it was posted; of a box of a frame, the JPEG that was cut out."""
    content, facts = await gallery.image(crop_id)
    return Response(
        content,
        media_type=facts.media_type,
        headers={"ETag": f'"{facts.sha256}"', "Cache-Control": "private, max-age=3600"},
    )


@router.delete(
    "/crops/{crop_id}",
    tags=["crops"],
    summary="Delete a crop",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(404, 422, 503),
)
async def delete_crop(gallery: GalleryDep, crop_id: CropIdPath) -> None:
    """Deletes a crop, its embedding and its picture. No search finds it any more from then on."""
    await gallery.delete(crop_id)


@router.get("/cameras", tags=["cameras"], summary="All cameras", responses=problem_responses(503))
async def list_cameras(gallery: GalleryDep) -> list[CameraOut]:
    """All cameras by id."""
    return [CameraOut.of(camera, crops) for camera, crops in await gallery.cameras()]


@router.get("/cameras/{camera_id}", tags=["cameras"], summary="One camera", responses=problem_responses(404, 422, 503))
async def get_camera(gallery: GalleryDep, camera_id: CameraIdPath) -> CameraOut:
    """A camera, and how many crops come from it."""
    return CameraOut.of(*await gallery.camera(camera_id))


@router.put(
    "/cameras/{camera_id}",
    tags=["cameras"],
    summary="Describe a camera",
    responses=problem_responses(400, 413, 422, 503),
)
async def put_camera(gallery: GalleryDep, camera_id: CameraIdPath, camera: CameraIn) -> CameraOut:
    """Names a camera and says where it is; also before its first crop."""
    return CameraOut.of(*await gallery.put_camera(camera_id, camera.name, camera.place, camera.time_zone))
