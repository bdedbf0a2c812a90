"""The parameters of a search: filters, part weights and limits."""

from typing import Annotated

from pydantic import AfterValidator, Field, StrictFloat

from app.gallery.filters import CropFilter
from app.search.ranking import multipliers_of
from model.architecture import PARTS


def _usable(weights: dict[str, float]) -> dict[str, float]:
    multipliers_of(weights)
    return weights


class SearchParameters(CropFilter):
    """The applied filters and weights; null and empty filters do not filter."""

    min_similarity: float | None = Field(
        None, ge=-1, le=1, description="Leave out matches that are less similar than this"
    )
    top_k: int = Field(20, ge=1, le=1000, description="How many matches at most")
    part_weights: Annotated[dict[str, StrictFloat], AfterValidator(_usable)] = Field(
        {},
        description="Weights of the parts: a JSON object of numbers, 0 or more, such as "
        '{"upper_half": 2, "lower_half": 0}; other parts have the weight 1. A weight multiplies the share of the '
        "similarity that the model gives a part: 2 doubles the part's share relative to the others, 0 ignores the "
        "part. The parts are " + ", ".join(PARTS),
    )
