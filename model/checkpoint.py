"""Checkpoints: trained weights in safetensors together with everything needed to use them; needs no torch."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model.architecture import EQUAL_WEIGHTS, PARTS, MGNConfig, PartWeights
from model.calibration import Calibration
from model.errors import CheckpointError
from model.reference import Reference
from model.transforms import Interpolation

BUNDLED = Path(__file__).parent / "weights" / "mgn-osnet.onnx"
"""The checkpoint that ships with Passerby, as ONNX; with the suffix .safetensors it is the same for torch."""

SUPERSEDED = frozenset({"mgn-mobilenet_v2-4b06c49347f5", "mgn-mobilenet_v2-faf777c51541"})
"""The model ids of checkpoints that shipped with earlier versions: galleries change over from them by themselves."""

METADATA_KEY = "passerby"
"""The key under which a safetensors or ONNX file holds its metadata as JSON."""

Precision = Literal["float", "int8"]
"""What a checkpoint computes in. Embeddings of int8 lie apart from those of float, so they are another model's."""

UNKNOWN_DATA = "unknown"
"""The name of a converted checkpoint's training data where nobody tells it."""

Weights = Mapping[str, NDArray[Any]]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def above_zero(weights: PartWeights) -> PartWeights:
    """The weights of parts, if they are ones. Raises ValueError."""
    if not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"part_weights are finite numbers above 0, not {weights}")
    return weights


class InputFormat(_Part):
    """How a picture becomes the network's input. Height and width in pixels, mean and std of RGB in 0..1."""

    height: Annotated[int, Field(ge=32, le=1024)]
    width: Annotated[int, Field(ge=32, le=1024)]
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    flip: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


class TrainingData(_Part):
    """What the weights were learned from, and on which terms that data may be used.

    name: several data sets' names are joined by " + "; held_out_identities are of the first of them alone. teacher: the
    network, with its licence, whose similarities were learned too. started_from: the model id of the checkpoint that
    training went on from; started_from_data: what that was learned from, and so this one as well.
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


class MeasuredResult(_Part):
    """What an evaluation gave. Figures are fractions of 1; `map_step` and `map_trapezoid` are the two usual mAPs."""

    data: str
    protocol: str
    queries: int
    rank1: float
    rank5: float
    rank10: float
    map_step: float
    map_trapezoid: float
    minp: float


class CheckpointMetadata(_Part):
    """Everything about a checkpoint but its numbers; `sha256` is of the weights that training or conversion gave.

    part_weights: what each part counts for in an embedding; only their ratios matter.
    """

    format: Literal[1] = 1
    name: str
    architecture: MGNConfig
    parts: tuple[str, ...] = PARTS
    part_weights: Annotated[PartWeights, AfterValidator(above_zero)] = EQUAL_WEIGHTS
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
        """What a crop row records of the model that embedded it; the same for all forms that give the same vectors."""
        flip = "-flip" if self.input.flip else ""
        precision = "" if self.precision == "float" else f"-{self.precision}"
        return f"{self.name}-{self.sha256[:12]}{flip}{precision}"


class Checkpoint(NamedTuple):
    """A checkpoint in memory; the weights are named as in the network's state dict."""

    weights: Weights
    metadata: CheckpointMetadata


def save_checkpoint(path: Path, weights: Weights, metadata: CheckpointMetadata) -> Checkpoint:
    """Write a checkpoint, replacing `path` in one step, and return it with its SHA-256 filled in."""
    metadata = metadata.model_copy(update={"sha256": weights_sha256(weights, metadata.part_weights)})
    content = save(
        {name: np.ascontiguousarray(tensor) for name, tensor in weights.items()},
        metadata={METADATA_KEY: metadata.model_dump_json()},
    )
    write_atomically(path, content)
    return Checkpoint(weights, metadata)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check its SHA-256. Raises CheckpointError."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint at {path}") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no safetensors file or is damaged: {error}") from error
    metadata = parse_metadata(header.get(METADATA_KEY), path)
    if weights_sha256(weights, metadata.part_weights) != metadata.sha256:
        raise CheckpointError(f"the weights in {path} do not match their SHA-256: the file is damaged")
    return Checkpoint(weights, metadata)


def parse_metadata(text: str | None, path: Path) -> CheckpointMetadata:
    """Read the JSON that a checkpoint of either form carries. Raises CheckpointError, which names `path`."""
    if text is None:
        raise CheckpointError(
            f"{path} carries no Passerby metadata: make checkpoints with `python -m model train` or `export`"
        )
    try:
        return CheckpointMetadata.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(f"the metadata of {path} cannot be used: {error}") from error


def weights_sha256(weights: Weights, part_weights: PartWeights = EQUAL_WEIGHTS) -> str:
    """The digest of all names, types, shapes and numbers, whatever their order in the file.

    Weights of parts change embeddings as the network's do, so they count, except for equal ones: checkpoints of the
    first release do not name them.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = np.ascontiguousarray(weights[name])
        digest.update(json.dumps([name, str(tensor.dtype), tensor.shape]).encode())
        digest.update(tensor.tobytes())
    if part_weights != EQUAL_WEIGHTS:
        digest.update(json.dumps(["part_weights", part_weights]).encode())
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that `path` holds the old or the new content at any moment, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
