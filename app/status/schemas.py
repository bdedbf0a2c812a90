"""The HTTP schemas of health and models."""

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
    next_model_id: str | None = Field(None, description="The next model, if it is loaded here")
    embedded: int | None = Field(None, description="Crops that the next model has embedded")
    total: int | None = Field(None, description="Crops of the gallery, while there is a next model")


class ModelOut(BaseModel):
    """A model that crops of the gallery were embedded with."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    in_use: bool = Field(description="Whether this is the active model; searches find only crops that it has embedded")
    crops: int = Field(description="How many crops of the gallery it has embedded")
    architecture: str | None = Field(None, description="Known only for the model in use, as are all fields below")
    input_size: tuple[int, int] | None = Field(None, description="Height and width in pixels")
    runs_on: str | None = Field(None, description="The runtime and the device")
    training_data: TrainingData | None = None
    results: list[MeasuredResult] = []
