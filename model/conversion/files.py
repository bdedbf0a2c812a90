"""Reading state dicts of other projects' training code."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import CheckpointError

_WRAPPERS = ("model", "state_dict", "net", "network")
_PREFIX = "module."

State = dict[str, Tensor]
"""Tensors by name."""


def read_state(path: Path) -> State:
    """The tensors of a file of `torch.save` by name, without the usual wrappers and the prefix of DataParallel.

    Reads only tensors and plain containers, so that a file cannot execute code. Raises CheckpointError.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path} holds Python objects besides tensors, which could run any code: save only the state dict, "
                "with torch.save(network.state_dict(), FILE), in the code that wrote the file"
            ) from error
        raise CheckpointError(f"{path} is no file of torch.save or is damaged") from error
    except Exception as error:  # torch raises many kinds for damaged files, without a common base
        raise CheckpointError(f"{path} is no file of torch.save or is damaged") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    is_named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)} if is_named else {}
    if not state:
        raise CheckpointError(f"{path} holds no state dict: no tensors by name")
    if all(name.startswith(_PREFIX) for name in state):
        state = {name.removeprefix(_PREFIX): value for name, value in state.items()}
    return state
