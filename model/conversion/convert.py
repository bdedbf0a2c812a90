"""Conversion of public MGN checkpoints; every tensor is used or listed as dropped."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.architecture import EMBEDDING_DIM, Pooling
from model.arrays import read_arrays, require_table
from model.backbones import build_backbone
from model.checkpoint import UNKNOWN_DATA, Checkpoint, CheckpointMetadata, TrainingData
from model.conversion.files import State, read_state
from model.conversion.layouts import CLASSIFIER, LAYOUTS, Layout, Translation, layout_named, recognise
from model.errors import CheckpointError, DataError, shortened
from model.loading import with_reference
from model.mgn import MGN, MGNOutput, load_embedder

MIN_COSINE = 0.999
"""The lowest allowed cosine to the source network's features in a parity check."""

_BATCH_SIZE = 16


@dataclass(frozen=True)
class Conversion:
    """A converted checkpoint, its layout, and the number of dropped tensors by reason.

    assumed: properties that neither the file nor the caller states.
    """

    checkpoint: Checkpoint
    layout: str
    used: int
    dropped: dict[str, int]
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parity:
    """The distance to the source network's features, both L2-normalised."""

    lowest_cosine: float
    largest_difference: float


def convert(
    path: Path, name: str, layout: str | None = None, pooling: Pooling | None = None, data: TrainingData | None = None
) -> Conversion:
    """Convert a file of public MGN code into a checkpoint called `name`.

    layout: the repository of that code; None: recognised. pooling: for a file that does not determine the pooling;
    None: that code's default. data: the training data. Raises CheckpointError for files that are damaged or of an
    unknown layout, and for tensors that are missing, unexpected or of another shape.
    """
    state = read_state(path)
    chosen = layout_named(layout) if layout else _recognised(state, path)
    try:
        translation, input_format = chosen.translate(state), chosen.input(state)
    except (IndexError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} has tensors of other shapes than {chosen.name}: {error}") from error
    if translation.unknown:
        raise CheckpointError(f"{path} has tensors that {chosen.name} does not have: {shortened(translation.unknown)}")
    config = chosen.architecture(state, _pooling(chosen, pooling, translation))
    _check_state(translation.weights, MGN(build_backbone(config), config).state_dict(), path)
    metadata = CheckpointMetadata(
        name=name,
        architecture=config,
        input=input_format,
        training_data=data or _unknown_data(chosen, state, translation),
        recipe={
            "converted_from": chosen.name,
            "file": path.name,
            "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "dropped": translation.dropped,
        },
    )
    weights = {key: value.float().contiguous().numpy() for key, value in translation.weights.items()}
    return Conversion(
        with_reference(Checkpoint(weights, metadata)),
        chosen.name,
        len(state) - len(translation.dropped),
        dict(Counter(translation.dropped.values())),
        _assumed(chosen, pooling, translation),
    )


def check_parity(checkpoint: Checkpoint, path: Path) -> Parity:
    """Compare the features with those of one forward pass of the source network, without flip averaging.

    The file holds `crops` `(N, height, width, 3)` uint8 RGB of the input size, and `features` `(N, 2048)` of any
    norm, with the parts in the order of `PARTS`. Raises CheckpointError for a cosine below MIN_COSINE, and for
    another kind of file.
    """
    network = load_embedder(checkpoint)

    def features(crops: Tensor) -> Tensor:
        output: MGNOutput = network.mgn(network.normalise(crops))
        return output.concatenation

    return compare_with_source(features, checkpoint.metadata.input.size, EMBEDDING_DIM, path)


def compare_with_source(
    features: Callable[[Tensor], Tensor], size: tuple[int, int], dimensions: int, path: Path
) -> Parity:
    """Compare `dimensions`-dimensional features for crops of `size` (height, width) with those in a file.

    Raises CheckpointError for a cosine below MIN_COSINE, and for another kind of file.
    """
    crops, source = _read_parity(path, size, dimensions)
    with torch.inference_mode():
        batches = (torch.from_numpy(crops[start : start + _BATCH_SIZE]) for start in range(0, len(crops), _BATCH_SIZE))
        converted = torch.cat([features(batch) for batch in batches])
    converted, source = F.normalize(converted.double()), F.normalize(source)
    lowest = float((converted * source).sum(dim=1).min())
    if not lowest >= MIN_COSINE:
        raise CheckpointError(
            f"the converted network differs from its source: lowest cosine {lowest:.6f}, at least {MIN_COSINE} is "
            "required; was it trained with another --pooling, are parts in another order, or were mirror images added?"
        )
    return Parity(lowest, float((converted - source).abs().max()))


def _read_parity(path: Path, size: tuple[int, int], dimensions: int) -> tuple[NDArray[np.uint8], Tensor]:
    try:
        arrays = read_arrays(path, ("crops", "features"), (), "no NPZ file with crops and features")
        crops, features = arrays["crops"], arrays["features"]
        require_table(path, "features", features)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if crops.dtype != np.uint8 or crops.shape[1:] != (*size, 3) or features.shape != (len(crops), dimensions):
        raise CheckpointError(
            f"{path} holds crops {crops.dtype} {crops.shape} and features {features.shape}; expected are uint8 "
            f"(N, {size[0]}, {size[1]}, 3) and (N, {dimensions})"
        )
    if not len(crops):
        raise CheckpointError(f"{path} holds no crops to compare")
    return crops, torch.from_numpy(features.astype(np.float64))


def _recognised(state: State, path: Path) -> Layout:
    layout = recognise(state)
    if layout is None:
        known = ", ".join(layout.name for layout in LAYOUTS)
        raise CheckpointError(
            f"{path} is no MGN in a known layout ({known}); its first tensors are {shortened(list(state))}"
        )
    return layout


def _pooling(layout: Layout, pooling: Pooling | None, translation: Translation) -> Pooling:
    """The network's pooling, given the caller's choice `pooling`. Raises CheckpointError if they contradict."""
    learned = _pooling_is_learned(translation)
    if learned and pooling not in (None, "gem"):
        raise CheckpointError(f"the file holds exponents of GeM pooling, so it cannot pool by {pooling}")
    if not learned and pooling == "gem":
        raise CheckpointError("the file holds no exponents of GeM pooling")
    possible = [kind for kind in layout.poolings if (kind == "gem") == learned]
    if pooling is None and not learned and "gem" in layout.poolings:
        raise CheckpointError(f"the file does not determine the pooling: give --pooling {' or '.join(possible)}")
    return pooling or possible[0]


def _pooling_is_learned(translation: Translation) -> bool:
    return any(name.startswith("pools.") for name in translation.weights)


def _assumed(layout: Layout, pooling: Pooling | None, translation: Translation) -> tuple[str, ...]:
    """See Conversion.assumed."""
    if pooling or _pooling_is_learned(translation) or len(layout.poolings) == 1:
        return ()
    default, *others = layout.poolings
    return (f"pooling: {default}, that code's default; for another, give --pooling {' or '.join(others)}",)


def _check_state(translated: State, network: State, path: Path) -> None:
    """Raise CheckpointError if names or shapes differ from the network's."""
    shapes = {name: value.shape for name, value in network.items() if not name.endswith("num_batches_tracked")}
    if missing := [name for name in shapes if name not in translated]:
        raise CheckpointError(f"{path} lacks the tensors of {shortened(missing)}")
    if unknown := [name for name in translated if name not in shapes]:
        raise CheckpointError(f"{path} has tensors for {shortened(unknown)}, which the network does not have")
    for name, shape in shapes.items():
        if translated[name].shape != shape:
            raise CheckpointError(f"{path}: {name} has shape {tuple(translated[name].shape)}, not {tuple(shape)}")


def _unknown_data(layout: Layout, state: State, translation: Translation) -> TrainingData:
    """Unknown training data; the number of persons is the classifiers' number of outputs."""
    persons = {
        len(state[name]) for name, reason in translation.dropped.items() if reason == CLASSIFIER and state[name].ndim
    }
    return TrainingData(
        name=UNKNOWN_DATA,
        terms=f"unknown: ask those who trained it with the code of {layout.name}",
        identities=persons.pop() if len(persons) == 1 else 0,
        crops=0,
    )
