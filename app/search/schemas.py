"""The HTTP schemas of searching."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from app.gallery.schemas import CropOut
from app.kit.ids import ID_PATTERN
from app.kit.links import link
from app.kit.times import from_microseconds
from app.search.parameters import SearchParameters
from app.search.service import SearchResult

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
    query_crop_ids: list[str] = Field(description="The crops of the gallery that made up the query")
    matches: list[MatchOut]
    sheet_url: str = Field(description="The contact sheet: the query, then the matches, as one picture")

    @classmethod
    def of(cls, result: SearchResult) -> "SearchAnswer":
        """The schema of a result."""
        search = result.search
        return cls(
            search_id=search.id,
            created_at=from_microseconds(search.created_at),
            model_id=search.model_id,
            gallery_size=search.gallery_size,
            compared=search.compared,
            filters=SearchParameters.model_validate(search.filters),
            query_crop_ids=search.query_crop_ids,
            matches=[
                MatchOut(
                    rank=match.rank,
                    similarity=match.similarity,
                    parts=dict(match.parts),
                    crop=CropOut.of(match.crop),
                )
                for match in result.matches
            ],
            sheet_url=link(f"/searches/{search.id}/sheet.jpg"),
        )
