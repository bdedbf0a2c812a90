"""Searching over HTTP."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Path, Response, UploadFile

from app.errors import InvalidRequest, problem_responses
from app.gallery.forms import crop_filter, parse_attributes
from app.gallery.schemas import CameraId, CropId, Instant, Name
from app.kit.disconnect import Disconnect, disconnect_of
from app.kit.forms import Several
from app.kit.provide import provided
from app.search.forms import parse_part_weights
from app.search.schemas import Filters, SearchAnswer, SearchId
from app.search.service import Consistency, QueryPicture, SearchRequest, SearchService
from model.architecture import PARTS

router = APIRouter(tags=["search"])

SearchDep = Annotated[SearchService, Depends(provided(SearchService))]
DisconnectDep = Annotated[Disconnect, Depends(disconnect_of)]
SearchIdPath = Annotated[SearchId, Path(description="The `search_id` that `POST /search` returned")]


@router.post("/search", summary="Find a person", responses=problem_responses(400, 413, 429, 500, 503))
async def search(
    service: SearchDep,
    disconnect: DisconnectDep,
    files: Annotated[Several[UploadFile] | None, File(description="One or several pictures of the person")] = None,
    crop_ids: Annotated[
        Several[CropId] | None,
        Form(description="Or crops of the gallery that show the person; they are left out of the matches"),
    ] = None,
    camera_ids: Annotated[Several[CameraId] | None, Form(description="Only crops of these cameras")] = None,
    exclude_camera_ids: Annotated[Several[CameraId] | None, Form(description="No crops of these cameras")] = None,
    captured_from: Annotated[Instant | None, Form(description="Only crops captured then or later")] = None,
    captured_to: Annotated[Instant | None, Form(description="Only crops captured before then")] = None,
    person_id: Annotated[Name | None, Form(description="Only crops of this person")] = None,
    track_id: Annotated[Name | None, Form(description="Only crops of this track")] = None,
    attributes: Annotated[
        str | None,
        Form(description='Only crops with these attributes and values: a JSON object, such as {"colour": "red"}'),
    ] = None,
    top_k: Annotated[int, Form(ge=1, le=1000, description="How many matches at most")] = 20,
    min_similarity: Annotated[
        float | None, Form(ge=-1, le=1, description="Leave out matches that are less alike than this")
    ] = None,
    part_weights: Annotated[
        str | None,
        Form(
            description="Weights of the parts: a JSON object of numbers, 0 or more, such as "
            '{"upper_half": 2, "lower_half": 0}; other parts have the weight 1. A weight multiplies the share of the '
            "similarity that the model gives a part: 2 doubles the part's share relative to the others, 0 ignores the "
            "part. The parts are " + ", ".join(PARTS)
        ),
    ] = None,
    consistency: Annotated[
        Consistency,
        Form(
            description="`eventual`: crops stored through this service are found at once, those stored through another "
            "service on the same database a moment later. `session`: every crop that was acknowledged before the "
            "search is found, whichever service stored it; the search waits until the index has them. Crops that were "
            "deleted through any service are never found"
        ),
    ] = "eventual",
) -> SearchAnswer:
    """Ranks the crops of the gallery by their similarity to the person of the query.

    A match is a candidate for you to look at. The answer contains the applied filters and the number of compared crops.
    It is stored: `GET /searches/{id}` returns it again, `sheet_url` shows it as one picture.
    """
    if bool(files) == bool(crop_ids):
        raise InvalidRequest("give either files or crop_ids: the query needs pictures of the person", "files")
    attribute_filter, weights = parse_attributes(attributes), parse_part_weights(part_weights)
    shown = Filters(
        camera_ids=camera_ids or [],
        exclude_camera_ids=exclude_camera_ids or [],
        captured_from=captured_from,
        captured_to=captured_to,
        person_id=person_id,
        track_id=track_id,
        attributes=attribute_filter or {},
        min_similarity=min_similarity,
        top_k=top_k,
        part_weights=weights,
    )
    request = SearchRequest(
        pictures=await _read(files or []),
        crop_ids=tuple(dict.fromkeys(crop_ids or ())),
        filters=crop_filter(
            camera_ids, exclude_camera_ids, captured_from, captured_to, person_id, track_id, attribute_filter
        ),
        shown_filters=shown.model_dump(mode="json"),
        top_k=top_k,
        min_similarity=min_similarity,
        part_weights=weights,
        consistency=consistency,
    )
    return SearchAnswer.of(await service.search(request, disconnect))


@router.get("/searches/{search_id}", summary="A search again", responses=problem_responses(404, 503))
async def get_search(service: SearchDep, search_id: SearchIdPath) -> SearchAnswer:
    """An earlier search with its answer, without matches that were deleted since."""
    return SearchAnswer.of(await service.stored(search_id))


@router.get(
    "/searches/{search_id}/sheet.jpg",
    summary="The contact sheet of a search",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **problem_responses(404, 503)},
)
async def get_sheet(service: SearchDep, search_id: SearchIdPath) -> Response:
    """One picture: the query, then the matches with rank, camera, local time and similarity."""
    return Response(await service.sheet(search_id), media_type="image/jpeg")


async def _read(files: Sequence[UploadFile]) -> list[QueryPicture]:
    return [QueryPicture(await file.read(), file.filename or f"files[{index}]") for index, file in enumerate(files)]
