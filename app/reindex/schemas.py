"""What changing the model tells over HTTP."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class UnreadableOut(BaseModel):
    """A crop that the model cannot find."""

    crop_id: str
    problem: str


class ReindexOut(BaseModel):
    """Which model answers, and how far the next one is."""

    model_config = ConfigDict(protected_namespaces=())

    state: Literal["idle", "embedding", "held"] = Field(
        description="idle: no model is to take over; embedding: one is, and answers when all crops are embedded; "
        "held: only when it is posted again, as `trouble` says"
    )
    answering_model_id: str | None = Field(description="None where no model has embedded all crops")
    answering_checkpoint: str | None = Field(description="SHA-256 of the file")
    model_id: str | None = Field(description="The model that is to take over")
    checkpoint: str | None = Field(description="SHA-256 of the file that was posted")
    done: int = Field(
        description="Crops that the model has embedded; of the one that answers where none is to take over"
    )
    total: int = Field(description="Crops of the gallery")
    crops_per_second: float | None = Field(description="Of late")
    seconds_left: float | None = Field(description="At that speed")
    trouble: str | None = Field(description="Why it is held, or what failed last and is tried again")
    unreadable: int = Field(description="Crops that the model could not embed and will not find")
    unreadable_crops: list[UnreadableOut] = Field(description="The first hundred of them")
    dropping: list[str] = Field(description="Models whose embeddings are being deleted")
