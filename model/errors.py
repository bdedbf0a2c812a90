"""User errors of the library, each with a message that says what is wrong and what to do; words for messages."""

from collections.abc import Sequence

from pydantic import ValidationError

_NAMES_IN_MESSAGE = 4


class ModelError(Exception):
    """Base of errors that `python -m model` reports in one sentence, with exit code 2."""


class DataError(ModelError):
    """A data set is missing, or its folder does not have the layout of its kind."""


class CheckpointError(ModelError):
    """A file is not a Passerby checkpoint, is damaged, or does not fit the network."""


class RecipeError(ModelError):
    """A training recipe has an invalid value."""


class TrainingError(ModelError):
    """A training run cannot start, resume or continue."""


class ResourceError(ModelError):
    """A folder cannot be written, or the disk or the memory does not suffice."""


class RunStopped(ModelError):
    """A signal stopped a training run; its state is saved. signal_number: the signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def shortened(names: Sequence[str]) -> str:
    """The first names and the number of the others, for a message.

    >>> shortened(["a", "b", "c", "d", "e"])
    'a, b, c, d and 1 more'
    """
    rest = len(names) - _NAMES_IN_MESSAGE
    return ", ".join(names[:_NAMES_IN_MESSAGE]) + (f" and {rest} more" if rest > 0 else "")


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "crop"), counted(1200, "crop")
    ('1 crop', '1,200 crops')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def validation_problems(error: ValidationError, whole: str) -> str:
    """What is wrong with a file's values, as part of a sentence; `whole` names what has no field to blame."""
    return "; ".join(f"{'.'.join(map(str, problem['loc'])) or whole}: {problem['msg']}" for problem in error.errors())
