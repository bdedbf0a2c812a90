"""The optional engine for ONNX checkpoints: OpenVINO on the CPU, in bfloat16 where embeddings keep their accuracy."""

import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from app.embedding.engine import EngineError, Engines
from app.embedding.onnx_input import check_input
from app.kit.processor import has_bfloat16
from model.checkpoint import METADATA_KEY, CheckpointMetadata, parse_metadata
from model.errors import CheckpointError

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # otherwise importing openvino sends telemetry to its vendor
import openvino  # noqa: E402

_log = structlog.get_logger()

Precision = Literal["float32", "bfloat16"]

BFLOAT16_COSINE = 0.9995
"""The lowest cosine to the reference embeddings accepted in bfloat16. The bundled networks reach 0.99980 and 0.99961,
and rank held-out persons as in single precision; `mgn-mobilenet_v2` of 0.1.0 reaches 0.9963."""

_HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine:
    """See Engine. `calls` concurrent calls share its threads evenly; further ones wait.

    The batch size is dynamic: networks compiled for fixed sizes take memory each and are no faster.
    """

    def __init__(self, checkpoint: Path, threads: int, calls: int = 1, precision: Precision = "float32") -> None:
        """threads: of all calls together. Raises CheckpointError."""
        core = openvino.Core()
        network, self.metadata = _read(core, checkpoint)
        self.precision = precision
        hints = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],  # the default is bfloat16 even where that is slower
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": calls,
            "ENABLE_HYPER_THREADING": True,  # `threads` counts logical cores, as everywhere
            "ENABLE_CPU_PINNING": False,  # other threads, and the process that embeds in the background, want cores
        }
        try:
            compiled = core.compile_model(network, "CPU", hints)
        except RuntimeError as error:
            raise CheckpointError(f"OpenVINO cannot run {checkpoint}: {error}") from error
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(calls):
            self._idle.put(compiled.create_infer_request())

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine. Raises EngineError for crops of another size, which OpenVINO may accept silently."""
        if crops.shape[1:] != (*self.metadata.input.size, 3):
            raise EngineError(f"crops are {self.metadata.input.size} pixels and RGB, not an array of {crops.shape}")
        request = self._idle.get()
        try:
            parts: NDArray[np.float32] = request.infer({"crops": crops})[
                "parts"
            ].copy()  # the request reuses its memory
        finally:
            self._idle.put(request)
        return parts


def openvino_engines(checkpoint: Path, cores: int, precision: Precision | None = None) -> Engines:
    """A worker for each core, and a single-request engine with all cores, as in `onnx_engines`.

    precision: by default that of `best_precision`. Raises CheckpointError.
    """
    precision = precision or best_precision(checkpoint)
    worker = OpenVinoEngine(checkpoint, cores, cores, precision)
    single_request = OpenVinoEngine(checkpoint, cores, 1, precision) if cores > 1 else None
    return Engines([worker] * cores, single_request, f"the CPU, with OpenVINO in {precision}")


def best_precision(checkpoint: Path) -> Precision:
    """bfloat16 where the processor has it and the reference embeddings are reproduced closely enough.

    Raises CheckpointError.
    """
    if not has_bfloat16():
        return "float32"
    engine = OpenVinoEngine(checkpoint, threads=1, precision="bfloat16")
    metadata = engine.metadata
    if metadata.reference is None:
        return "float32"
    cosine = metadata.reference.lowest_cosine(engine.embed, metadata.input.size)
    precision: Precision = "bfloat16" if cosine >= BFLOAT16_COSINE else "float32"
    _log.info(
        "OpenVINO's precision is chosen by the reference embeddings",
        model_id=metadata.model_id,
        precision=precision,
        cosine=round(cosine, 5),
        required=BFLOAT16_COSINE,
    )
    return precision


def _read(core: Any, checkpoint: Path) -> tuple[Any, CheckpointMetadata]:
    if not checkpoint.exists():
        raise CheckpointError(f"there is no checkpoint at {checkpoint}")
    try:
        network = core.read_model(checkpoint)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint} is no ONNX file that can be run: {error}") from error
    place = ["framework", METADATA_KEY]
    text = network.get_rt_info(place).value if network.has_rt_info(place) else None
    metadata = parse_metadata(text, checkpoint)
    inputs = {given.any_name: [*map(_size, list(given.partial_shape)[1:])] for given in network.inputs}
    check_input(checkpoint, inputs, metadata)
    return network, metadata


def _size(dimension: Any) -> int | None:
    """The size of a dimension, None where it is dynamic."""
    return dimension.get_length() if dimension.is_static else None
