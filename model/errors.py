"""User errors of the library; each message says what is wrong and what to do."""


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


class RunStopped(ModelError):
    """A signal stopped a training run; its state is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
