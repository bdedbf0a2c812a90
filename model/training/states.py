"""The saved states of a run, from which it resumes exactly."""

import re
from pathlib import Path
from typing import Any

import torch

from model.errors import TrainingError
from model.files import atomic_write

MAX_STATES = 2
"""The number of states to keep."""

_NAME = re.compile(r"state-(\d+)\.pt$")


def save_state(folder: Path, iteration: int, state: dict[str, Any]) -> None:
    """Write a state atomically, then delete all but the newest MAX_STATES. Raises OSError."""
    path = folder / f"state-{iteration:08}.pt"
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)
    for old in saved_states(folder)[:-MAX_STATES]:
        old.unlink()


def saved_states(folder: Path) -> list[Path]:
    """The states in a run's folder, the newest last."""
    return sorted(path for path in folder.glob("state-*.pt") if _NAME.search(path.name))


def load_newest_state(folder: Path) -> dict[str, Any]:
    """The newest state of a run. Raises TrainingError if there is none, or if it is damaged."""
    states = saved_states(folder)
    if not states:
        raise TrainingError(f"there is nothing to resume in {folder}: start without --resume")
    try:
        state: dict[str, Any] = torch.load(states[-1], map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files, without a common base
        raise unusable_state(folder, str(error)) from error
    if not isinstance(state, dict):
        raise unusable_state(folder, "it holds no state")
    return state


def unusable_state(folder: Path, reason: str) -> TrainingError:
    """The error for a newest state that cannot be used, with what to do."""
    states = saved_states(folder)
    advice = f"delete it to go on from {states[-2].name}" if len(states) > 1 else "start again with another --out"
    return TrainingError(f"{states[-1]} is damaged ({reason}); {advice}")
