"""The HTTP schemas of reindexing."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class UnreadableOut(BaseModel):
    """A crop that the model could not embed, so its searches do not find it."""

    crop_id: str
    problem: str


class ReindexOut(BaseModel):
    """The active model, and the progress of the next one."""

    model_config = ConfigDict(protected_namespaces=())

    state: Literal["idle", "embedding", "blocked"] = Field(
        description="idle: there is no next model; embedding: the next model becomes active when all crops are "
        "embedded; blocked: it waits until it is posted again, for the reason in `trouble`"
    )
    active_model_id: str | None = Field(description="The active model; null where no model has embedded all crops")
    active_checkpoint: str | None = Field(description="SHA-256 of its checkpoint file")
    next_model_id: str | None = Field(description="The next model")
    next_checkpoint: str | None = Field(description="SHA-256 of its checkpoint file")
    embedded: int = Field(
        description="Crops that the next model has embedded; the active one where there is no next model"
    )
    total: int = Field(description="Crops of the gallery")
    crops_per_second: float | None = Field(description="Recent speed")
    seconds_left: float | None = Field(description="At that speed")
    trouble: str | None = Field(
        description="Why the next model is blocked, or the last error, after which it is retried"
    )
    unreadable: int = Field(description="Crops that the model could not embed; its searches do not find them")
    unreadable_crops: list[UnreadableOut] = Field(description="The first hundred of them")
    dropping: list[str] = Field(description="Models whose embeddings are being deleted")
