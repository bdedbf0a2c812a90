"""Adaptation of a checkpoint to a site's cameras with few crops: the recipe, and the usable crops."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from model.checkpoint import CheckpointMetadata
from model.datasets.base import Sample, findable_persons
from model.errors import DataError
from model.recipe import Recipe, read_recipe, recipe_path

MIN_PERSONS = 8
"""With fewer persons, training overfits immediately."""

_SUFFIX = "-adapted"


def usable_crops(samples: Sequence[Sample], name: str) -> tuple[Sample, ...]:
    """The crops of persons seen by two or more cameras, or on two or more crops from unknown cameras.

    Other persons do not show how a person's looks differ between cameras. name: the data set's name. Raises DataError
    for fewer than MIN_PERSONS such persons.
    """
    usable = set(findable_persons(samples))
    if len(usable) < MIN_PERSONS:
        raise DataError(
            f"{len(usable)} of {len({sample.pid for sample in samples})} persons of {name} are seen by two cameras or "
            f"more; adapting needs at least {MIN_PERSONS}: add crops, or hold fewer persons out"
        )
    return tuple(sample for sample in samples if sample.pid in usable)


def adaptation_recipe(initial: CheckpointMetadata, persons: int, overrides: Mapping[str, object]) -> Recipe:
    """The shipped recipe `adapt` with a checkpoint's architecture, part weights and input, and with `overrides`.

    A batch has at most `persons` identities; a network with cosine classifiers uses the circle loss. Raises
    RecipeError.
    """
    described = initial.model_dump(mode="json")
    name = initial.name if initial.name.endswith(_SUFFIX) else initial.name + _SUFFIX
    defaults = {
        "name": name,
        "architecture": described["architecture"],
        "part_weights": described["part_weights"],
        "input": described["input"],
        "initialisation": {"weights": "checkpoint"},
    }
    circle = {"loss.softmax": "circle", "loss.label_smoothing": 0.0}
    loss = circle if initial.architecture.classifier == "cosine" else {}
    recipe = read_recipe(recipe_path(Path("adapt")), loss | dict(overrides), defaults)
    batch = recipe.batch.model_copy(update={"identities": min(recipe.batch.identities, persons)})
    return recipe.model_copy(update={"batch": batch})
