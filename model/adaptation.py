"""Adapting a checkpoint to a site's own cameras with few crops: its recipe, the crops that serve, its own teaching."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from model.checkpoint import Checkpoint, CheckpointMetadata
from model.datasets.base import Sample, findable_persons
from model.errors import DataError
from model.evaluate import CROPS_AT_ONCE
from model.loading import inference_of
from model.pictures import read_inputs
from model.recipe import Recipe, read_recipe, recipe_path
from model.training.teacher import Teacher

FEWEST_PERSONS = 8
"""With fewer persons there is little to tell apart, and they are known by heart at once."""

_SUFFIX = "-adapted"


def usable_crops(samples: Sequence[Sample], name: str) -> tuple[Sample, ...]:
    """The crops of the persons that two cameras or more have seen, or of two crops where the cameras are not known.

    Others teach nothing of how a person looks to another camera. name: of the data set. Raises DataError where these
    are fewer than FEWEST_PERSONS.
    """
    usable = set(findable_persons(samples))
    if len(usable) < FEWEST_PERSONS:
        raise DataError(
            f"{len(usable)} of {len({sample.pid for sample in samples})} persons of {name} are seen by two cameras or "
            f"more; adapting wants at least {FEWEST_PERSONS}: add crops, or hold fewer persons out"
        )
    return tuple(sample for sample in samples if sample.pid in usable)


def adaptation_recipe(first: CheckpointMetadata, persons: int, changes: Mapping[str, object]) -> Recipe:
    """The shipped recipe `adapt` for a checkpoint's own network and input, with `changes` made to it.

    A batch has all persons where there are fewer than the recipe's P; a network with cosine classifiers learns by the
    circle loss. Raises RecipeError.
    """
    described = first.model_dump(mode="json")
    name = first.name if first.name.endswith(_SUFFIX) else first.name + _SUFFIX
    given = {
        "name": name,
        "architecture": described["architecture"],
        "input": described["input"],
        "initialisation": {"weights": "checkpoint"},
    }
    circle = {"loss.softmax": "circle", "loss.label_smoothing": 0.0}
    fitting = circle if first.architecture.classifier == "cosine" else {}
    recipe = read_recipe(recipe_path(Path("adapt")), fitting | dict(changes), given)
    batch = recipe.batch.model_copy(update={"identities": min(recipe.batch.identities, persons)})
    return recipe.model_copy(update={"batch": batch})


def own_teacher(first: Checkpoint, samples: Sequence[Sample]) -> Teacher:
    """The checkpoint as its own teacher: what it makes of the crops before it changes, as they are and mirrored.

    Raises DataError for pictures that cannot be read.
    """
    loaded = inference_of(first)
    plain, mirrored = [], []
    for start in range(0, len(samples), CROPS_AT_ONCE):
        some = [sample.path for sample in samples[start : start + CROPS_AT_ONCE]]
        crops = read_inputs(some, loaded.metadata.input)
        plain.append(loaded.embed(crops))
        mirrored.append(loaded.embed(np.ascontiguousarray(crops[:, :, ::-1])))
    both = [np.concatenate(side).reshape(len(samples), -1) for side in (plain, mirrored)]
    return Teacher(torch.from_numpy(np.stack(both)))
