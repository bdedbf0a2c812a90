"""The gallery over HTTP."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, File, Form, Path, Query, Response, UploadFile, status
from numpy.typing import NDArray

from app.embedding.crop_queue import Priority
from app.embedding.frames import CropFile
from app.embedding.service import EmbeddedCrop
from app.errors import InvalidRequest, problem_of
from app.gallery.crop_store import StoredCrop
from app.gallery.filters import CropFilter, CropSelection
from app.gallery.forms import EmbedForm
from app.gallery.metadata import CropMetadata
from app.gallery.posted import PostedCrop, read_posted
from app.gallery.schemas import (
    CameraId,
    CameraIn,
    CameraOut,
    ChangedCrops,
    CropId,
    CropOut,
    CropPage,
    DeletedCrops,
    EmbedAnswer,
    EmbeddingOut,
    EmbedItem,
    Include,
    LabelsIn,
)
from app.gallery.service import GalleryService, NewCrop
from app.kit.disconnect import Disconnect, cancel_on_disconnect, disconnect_of
from app.kit.etags import NOT_MODIFIED, IfNoneMatch, tagged
from app.kit.fields import Several
from app.kit.forms import fields_of
from app.kit.pagination import decode_cursor, encode_cursor
from app.kit.provide import provided
from app.links import Links, LinksDep
from app.models.active import ActiveModel
from app.settings import Settings

router = APIRouter()
pictures = APIRouter()
"""What signed links lead to."""

GalleryDep = Annotated[GalleryService, Depends(provided(GalleryService))]
SettingsDep = Annotated[Settings, Depends(provided(Settings))]
ActiveModelDep = Annotated[ActiveModel, Depends(provided(ActiveModel))]
DisconnectDep = Annotated[Disconnect, Depends(disconnect_of)]
Outcome = StoredCrop | EmbeddedCrop | Exception
FilterQuery = Annotated[CropFilter, Depends(fields_of(CropFilter, Query))]
SelectionQuery = Annotated[CropSelection, Depends(fields_of(CropSelection, Query))]
DryRunQuery = Annotated[bool, Query(description="true: only count")]
EmbedFormDep = Annotated[EmbedForm, Depends(fields_of(EmbedForm, Form))]
CropIdPath = Annotated[CropId, Path(description="A crop's id, as in the answers of `POST /embed` and `POST /search`")]
CameraIdPath = Annotated[CameraId, Path(description="A camera's id", examples=["gate-north"])]

_IMAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {} for kind in ("image/jpeg", "image/png", "image/webp")}}
}


@router.post(
    "/embed",
    status_code=status.HTTP_201_CREATED,
    tags=["crops"],
    summary="Put crops into the gallery",
)
async def embed(
    gallery: GalleryDep,
    active_model: ActiveModelDep,
    disconnect: DisconnectDep,
    settings: SettingsDep,
    links: LinksDep,
    form: EmbedFormDep,
    files: Annotated[
        Several[UploadFile] | None,
        File(
            description="Choose pictures of people: jpeg, png or webp, each cut out so that it shows one person. "
            "*Add string item* takes another one"
        ),
    ] = None,
    frame: Annotated[
        UploadFile | None,
        File(
            description="Or, instead of files, choose one whole picture of a camera, and say in boxes where people are"
        ),
    ] = None,
    boxes: Annotated[
        str | None,
        Form(
            description="Where in the frame people are, one crop each: a JSON array of [x, y, width, height] in pixels "
            "of the upright frame, such as [[640, 212.5, 118, 342]]"
        ),
    ] = None,
) -> EmbedAnswer:
    """Embeds crops and stores them with their pictures and metadata, so that searches find them.

    Crops are posted as files, or as boxes of one frame; the service cuts the boxes out and stores each as a JPEG.
    Every file or box has its own outcome, in the order given: one that cannot be used fails alone. The same bytes, or
    the same box of the same frame, from the same camera at the same time are the same crop: posting them again changes
    nothing and answers `existing`; with `update`, it changes the labels that differ, and a time that was a guess,
    and answers `updated`.
    """
    posted = await read_posted(files, frame, boxes, settings.max_files)
    metadata = form.metadata(len(posted.names))
    with active_model.use() as model:
        crops = await cancel_on_disconnect(disconnect, posted.crops(model.embedding))
    if form.store:
        model_id, outcomes = await _store(gallery, crops, metadata, disconnect, form.update)
    else:
        model_id, outcomes = await _embed_only(active_model, crops, disconnect)
    wanted = set(form.include)
    described = [
        _item(index, posted.names[index], crop, outcome, wanted, links)
        for index, (crop, outcome) in enumerate(zip(crops, outcomes, strict=True))
    ]
    return EmbedAnswer(model_id=model_id, items=described)


async def _store(
    gallery: GalleryService,
    crops: Sequence[PostedCrop],
    metadata: Sequence[CropMetadata | InvalidRequest],
    disconnect: Disconnect,
    update: bool,
) -> tuple[str, list[Outcome]]:
    """The model's id and the outcome of each crop: one with wrong metadata fails before its file is decoded."""
    new = [_new_crop(crop, item) for crop, item in zip(crops, metadata, strict=True)]
    stored = await gallery.store([crop for crop in new if isinstance(crop, NewCrop)], disconnect, update)
    return stored.model_id, _in_order(new, stored.outcomes)


async def _embed_only(
    active_model: ActiveModel, crops: Sequence[PostedCrop], disconnect: Disconnect
) -> tuple[str, list[Outcome]]:
    contents = [crop.content for crop in crops if isinstance(crop, CropFile)]
    with active_model.use() as model:
        outcomes = await cancel_on_disconnect(disconnect, model.embedding.embed(contents, Priority.BULK))
        return model.id, _in_order(crops, outcomes)


def _new_crop(crop: PostedCrop, metadata: CropMetadata | InvalidRequest) -> NewCrop | Exception:
    if isinstance(metadata, InvalidRequest):
        return metadata
    return NewCrop(crop.content, metadata) if isinstance(crop, CropFile) else crop


def _in_order(crops: Sequence[object], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcome of each crop; `crops` has exceptions in place of those that have none in `outcomes`."""
    remaining = iter(outcomes)
    return [crop if isinstance(crop, Exception) else next(remaining) for crop in crops]


def _item(
    index: int,
    filename: str | None,
    crop: PostedCrop,
    outcome: Outcome,
    wanted: set[Include],
    links: Links,
) -> EmbedItem:
    if isinstance(outcome, Exception):
        return EmbedItem(index=index, filename=filename, status="failed", problem=problem_of(outcome))
    stored = outcome if isinstance(outcome, StoredCrop) else None
    return EmbedItem(
        index=index,
        filename=filename,
        status=stored.status if stored else "embedded",
        differs=list(stored.differs) if stored else [],
        crop=CropOut.of(stored.crop, links) if stored else None,
        box=crop.box if isinstance(crop, CropFile) else None,
        embedding=_embedding(outcome.parts, wanted),
    )


def _embedding(parts: NDArray[np.float32], wanted: set[Include]) -> EmbeddingOut | None:
    if not wanted:
        return None
    both = "embedding" in wanted
    return EmbeddingOut.of(parts, both or "vector" in wanted, both or "parts" in wanted)


@router.get("/crops", tags=["crops"], summary="List crops, latest first")
async def list_crops(
    gallery: GalleryDep,
    links: LinksDep,
    filters: FilterQuery,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> CropPage:
    """One page of the crops that pass all filters. Pages neither skip nor repeat crops when new ones are stored."""
    try:
        before = None if cursor is None else decode_cursor(cursor)
    except ValueError as error:
        raise InvalidRequest(f"{error}: give next_cursor of the page before", "cursor") from error
    crops, next_position = await gallery.page(filters, before, limit)
    return CropPage(
        items=[CropOut.of(crop, links) for crop in crops],
        next_cursor=None if next_position is None else encode_cursor(next_position),
    )


@router.get("/crops/{crop_id}", tags=["crops"], summary="One crop")
async def get_crop(gallery: GalleryDep, links: LinksDep, crop_id: CropIdPath) -> CropOut:
    """A crop with its metadata."""
    return CropOut.of(await gallery.crop(crop_id), links)


@pictures.get(
    "/crops/{crop_id}/image",
    tags=["crops"],
    summary="A crop's picture",
    response_class=Response,
    responses={**_IMAGE, **NOT_MODIFIED},
)
async def get_crop_image(gallery: GalleryDep, crop_id: CropIdPath, if_none_match: IfNoneMatch = None) -> Response:
    """The picture, byte for byte as it was posted; for a box of a frame, the JPEG that was cut out."""
    content, facts = await gallery.image(crop_id)
    return tagged(content, facts.sha256, facts.media_type, "private, max-age=3600", if_none_match)


@router.patch(
    "/crops/{crop_id}",
    tags=["crops"],
    summary="Change a crop's labels",
)
async def patch_crop(gallery: GalleryDep, links: LinksDep, crop_id: CropIdPath, labels: LabelsIn) -> CropOut:
    """Changes the person, the track or the attributes of a crop. Filters find it by its new labels at once."""
    return CropOut.of(await gallery.relabel(crop_id, labels.change()), links)


@router.patch("/crops", tags=["crops"], summary="Change the labels of many crops")
async def patch_crops(
    gallery: GalleryDep, selected: SelectionQuery, labels: LabelsIn, dry_run: DryRunQuery = False
) -> ChangedCrops:
    """Changes the labels of all crops that pass the filters, of which at least one is needed.

    Where it ends early, some crops are changed and others are not; the same request again changes the rest.
    """
    done = await gallery.relabel_all(selected, labels.change(), dry_run)
    return ChangedCrops(matched=done.matched, changed=done.changed, dry_run=dry_run)


@router.delete(
    "/crops/{crop_id}",
    tags=["crops"],
    summary="Delete a crop",
    status_code=status.HTTP_204_NO_CONTENT,
)
async def delete_crop(gallery: GalleryDep, crop_id: CropIdPath) -> None:
    """Deletes a crop, its embedding and its picture. No later search finds it, and searches before lose it.

    After `PASSERBY_ERASE_SECONDS` nothing of it is left in the data folder and the database.
    """
    await gallery.delete(crop_id)


@router.delete("/crops", tags=["crops"], summary="Delete many crops")
async def delete_crops(gallery: GalleryDep, selected: SelectionQuery, dry_run: DryRunQuery = False) -> DeletedCrops:
    """Deletes all crops that pass the filters, of which at least one is needed, each as `DELETE /crops/{crop_id}` does.

    Where it ends early, some crops are deleted and others are not; the same request again deletes the rest.
    """
    done = await gallery.delete_all(selected, dry_run)
    return DeletedCrops(matched=done.matched, deleted=done.deleted, dry_run=dry_run)


@router.get("/cameras", tags=["cameras"], summary="All cameras")
async def list_cameras(gallery: GalleryDep) -> list[CameraOut]:
    """All cameras by id."""
    return [CameraOut.of(camera, crops) for camera, crops in await gallery.cameras()]


@router.get("/cameras/{camera_id}", tags=["cameras"], summary="One camera")
async def get_camera(gallery: GalleryDep, camera_id: CameraIdPath) -> CameraOut:
    """A camera, and how many crops it has."""
    return CameraOut.of(*await gallery.camera(camera_id))


@router.put(
    "/cameras/{camera_id}",
    tags=["cameras"],
    summary="Describe a camera",
)
async def put_camera(gallery: GalleryDep, camera_id: CameraIdPath, camera: CameraIn) -> CameraOut:
    """Sets a camera's name, place and time zone; creates the camera if it has no crop yet."""
    return CameraOut.of(*await gallery.put_camera(camera_id, camera.name, camera.place, camera.time_zone))


@router.delete("/cameras/{camera_id}", tags=["cameras"], summary="Delete a camera")
async def delete_camera(gallery: GalleryDep, camera_id: CameraIdPath, dry_run: DryRunQuery = False) -> DeletedCrops:
    """Deletes a camera and all of its crops, each as `DELETE /crops/{crop_id}` does.

    Where it ends early, the same request again deletes the rest. A crop that is posted later creates the camera again.
    """
    done = await gallery.delete_camera(camera_id, dry_run)
    return DeletedCrops(matched=done.matched, deleted=done.deleted, dry_run=dry_run)
