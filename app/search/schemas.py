"""The HTTP schemas of searching."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, StringConstraints

from app.gallery.schemas import CropOut
from app.kit.ids import ID_PATTERN
from app.kit.times import from_microseconds
from app.search.parameters import SearchParameters

if TYPE_CHECKING:  # clients have these schemas, too, and nothing of the service
    from app.links import Links
    from app.search.service import ListedSearch, SearchResult

SearchId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]


class MatchOut(BaseModel):
    """A crop that may show the person: a candidate to look at, never a proof."""

    rank: int
    similarity: float = Field(
        description="The weighted mean of the eight parts' cosines. The weight of a part is the share that the model "
        "gives it, times the search's weight if there is one. Without weights of the search, it is the cosine of the "
        "two embeddings; 1 is the maximum"
    )
    parts: dict[str, float] = Field(description="The cosine of each of the eight parts, independent of weights")
    crop: CropOut


class SearchAnswer(BaseModel):
    """Ranked matches, best first."""

    search_id: str
    created_at: datetime
    model_id: str
    gallery_size: int = Field(description="Number of crops in the index")
    compared: int = Field(description="Number of them that pass the filters")
    filters: SearchParameters
    query_crop_ids: list[str] = Field(
        description="The crops of the gallery that made up the query, some time after a deletion without deleted ones"
    )
    matches: list[MatchOut]
    sheet_url: str = Field(
        description="The contact sheet: the query, then the matches, as one picture; where the service has a key, the "
        "link opens without it for some minutes"
    )

    @classmethod
    def of(cls, result: "SearchResult", links: "Links") -> "SearchAnswer":
        """The schema of a result."""
        search = result.search
        return cls(
            search_id=search.id,
            created_at=from_microseconds(search.created_at),
            model_id=search.model_id,
            gallery_size=search.gallery_size,
            compared=search.compared,
            filters=SearchParameters.model_validate(search.filters),
            query_crop_ids=[crop_id for crop_id in search.query_crop_ids if crop_id],
            matches=[
                MatchOut(
                    rank=match.rank,
                    similarity=match.similarity,
                    parts=dict(match.parts),
                    crop=CropOut.of(match.crop, links),
                )
                for match in result.matches
            ],
            sheet_url=links.sheet(search.id),
        )


class SearchSummary(BaseModel):
    """A stored search, without its matches."""

    search_id: str
    created_at: datetime
    model_id: str
    filters: SearchParameters
    matches: int = Field(description="How many matches it has, without deleted ones")
    sheet_url: str = Field(description="The contact sheet: the query, then the matches, as one picture")

    @classmethod
    def of(cls, listed: "ListedSearch", links: "Links") -> "SearchSummary":
        """The schema of a listed search."""
        search = listed.search
        return cls(
            search_id=search.id,
            created_at=from_microseconds(search.created_at),
            model_id=search.model_id,
            filters=SearchParameters.model_validate(search.filters),
            matches=listed.matches,
            sheet_url=links.sheet(search.id),
        )


class SearchPage(BaseModel):
    """A page of stored searches, latest first."""

    items: list[SearchSummary]
    next_cursor: str | None = Field(description="Give this as `cursor` to get the next page; null on the last")
