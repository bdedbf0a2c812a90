"""Searching over HTTP."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, Response, UploadFile, status

from app.errors import InvalidRequest
from app.gallery.schemas import CropId
from app.kit.accept import prefers
from app.kit.disconnect import Disconnect, disconnect_of
from app.kit.etags import NOT_MODIFIED, IfNoneMatch, tagged
from app.kit.fields import Several
from app.kit.forms import fields_of
from app.kit.hashing import sha256_hex
from app.kit.provide import provided
from app.links import LinksDep
from app.search.parameters import SearchParameters
from app.search.schemas import SearchAnswer, SearchId, SearchPage, SearchSummary
from app.search.service import Consistency, QueryPicture, SearchRequest, SearchService

router = APIRouter(tags=["search"])
pictures = APIRouter(tags=["search"])
"""What signed links lead to."""

_JPEG = "image/jpeg"
_SHEET: dict[int | str, dict[str, Any]] = {200: {"content": {_JPEG: {}}}}

SearchDep = Annotated[SearchService, Depends(provided(SearchService))]
DisconnectDep = Annotated[Disconnect, Depends(disconnect_of)]
ParametersForm = Annotated[SearchParameters, Depends(fields_of(SearchParameters, Form))]
SearchIdPath = Annotated[SearchId, Path(description="The `search_id` that `POST /search` returned")]


@router.post("/search", summary="Find a person", response_model=SearchAnswer, responses=_SHEET)
async def search(
    request: Request,
    service: SearchDep,
    links: LinksDep,
    disconnect: DisconnectDep,
    filters: ParametersForm,
    files: Annotated[
        Several[UploadFile] | None,
        File(
            description="Choose a picture of the person: jpeg, png or webp, cut out so that it shows this person "
            "alone. *Add string item* takes another picture of the same person; several find more"
        ),
    ] = None,
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
) -> SearchAnswer | Response:
    """Ranks the crops of the gallery by their similarity to the person of the query.

    A match is a candidate for you to look at. The answer is JSON, or the contact sheet as one picture where the request
    has the header `Accept: image/jpeg`; then `Content-Location` says where it is. It is stored:
    `GET /searches/{search_id}` returns it again, and `sheet_url` shows it.
    """
    if bool(files) == bool(crop_ids):
        raise InvalidRequest("give either files or crop_ids: the query needs pictures of the person", "files")
    query = SearchRequest(
        pictures=await _read(files or []),
        crop_ids=tuple(dict.fromkeys(crop_ids or ())),
        filters=filters,
        consistency=consistency,
    )
    result = await service.search(query, disconnect)
    if prefers(request.headers.get("accept", ""), _JPEG, "application/json"):
        sheet = await service.sheet(result.search.id)
        return Response(sheet, media_type=_JPEG, headers={"Content-Location": links.sheet(result.search.id)})
    return SearchAnswer.of(result, links)


@router.get("/searches", summary="List searches, latest first")
async def list_searches(
    service: SearchDep,
    links: LinksDep,
    cursor: Annotated[SearchId | None, Query(description="`next_cursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> SearchPage:
    """One page of the stored searches. A search is stored for `PASSERBY_SEARCH_DAYS`."""
    listed, next_cursor = await service.page(cursor, limit)
    return SearchPage(items=[SearchSummary.of(one, links) for one in listed], next_cursor=next_cursor)


@router.get("/searches/{search_id}", summary="A search again")
async def get_search(service: SearchDep, links: LinksDep, search_id: SearchIdPath) -> SearchAnswer:
    """An earlier search with its answer, without matches that were deleted since."""
    return SearchAnswer.of(await service.stored(search_id), links)


@router.delete(
    "/searches/{search_id}",
    summary="Delete a search",
    status_code=status.HTTP_204_NO_CONTENT,
)
async def delete_search(service: SearchDep, search_id: SearchIdPath) -> None:
    """Deletes a stored search with the pictures of its query and its contact sheet."""
    await service.delete(search_id)


@pictures.get(
    "/searches/{search_id}/sheet.jpg",
    summary="The contact sheet of a search",
    response_class=Response,
    responses={**_SHEET, **NOT_MODIFIED},
)
async def get_sheet(service: SearchDep, search_id: SearchIdPath, if_none_match: IfNoneMatch = None) -> Response:
    """One picture: the query, then the matches with rank, camera, local time and similarity."""
    sheet = await service.sheet(search_id)
    return tagged(sheet, sha256_hex(sheet), _JPEG, "private, no-cache", if_none_match)


async def _read(files: Sequence[UploadFile]) -> list[QueryPicture]:
    return [QueryPicture(await file.read(), file.filename or f"files[{index}]") for index, file in enumerate(files)]
