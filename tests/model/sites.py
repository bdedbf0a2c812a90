"""A site with drawn persons, and a checkpoint to adapt to it."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from model.checkpoint import Checkpoint, TrainingData, save_checkpoint
from tests.model.drawn_people import copy_people
from tests.model.model_factories import write_checkpoint

TINY = ("schedule.iterations=4", "schedule.warm_up=1", "batch.crops=2", "augmentation.jitter=0.0")
TRAINED = TrainingData(name="elsewhere", terms="research", identities=9, crops=90)


@cache
def site() -> Path:
    """A folder of twelve drawn persons, written once per process."""
    return copy_people(Path(mkdtemp(prefix="site-")), range(9, 21), max_crops=2)


def first_checkpoint(folder: Path) -> Checkpoint:
    plain = write_checkpoint(folder / "first.safetensors")
    described = plain.metadata.model_copy(update={"training_data": TRAINED})
    return save_checkpoint(folder / "first.safetensors", plain.weights, described)
