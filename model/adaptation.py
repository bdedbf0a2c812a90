"""Adapting a checkpoint to a site's own cameras with few crops: its recipe, and the crops that serve."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from model.checkpoint import CheckpointMetadata
from model.datasets.base import Sample, findable_persons
from model.errors import DataError
from model.recipe import Recipe, read_recipe, recipe_path

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
    """The shipped recipe `adapt` for a checkpoint's own network, parts and input, with `changes` made to it.

    A batch has all persons where there are fewer than the recipe's P; a network with cosine classifiers learns by the
    circle loss. Raises RecipeError.
    """
    described = first.model_dump(mode="json")
    name = first.name if first.name.endswith(_SUFFIX) else first.name + _SUFFIX
    given = {
        "name": name,
        "architecture": described["architecture"],
        "part_weights": described["part_weights"],
        "input": described["input"],
        "initialisation": {"weights": "checkpoint"},
    }
    circle = {"loss.softmax": "circle", "loss.label_smoothing": 0.0}
    fitting = circle if first.architecture.classifier == "cosine" else {}
    recipe = read_recipe(recipe_path(Path("adapt")), fitting | dict(changes), given)
    batch = recipe.batch.model_copy(update={"identities": min(recipe.batch.identities, persons)})
    return recipe.model_copy(update={"batch": batch})
