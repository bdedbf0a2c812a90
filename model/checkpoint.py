"""Checkpoints: trained weights in safetensors together with everything needed to use them. Needs no torch."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, PositiveFloat, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model.architecture import EQUAL_WEIGHTS, PARTS, MGNConfig, PartWeights
from model.calibration import Calibration
from model.errors import CheckpointError, validation_problems
from model.files import write_atomically
from model.frozen import FrozenModel
from model.reference import Reference
from model.transforms import Interpolation

BUNDLED = Path(__file__).parent / "weights" / "mgn-osnet.onnx"
"""The checkpoint shipped with Passerby, as ONNX; the same path with .safetensors is the torch form."""

SUPERSEDED = frozenset({"mgn-mobilenet_v2-4b06c49347f5", "mgn-mobilenet_v2-faf777c51541"})
"""The model ids of checkpoints that shipped with earlier versions; services replace them automatically."""

METADATA_KEY = "passerby"
"""The key under which a safetensors or ONNX file holds its metadata as JSON."""

Precision = Literal["float", "int8"]
"""The arithmetic of a checkpoint. int8 and float embeddings differ, so they have different model ids."""

UNKNOWN_DATA = "unknown"
"""The name of a converted checkpoint's training data if the caller gives none."""

Weights = Mapping[str, NDArray[Any]]


def validate_part_weights(weights: PartWeights) -> PartWeights:
    """Return the part weights. Raises ValueError if one is not a finite number above 0."""
    if not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"part_weights are finite numbers above 0, not {weights}")
    return weights


class InputFormat(FrozenModel):
    """The network's input format. Height and width in pixels, mean and std of RGB in 0..1.

    flip: whether embeddings are averaged with those of the mirror image.
    """

    height: Annotated[int, Field(ge=32, le=1024)]
    width: Annotated[int, Field(ge=32, le=1024)]
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    flip: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


class TrainingData(FrozenModel):
    """The training data of the weights, and its terms of use.

    name: several data sets' names are joined by " + "; held_out_identities: of the first of them only. teacher: the
    network, with its licence, for distillation. started_from: the model id of the checkpoint or network that training
    started from; started_from_data: its training data.
    """

    name: str
    terms: str
    identities: int
    crops: int
    held_out_identities: int = 0
    hold_out_seed: int = 0
    teacher: str | None = None
    started_from: str | None = None
    started_from_data: "TrainingData | None" = None


class MeasuredResult(FrozenModel):
    """The result of an evaluation. Values are fractions of 1; `map_step` and `map_trapezoid` are the two usual mAPs."""

    data: str
    protocol: str
    queries: int
    rank1: float
    rank5: float
    rank10: float
    map_step: float
    map_trapezoid: float
    minp: float


class CheckpointMetadata(FrozenModel):
    """Everything about a checkpoint but its weights; `sha256` is the digest of the weights from training or conversion.

    part_weights: the weight of each part in an embedding; only the ratios matter.
    """

    format: Literal[1] = 1
    name: str
    architecture: MGNConfig
    parts: tuple[str, ...] = PARTS
    part_weights: Annotated[PartWeights, AfterValidator(validate_part_weights)] = EQUAL_WEIGHTS
    input: InputFormat
    training_data: TrainingData
    recipe: dict[str, Any]
    results: tuple[MeasuredResult, ...] = ()
    calibration: Calibration | None = None
    reference: Reference | None = None
    precision: Precision = "float"
    sha256: str = ""

    @property
    def model_id(self) -> str:
        """The id stored with each embedding; the same for all file formats that give the same embeddings."""
        flip = "-flip" if self.input.flip else ""
        precision = "" if self.precision == "float" else f"-{self.precision}"
        return f"{self.name}-{self.sha256[:12]}{flip}{precision}"


class Checkpoint(NamedTuple):
    """A checkpoint in memory; the names of the weights are those of the state dict."""

    weights: Weights
    metadata: CheckpointMetadata


def save_checkpoint(path: Path, weights: Weights, metadata: CheckpointMetadata) -> Checkpoint:
    """Write a checkpoint atomically and return it with its SHA-256."""
    metadata = metadata.model_copy(update={"sha256": weights_sha256(weights, metadata.part_weights)})
    content = save(
        {name: np.ascontiguousarray(tensor) for name, tensor in weights.items()},
        metadata={METADATA_KEY: metadata.model_dump_json()},
    )
    write_atomically(path, content)
    return Checkpoint(weights, metadata)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check its SHA-256. Raises CheckpointError."""
    weights, header = read_safetensors(path)
    metadata = parse_metadata(header.get(METADATA_KEY), path)
    if weights_sha256(weights, metadata.part_weights) != metadata.sha256:
        raise CheckpointError(f"the weights in {path} do not match their SHA-256: the file is damaged")
    return Checkpoint(weights, metadata)


def read_safetensors(path: Path) -> tuple[Weights, dict[str, str]]:
    """The tensors of a safetensors file by name, and its header. Raises CheckpointError."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint at {path}") from None
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:  # numpy lacks some types
        raise CheckpointError(f"{path} is no safetensors file or is damaged: {error}") from error


def parse_metadata(text: str | None, path: Path) -> CheckpointMetadata:
    """Parse the JSON metadata of a .safetensors or .onnx checkpoint. Raises CheckpointError with `path`."""
    if text is None:
        raise CheckpointError(
            f"{path} contains no Passerby metadata: make checkpoints with `python -m model train` or `export`"
        )
    try:
        return CheckpointMetadata.model_validate_json(text)
    except ValidationError as error:
        problems = validation_problems(error, "metadata")
        raise CheckpointError(f"the metadata of {path} cannot be used: {problems}") from error


def weights_sha256(weights: Weights, part_weights: PartWeights = EQUAL_WEIGHTS) -> str:
    """The SHA-256 of all names, types, shapes and values, independent of their order in the file.

    Part weights change embeddings, so they are included, except equal ones: checkpoints of the first release have none.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = np.ascontiguousarray(weights[name])
        digest.update(json.dumps([name, str(tensor.dtype), tensor.shape]).encode())
        digest.update(tensor.tobytes())
    if part_weights != EQUAL_WEIGHTS:
        digest.update(json.dumps(["part_weights", part_weights]).encode())
    return digest.hexdigest()
