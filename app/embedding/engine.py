"""The engine port, from crops to parts, and the choice of a checkpoint's engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.engine_kinds import SUFFIXES, EngineKind, engines_for, install_hint, is_installed
from app.kit.cores import available_cores
from model.checkpoint import CheckpointMetadata


class EngineError(Exception):
    """An engine cannot be loaded, or failed on a crop."""


class Engine(Protocol):
    """A loaded network of one checkpoint."""

    @property
    def metadata(self) -> CheckpointMetadata:
        """The checkpoint's metadata, including its input size."""

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`(N, height, width, 3)` uint8 RGB -> `(N, 8, 256)` float32, each part L2-normalised times its weight.

        Blocks. The parts of a crop do not depend on the other crops of the call. `crops` is not kept after the call.
        """


@dataclass(frozen=True)
class Engines:
    """The engines of one checkpoint.

    workers: one for each worker thread; an engine that occurs several times can be called from several threads at once.
    single_request: computes with all cores, for a batch while all other workers are idle; None where there is none, as
    for a single worker. runs_on: the runtime and the device, for display.
    """

    workers: Sequence[Engine]
    single_request: Engine | None = None
    runs_on: str = "the CPU"

    @property
    def metadata(self) -> CheckpointMetadata:
        """The checkpoint's metadata."""
        return self.workers[0].metadata

    @property
    def with_all_cores(self) -> Engine:
        """The engine for a batch while all other workers are idle."""
        return self.single_request or self.workers[0]

    @property
    def distinct(self) -> Sequence[Engine]:
        """All engines, each once."""
        single_request = [] if self.single_request is None else [self.single_request]
        return list(dict.fromkeys([*self.workers, *single_request]))


def load_engines(checkpoint: Path, kind: EngineKind = "auto", threads: int | None = None) -> Engines:
    """Load a checkpoint with engines of a kind, on each GPU or else on the CPU.

    threads: for computing on the CPU; None uses every core that the process may use. Raises EngineError, and
    model.errors.CheckpointError where the file cannot be used.
    """
    kinds = engines_for(checkpoint.suffix)
    if not kinds:
        raise EngineError(f"{checkpoint} is no checkpoint: its name must end in {' or '.join(SUFFIXES)}")
    if checkpoint.is_dir():
        raise EngineError(f"{checkpoint} is a folder, not the file of a checkpoint")
    name = next(filter(is_installed, kinds), kinds[0]) if kind == "auto" else kind
    if name not in kinds:
        raise EngineError(
            f"the {name} engine cannot run {checkpoint}: take the {' or the '.join(kinds)} engine, or `auto`"
        )
    threads = threads or available_cores()
    try:
        match name:
            case "onnx":
                from app.embedding.onnx_engine import onnx_engines

                return onnx_engines(checkpoint, threads)
            case "openvino":
                from app.embedding.openvino_engine import openvino_engines

                return openvino_engines(checkpoint, threads)
            case "torch":
                from app.embedding.torch_engine import torch_engines

                return torch_engines(checkpoint, threads)
    except ImportError as error:
        raise EngineError(f"{checkpoint} cannot be run, as {install_hint(name)} ({error})") from error
