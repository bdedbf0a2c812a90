"""Searching over HTTP."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Path, Response, UploadFile

from app.errors import InvalidRequest, problem_responses
from app.gallery.schemas import CropId
from app.kit.disconnect import Disconnect, disconnect_of
from app.kit.etags import NOT_MODIFIED, IfNoneMatch, tagged
from app.kit.forms import Several, fields_of
from app.kit.hashing import sha256_hex
from app.kit.provide import provided
from app.search.parameters import SearchParameters
from app.search.schemas import SearchAnswer, SearchId
from app.search.service import Consistency, QueryPicture, SearchRequest, SearchService

router = APIRouter(tags=["search"])

SearchDep = Annotated[SearchService, Depends(provided(SearchService))]
DisconnectDep = Annotated[Disconnect, Depends(disconnect_of)]
ParametersForm = Annotated[SearchParameters, Depends(fields_of(SearchParameters, Form))]
SearchIdPath = Annotated[SearchId, Path(description="The `search_id` that `POST /search` returned")]


@router.post("/search", summary="Find a person", responses=problem_responses(400, 413, 429, 500, 503))
async def search(
    service: SearchDep,
    disconnect: DisconnectDep,
    filters: ParametersForm,
    files: Annotated[Several[UploadFile] | None, File(description="One or several pictures of the person")] = None,
    crop_ids: Annotated[
        Several[CropId] | None,
        Form(description="Or crops of the gallery that show the person; they are left out of the matches"),
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
    request = SearchRequest(
        pictures=await _read(files or []),
        crop_ids=tuple(dict.fromkeys(crop_ids or ())),
        filters=filters,
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
    responses={200: {"content": {"image/jpeg": {}}}, **NOT_MODIFIED, **problem_responses(404, 503)},
)
async def get_sheet(service: SearchDep, search_id: SearchIdPath, if_none_match: IfNoneMatch = None) -> Response:
    """One picture: the query, then the matches with rank, camera, local time and similarity."""
    sheet = await service.sheet(search_id)
    return tagged(sheet, sha256_hex(sheet), "image/jpeg", "private, no-cache", if_none_match)


async def _read(files: Sequence[UploadFile]) -> list[QueryPicture]:
    return [QueryPicture(await file.read(), file.filename or f"files[{index}]") for index, file in enumerate(files)]
