"""What goes out of a search over HTTP."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from app.gallery.schemas import CropOut
from app.kit.ids import ID_PATTERN
from app.kit.times import from_microseconds
from app.search.service import Answer

SearchId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]


class Filters(BaseModel):
    """The filters and weights that were applied; null and empty ones let everything pass, and weight no part."""

    camera_ids: list[str] = []
    exclude_camera_ids: list[str] = []
    captured_from: datetime | None = None
    captured_to: datetime | None = None
    person_id: str | None = None
    track_id: str | None = None
    attributes: dict[str, Any] = {}
    min_similarity: float | None = None
    top_k: int
    part_weights: dict[str, float] = Field(
        {}, description="As they were given: factors of the parts' shares, 1 for parts that are not named"
    )


class MatchOut(BaseModel):
    """A crop that may show the person: a candidate to look at, never a proof."""

    rank: int
    similarity: float = Field(
        description="The mean of the eight parts' cosines, each of which counts for the share that the model gives the "
        "part, times its weight if the search named one. Without weights, it is the cosine of the two embeddings; 1 is "
        "the same"
    )
    parts: dict[str, float] = Field(description="Cosine of each of the eight parts, whatever it counts for")
    crop: CropOut


class SearchAnswer(BaseModel):
    """Ranked matches, most alike first."""

    search_id: str
    created_at: datetime
    model_id: str
    gallery_size: int = Field(description="How many crops can be found at all")
    compared: int = Field(description="How many of them passed the filters and were looked at")
    filters: Filters
    query_crop_ids: list[str] = Field(description="The crops of the gallery that were asked with")
    matches: list[MatchOut]
    sheet_url: str = Field(description="The contact sheet: the query, then the matches, as one picture")

    @classmethod
    def of(cls, answer: Answer) -> "SearchAnswer":
        """The outer form of an answer."""
        search = answer.search
        return cls(
            search_id=search.id,
            created_at=from_microseconds(search.created_at),
            model_id=search.model_id,
            gallery_size=search.gallery_size,
            compared=search.compared,
            filters=Filters.model_validate(search.filters),
            query_crop_ids=search.query_crop_ids,
            matches=[
                MatchOut(
                    rank=match.rank,
                    similarity=match.similarity,
                    parts=dict(match.parts),
                    crop=CropOut.of(match.crop),
                )
                for match in answer.matches
            ],
            sheet_url=f"/searches/{search.id}/sheet.jpg",
        )
