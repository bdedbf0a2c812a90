"""The engine port: what turns crops into parts, and which engine a checkpoint gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.engine_kinds import KINDS_OF_SUFFIX, EngineKind, need_of
from app.kit.cores import available_cores
from model.checkpoint import CheckpointMetadata


class EngineError(Exception):
    """An engine cannot be set up, or failed on a crop."""


class Engine(Protocol):
    """A network ready to embed, of one checkpoint."""

    @property
    def metadata(self) -> CheckpointMetadata:
        """What the checkpoint says about itself, its input size among it."""

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`(N, height, width, 3)` uint8 RGB -> `(N, 8, 256)` float32, each part L2-normalised times its weight.

        Blocks. The parts of a crop do not depend on the other crops of the call. `crops` is not kept.
        """


@dataclass(frozen=True)
class Engines:
    """The engines of one checkpoint that embed side by side.

    Each of `workers` is called from a thread of its own; an engine that stands there several times can be called from
    several threads at once. A batch that no other is beside is for `lone`, where there is one: it takes all cores, of
    which a worker takes its share. `runs_on` says with what they compute and where, for people to read.
    """

    workers: Sequence[Engine]
    lone: Engine | None = None
    runs_on: str = "the CPU"

    @property
    def metadata(self) -> CheckpointMetadata:
        """What the checkpoint says about itself."""
        return self.workers[0].metadata

    @property
    def with_all_cores(self) -> Engine:
        """What a lone batch is given to."""
        return self.lone or self.workers[0]

    @property
    def different(self) -> Sequence[Engine]:
        """All of them, none twice."""
        lone = [] if self.lone is None else [self.lone]
        return list(dict.fromkeys([*self.workers, *lone]))


def load_engines(checkpoint: Path, kind: EngineKind = "auto", threads: int | None = None) -> Engines:
    """Load a checkpoint with engines of that kind, for each GPU or else for the CPU; `auto` goes by the suffix alone.

    `threads` is how many they compute with on the CPU; None takes every core that the process may use. Raises
    EngineError, or model.errors.CheckpointError where the file itself cannot be used.
    """
    fitting = KINDS_OF_SUFFIX.get(checkpoint.suffix)
    if fitting is None:
        raise EngineError(f"{checkpoint} is no checkpoint: its name must end in .onnx or .safetensors")
    if kind not in ("auto", *fitting):
        raise EngineError(
            f"the {kind} engine cannot run {checkpoint}: take the {' or the '.join(fitting)} engine, or `auto`"
        )
    taken = fitting[0] if kind == "auto" else kind
    threads = threads or available_cores()
    try:
        if taken == "onnx":
            from app.embedding.onnx_engine import onnx_engines

            return onnx_engines(checkpoint, threads)
        if taken == "openvino":
            from app.embedding.openvino_engine import openvino_engines

            return openvino_engines(checkpoint, threads)
        from app.embedding.torch_engine import torch_engines

        return torch_engines(checkpoint, threads)
    except ImportError as error:
        raise EngineError(f"{checkpoint} cannot be run, as {need_of(taken)} ({error})") from error
