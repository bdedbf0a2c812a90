"""Searching over HTTP."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Path, Response, UploadFile

from app.errors import InvalidRequest, problem_responses
from app.gallery.forms import crop_filter, parse_attributes
from app.gallery.schemas import CameraId, CropId, Instant, Name
from app.kit.forms import Several
from app.kit.leaving import Departure, departure_of
from app.kit.provide import provided
from app.search.forms import parse_part_weights
from app.search.schemas import Filters, SearchAnswer, SearchId
from app.search.service import Consistency, QueryPicture, Question, SearchService
from model.architecture import PARTS

router = APIRouter(tags=["search"])

SearchDep = Annotated[SearchService, Depends(provided(SearchService))]
DepartureDep = Annotated[Departure, Depends(departure_of)]
SearchIdPath = Annotated[SearchId, Path(description="`search_id` of an answer of `POST /search`")]


@router.post("/search", summary="Find a person", responses=problem_responses(400, 413, 422, 429, 500, 503))
async def search(
    service: SearchDep,
    departure: DepartureDep,
    files: Annotated[
        Several[UploadFile] | None, File(description="A picture of the person, or several of the same person")
    ] = None,
    crop_ids: Annotated[
        Several[CropId] | None,
        Form(description="Or crops of the gallery that show the person; no match is one of them"),
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
            description="How much more or less parts shall count than they do by themselves: a JSON object of weights, "
            '0 or more, such as {"upper_half": 2, "lower_half": 0}; parts that it does not name have the weight 1. A '
            "model may let its parts count differently: a weight multiplies the share of the similarity that the model "
            "gives a part, so 2 lets it count twice as much beside the others, 0 not at all. The parts are "
            + ", ".join(PARTS)
        ),
    ] = None,
    consistency: Annotated[
        Consistency,
        Form(
            description="`eventual`: crops stored through this service are found at once, those stored through another "
            "one on the same database a moment later. `session`: every crop that was acknowledged before the search "
            "is found, whichever service stored it; the search waits until the index has them. What was deleted "
            "through any service is found no more, either way"
        ),
    ] = "eventual",
) -> SearchAnswer:
    """Ranks the crops of the gallery by how alike they are to the person asked for.

    A match is a candidate for you to look at. The answer says which filters were applied and how many crops were
    looked at, and is kept: `GET /searches/{id}` gives it again, `sheet_url` shows it as one picture.
    """
    if bool(files) == bool(crop_ids):
        raise InvalidRequest("give either files or crop_ids: what is the person like that you look for?", "files")
    asked_attributes, weights = parse_attributes(attributes), parse_part_weights(part_weights)
    shown = Filters(
        camera_ids=camera_ids or [],
        exclude_camera_ids=exclude_camera_ids or [],
        captured_from=captured_from,
        captured_to=captured_to,
        person_id=person_id,
        track_id=track_id,
        attributes=asked_attributes or {},
        min_similarity=min_similarity,
        top_k=top_k,
        part_weights=weights,
    )
    question = Question(
        pictures=await _read(files or []),
        crop_ids=tuple(dict.fromkeys(crop_ids or ())),
        filters=crop_filter(
            camera_ids, exclude_camera_ids, captured_from, captured_to, person_id, track_id, asked_attributes
        ),
        shown_filters=shown.model_dump(mode="json"),
        top_k=top_k,
        min_similarity=min_similarity,
        part_weights=weights,
        consistency=consistency,
    )
    return SearchAnswer.of(await service.search(question, departure))


@router.get("/searches/{search_id}", summary="A search again", responses=problem_responses(404, 422, 503))
async def get_search(service: SearchDep, search_id: SearchIdPath) -> SearchAnswer:
    """An earlier search as it was answered, without matches that were deleted since."""
    return SearchAnswer.of(await service.stored(search_id))


@router.get(
    "/searches/{search_id}/sheet.jpg",
    summary="The contact sheet of a search",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **problem_responses(404, 422, 503)},
)
async def get_sheet(service: SearchDep, search_id: SearchIdPath) -> Response:
    """One picture: the query, then the matches with rank, camera, local time and similarity."""
    return Response(await service.sheet(search_id), media_type="image/jpeg")


async def _read(files: Sequence[UploadFile]) -> list[QueryPicture]:
    return [QueryPicture(await file.read(), file.filename or f"files[{index}]") for index, file in enumerate(files)]
