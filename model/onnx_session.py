"""ONNX Runtime sessions on the CPU, with telemetry off."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import METADATA_KEY, CheckpointMetadata, parse_metadata
from model.errors import CheckpointError


def open_session(path: Path, threads: int = 0) -> tuple[Any, CheckpointMetadata]:
    """An `onnxruntime.InferenceSession` and the metadata of its file; `threads` as in `session_of`.

    Raises CheckpointError.
    """
    session = session_of(path, threads)
    metadata = parse_metadata(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path)
    return session, metadata


def session_of(path: Path, threads: int = 0) -> Any:
    """An `onnxruntime.InferenceSession` of any ONNX file. Raises CheckpointError.

    threads: the number of threads of a call; 0: OMP_NUM_THREADS if that is set, else ONNX Runtime's default.
    """
    # The wheel sends usage data, including model names, unless this is set before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _default_threads()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # free the cores between calls
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no other common base class
        raise CheckpointError(f"{path} is no ONNX file that can be run: {error}") from error


def _default_threads() -> int:
    """OMP_NUM_THREADS, which torch reads, too; 0 if it is not set."""
    number = os.environ.get("OMP_NUM_THREADS", "")
    return int(number) if number.isdecimal() else 0


def run_session(session: Any, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`(N, height, width, 3)` uint8 RGB -> `(N, 8, 256)` float32. The session keeps its largest call's memory."""
    parts: NDArray[np.float32] = session.run(["parts"], {"crops": crops})[0]
    return parts
