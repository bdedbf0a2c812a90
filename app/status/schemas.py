"""What the service tells of itself."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from model.checkpoint import MeasuredResult, TrainingData


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """Everything that requests need works."""

    status: Literal["ready"] = "ready"
    model_id: str
    gallery_size: int
    next_model_id: str | None = Field(None, description="The model that is to take over and is loaded here, if any")
    embedded: int | None = Field(None, description="Crops that the model has embedded that is to take over, if any")
    total: int | None = Field(None, description="Crops of the gallery, while a model is to take over")


class ModelOut(BaseModel):
    """A model that crops of the gallery were embedded with."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    in_use: bool = Field(description="Whether this model answers now; the crops of others are not found by searches")
    crops: int = Field(description="How many crops of the gallery it has embedded")
    architecture: str | None = Field(None, description="Known of the model in use, as all that follows")
    input_size: tuple[int, int] | None = Field(None, description="Height and width in pixels")
    runs_on: str | None = Field(None, description="With what it computes, and whether on a GPU")
    training_data: TrainingData | None = None
    results: list[MeasuredResult] = []
