"""The client of a service's HTTP API: one method for each operation of its OpenAPI document."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, Unpack

from pydantic import RootModel

from app.gallery.schemas import CameraOut, ChangedCrops, CropOut, CropPage, DeletedCrops, EmbedAnswer, EmbedItem
from app.models.schemas import ReindexOut
from app.search.schemas import SearchAnswer, SearchPage, SearchSummary
from app.status.schemas import Alive, ModelOut, Ready
from model.files import printable
from passerby.errors import PasserbyError, UnexpectedAnswer
from passerby.fields import (
    CropFilters,
    CropSelection,
    EmbedOptions,
    Labels,
    SearchOptions,
    encoded,
    encoded_selection,
    json_text,
)
from passerby.http import Connection
from passerby.pictures import Picture, Pictures, each, file_of
from passerby.uploading import File, NewCrop, Progress, UploadSummary, upload

_JSON = {"Accept": "application/json"}


class AsyncClient:
    """The service at a URL. Every method raises ServiceError, and those that take pictures PictureError.

    A request to a busy service (429, or 503 with Retry-After) is repeated after the pause that the service asks for,
    for at most ten minutes. Answers also have the fields that only a later version of the service knows.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        """url, api_key: by default those of the environment variables PASSERBY_URL and PASSERBY_API_KEY, as for the
        command line; without the first, http://127.0.0.1:8000.

        Raises ServiceError where the URL is none.
        """
        self._http = Connection(url, api_key)

    @property
    def url(self) -> str:
        """The URL of the service, without a slash at its end."""
        return self._http.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    def absolute(self, link: str) -> str:
        """A link of an answer, such as its `sheet_url`, as a whole URL."""
        return self._http.absolute(link)

    # searching

    async def search(
        self,
        pictures: Pictures = (),
        *,
        crop_ids: Sequence[str] = (),
        **options: Unpack[SearchOptions],
    ) -> SearchAnswer:
        """The best matches for pictures of one person, or for crops of the gallery that show the person."""
        form = encoded({"crop_ids": crop_ids, **options})
        answer = await self._http.send("POST", "/search", data=form, files=_files(pictures), headers=_JSON)
        return self._http.parse(SearchAnswer, answer)

    async def get_search(self, search_id: str) -> SearchAnswer:
        """An earlier search with its answer, without matches that were deleted since."""
        return self._http.parse(SearchAnswer, await self._http.send("GET", "/searches/{}", search_id))

    async def get_sheet(self, search_id: str) -> bytes:
        """The contact sheet of a search, a JPEG."""
        return (await self._http.send("GET", "/searches/{}/sheet.jpg", search_id)).content

    async def list_searches(self, cursor: str | None = None, limit: int = 50) -> SearchPage:
        """One page of the stored searches, latest first; cursor: `next_cursor` of the page before."""
        query = encoded({"cursor": cursor, "limit": limit})
        return self._http.parse(SearchPage, await self._http.send("GET", "/searches", params=query))

    async def searches(self, page_size: int = 200) -> AsyncIterator[SearchSummary]:
        """All stored searches, latest first, page by page."""
        page = await self.list_searches(None, page_size)
        while True:
            for search in page.items:
                yield search
            if page.next_cursor is None:
                return
            page = await self.list_searches(page.next_cursor, page_size)

    async def delete_search(self, search_id: str) -> None:
        """Delete a stored search with the pictures of its query and its contact sheet."""
        await self._http.send("DELETE", "/searches/{}", search_id)

    # crops

    async def embed(self, pictures: Pictures, **options: Unpack[EmbedOptions]) -> EmbedAnswer:
        """Embed pictures of one person each, and store them unless `store` is false; the outcome of each, in order."""
        answer = await self._http.send("POST", "/embed", data=_embed_form(options), files=_files(pictures))
        return self._http.parse(EmbedAnswer, answer)

    async def embed_frame(
        self, frame: Picture, boxes: Iterable[Sequence[float]], **options: Unpack[EmbedOptions]
    ) -> EmbedAnswer:
        """Embed the boxes of a frame, each `(x, y, width, height)` in pixels of the upright frame, as `embed` does."""
        form = _embed_form(options) | {"boxes": json_text([[float(number) for number in box] for box in boxes])}
        answer = await self._http.send("POST", "/embed", data=form, files=[("frame", file_of(frame, 0))])
        return self._http.parse(EmbedAnswer, answer)

    async def upload(
        self, crops: Iterable[NewCrop], progress: Progress | None = None, *, update: bool = False
    ) -> UploadSummary:
        """Store any number of crops, in several requests at once; a crop that cannot be stored fails alone.

        crops: read in another thread as they are sent, so that a generator never has more than a few requests' pictures
        in memory. progress: called for each crop as soon as its outcome is known, not in order. update: where a crop is
        stored already, and labels that are given differ from its own, they are changed.
        """
        return await upload(partial(self._post_crops, update), crops, progress)

    async def list_crops(self, cursor: str | None = None, limit: int = 50, **filters: Unpack[CropFilters]) -> CropPage:
        """One page of the crops that pass all filters, latest first; cursor: `next_cursor` of the page before."""
        query = encoded({"cursor": cursor, "limit": limit, **filters})
        return self._http.parse(CropPage, await self._http.send("GET", "/crops", params=query))

    async def crops(self, page_size: int = 1000, **filters: Unpack[CropFilters]) -> AsyncIterator[CropOut]:
        """All crops that pass all filters, latest first, page by page."""
        page = await self.list_crops(None, page_size, **filters)
        while True:
            for crop in page.items:
                yield crop
            if page.next_cursor is None:
                return
            page = await self.list_crops(page.next_cursor, page_size, **filters)

    async def get_crop(self, crop_id: str) -> CropOut:
        """One crop."""
        return self._http.parse(CropOut, await self._http.send("GET", "/crops/{}", crop_id))

    async def get_crop_image(self, crop_id: str) -> bytes:
        """The picture of a crop, byte for byte as it was posted."""
        return (await self._http.send("GET", "/crops/{}/image", crop_id)).content

    async def delete_crop(self, crop_id: str) -> None:
        """Delete a crop, its embedding and its picture."""
        await self._http.send("DELETE", "/crops/{}", crop_id)

    async def patch_crop(self, crop_id: str, **change: Unpack[Labels]) -> CropOut:
        """Change the person, the track or the attributes of a crop."""
        return self._http.parse(CropOut, await self._http.send("PATCH", "/crops/{}", crop_id, json=dict(change)))

    async def patch_crops(
        self, change: Labels, *, dry_run: bool = False, **selection: Unpack[CropSelection]
    ) -> ChangedCrops:
        """Change the labels of all selected crops; at least one filter is needed. dry_run: only count."""
        query = encoded_selection(selection) | encoded({"dry_run": dry_run})
        answer = await self._http.send("PATCH", "/crops", params=query, json=dict(change))
        return self._http.parse(ChangedCrops, answer)

    async def delete_crops(self, *, dry_run: bool = False, **selection: Unpack[CropSelection]) -> DeletedCrops:
        """Delete all selected crops; at least one filter is needed. dry_run: only count."""
        query = encoded_selection(selection) | encoded({"dry_run": dry_run})
        return self._http.parse(DeletedCrops, await self._http.send("DELETE", "/crops", params=query))

    async def _post_crops(
        self, update: bool, files: Sequence[File], items: Sequence[Mapping[str, Any]]
    ) -> Sequence[EmbedItem]:
        form = encoded({"items": json_text(items), "update": update or None})  # services before 0.3 have no `update`
        answer = await self._http.send("POST", "/embed", data=form, files=[("files", file) for file in files])
        outcomes = self._http.parse(EmbedAnswer, answer).items
        if len(outcomes) != len(files):
            raise UnexpectedAnswer(f"{self.url} reported {len(outcomes)} crops of the {len(files)} sent")
        return outcomes

    # cameras

    async def list_cameras(self) -> list[CameraOut]:
        """All cameras by id."""
        return self._http.parse(RootModel[list[CameraOut]], await self._http.send("GET", "/cameras")).root

    async def get_camera(self, camera_id: str) -> CameraOut:
        """A camera, and how many crops it has."""
        return self._http.parse(CameraOut, await self._http.send("GET", "/cameras/{}", camera_id))

    async def put_camera(
        self, camera_id: str, name: str, place: str | None = None, time_zone: str | None = None
    ) -> CameraOut:
        """Set a camera's name, place and IANA time zone; creates the camera if it has no crop yet."""
        description = {"name": name, "place": place, "time_zone": time_zone}
        answer = await self._http.send("PUT", "/cameras/{}", camera_id, json=description)
        return self._http.parse(CameraOut, answer)

    async def delete_camera(self, camera_id: str, dry_run: bool = False) -> DeletedCrops:
        """Delete a camera and all of its crops. dry_run: only count them."""
        query = encoded({"dry_run": dry_run})
        return self._http.parse(DeletedCrops, await self._http.send("DELETE", "/cameras/{}", camera_id, params=query))

    # models

    async def list_models(self) -> list[ModelOut]:
        """The model in use first, then others that have embeddings in the gallery."""
        return self._http.parse(RootModel[list[ModelOut]], await self._http.send("GET", "/models")).root

    async def delete_model(self, model_id: str) -> None:
        """Delete the embeddings of a model that is no longer active, in the background."""
        await self._http.send("DELETE", "/models/{}", model_id)

    async def begin_reindex(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        model_id: str | None = None,
        allow_missing: bool = False,
    ) -> ReindexOut:
        """Switch to the model of a checkpoint's file, or to one whose checkpoint the service has, in the background.

        allow_missing: also if many stored pictures cannot be read. Raises PasserbyError where the file cannot be read.
        """
        form = encoded({"model_id": model_id, "allow_missing": allow_missing})
        if checkpoint is None:
            return self._http.parse(ReindexOut, await self._http.send("POST", "/reindex", data=form))
        path = Path(checkpoint)
        try:
            with await asyncio.to_thread(path.open, "rb") as file:
                files = [("checkpoint", (printable(path.name), file))]
                return self._http.parse(ReindexOut, await self._http.send("POST", "/reindex", data=form, files=files))
        except OSError as error:
            raise PasserbyError(f"cannot read {checkpoint}: {error.strerror}") from error

    async def get_reindex(self) -> ReindexOut:
        """The active model, and the progress of the next one."""
        return self._http.parse(ReindexOut, await self._http.send("GET", "/reindex"))

    async def cancel_reindex(self) -> None:
        """Cancel the switch to the next model."""
        await self._http.send("DELETE", "/reindex")

    # the service

    async def get_live(self) -> Alive:
        """Whether the process serves requests."""
        return self._http.parse(Alive, await self._http.send("GET", "/health/live"))

    async def get_ready(self) -> Ready:
        """Whether everything works, at this moment. Raises NotReady where it does not."""
        return self._http.parse(Ready, await self._http.send_once("GET", "/health/ready"))

    async def wait_until_ready(self) -> Ready:
        """Wait as long as the service names the time to ask again. Raises NotReady where it does not."""
        return self._http.parse(Ready, await self._http.send("GET", "/health/ready"))

    async def get_metrics(self) -> str:
        """Counters and histograms in Prometheus' text format."""
        return (await self._http.send("GET", "/metrics")).text


def _embed_form(options: EmbedOptions) -> dict[str, str | list[str]]:
    items = options.get("items")
    return encoded({**options, "items": json_text(list(items)) if items else None})


def _files(pictures: Pictures) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", file_of(picture, position)) for position, picture in enumerate(each(pictures))]
