"""What a user of the library can get wrong; each message says what was wrong and what to do."""


class ModelError(Exception):
    """Anything that the commands of `python -m model` answer with one sentence and exit code 2."""


class DataError(ModelError):
    """A data set is not there or not laid out as its kind is."""


class CheckpointError(ModelError):
    """A file is no checkpoint of ours, is damaged, or does not fit the network."""


class RecipeError(ModelError):
    """A training recipe holds a value that makes no sense."""


class TrainingError(ModelError):
    """A training run cannot start, resume or go on."""


class RunStopped(ModelError):
    """A training run was asked to stop by a signal, and has saved its state."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
