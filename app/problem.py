"""The form of an error over HTTP."""

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """An error, as RFC 9457 describes it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="The kind of error; the same for all errors of a kind")
    title: str = Field(description="The kind of error in words")
    status: int = Field(description="The HTTP status")
    detail: str = Field(description="What was wrong with this request, and what to do")
