"""Converting a public MGN checkpoint into ours, every tensor used or named as dropped."""

import hashlib
import zipfile
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
from model.backbones import build_backbone
from model.checkpoint import UNKNOWN_DATA, Checkpoint, CheckpointMetadata, TrainingData
from model.conversion.files import State, read_state
from model.conversion.layouts import CLASSIFIER, LAYOUTS, Layout, Translation, layout_named, recognise
from model.errors import CheckpointError
from model.loading import with_reference
from model.mgn import MGN, MGNOutput, load_embedder

LOWEST_COSINE = 0.999
"""To the source's own features, in a parity check."""


@dataclass(frozen=True)
class Conversion:
    """A converted checkpoint, where it comes from, and how many tensors were dropped for which reason.

    assumed: what the file does not tell and nobody said.
    """

    checkpoint: Checkpoint
    layout: str
    used: int
    dropped: dict[str, int]
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parity:
    """How near our features come to the source's: cosines, and the numbers of vectors of length 1."""

    lowest_cosine: float
    largest_difference: float


def convert(
    path: Path, name: str, layout: str | None = None, pooling: Pooling | None = None, data: TrainingData | None = None
) -> Conversion:
    """Read a file of public MGN code and make it a checkpoint called `name`.

    layout: the repository whose code saved it, by default the one that it looks like. pooling: where the file cannot
    tell, by default that code's own. data: what it was trained on. Raises CheckpointError for files that are damaged or
    foreign, and for tensors that are missing, left over or of another shape.
    """
    state = read_state(path)
    chosen = layout_named(layout) if layout else _recognised(state, path)
    translation = chosen.translate(state)
    if translation.unknown:
        raise CheckpointError(f"{path} has tensors that {chosen.name} has not: {_some(translation.unknown)}")
    config = chosen.architecture(state, _pooling(chosen, pooling, translation))
    _check_shapes(MGN(build_backbone(config), config).state_dict(), translation.weights, path)
    metadata = CheckpointMetadata(
        name=name,
        architecture=config,
        input=chosen.input(state),
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
    """Compare our features with those that one forward pass of the source's own network gave, without mirror images.

    The file holds `crops` `(N, height, width, 3)` uint8 RGB of the input size, and `features` `(N, 2048)` of any
    length, parts in our order. Raises CheckpointError where a cosine is below LOWEST_COSINE, and for another
    kind of file.
    """
    network = load_embedder(checkpoint)

    def features(crops: Tensor) -> Tensor:
        output: MGNOutput = network.mgn(network.normalise(crops))
        return output.concatenation

    return compare_with_source(features, checkpoint.metadata.input.size, EMBEDDING_DIM, path)


def compare_with_source(
    features: Callable[[Tensor], Tensor], size: tuple[int, int], numbers: int, path: Path
) -> Parity:
    """Compare the `numbers` features that we give crops of `size` (height, width) with those in a file.

    Raises CheckpointError where a cosine is below LOWEST_COSINE, and for another kind of file.
    """
    crops, theirs = _read_parity(path, size, numbers)
    with torch.inference_mode():
        batches = (torch.from_numpy(crops[start : start + 16]) for start in range(0, len(crops), 16))
        ours = torch.cat([features(batch) for batch in batches])
    ours, theirs = F.normalize(ours.double()), F.normalize(theirs)
    lowest = float((ours * theirs).sum(dim=1).min())
    if not lowest >= LOWEST_COSINE:
        raise CheckpointError(
            f"the converted network differs from its source: lowest cosine {lowest:.6f}, at least {LOWEST_COSINE} is "
            "wanted; was it trained with another --pooling, are parts in another order, or were mirror images added?"
        )
    return Parity(lowest, float((ours - theirs).abs().max()))


def _read_parity(path: Path, size: tuple[int, int], numbers: int) -> tuple[NDArray[np.uint8], Tensor]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            crops, features = arrays["crops"], arrays["features"].astype(np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise CheckpointError(f"{path} is no NPZ file with crops and features: {error}") from error
    if crops.dtype != np.uint8 or crops.shape[1:] != (*size, 3) or features.shape != (len(crops), numbers):
        raise CheckpointError(
            f"{path} holds crops {crops.dtype} {crops.shape} and features {features.shape}; wanted are uint8 "
            f"(N, {size[0]}, {size[1]}, 3) and (N, {numbers})"
        )
    if not len(crops):
        raise CheckpointError(f"{path} holds no crops to compare")
    return crops, torch.from_numpy(features)


def _recognised(state: State, path: Path) -> Layout:
    layout = recognise(state)
    if layout is None:
        known = ", ".join(layout.name for layout in LAYOUTS)
        raise CheckpointError(
            f"{path} is no MGN in a layout that we know ({known}); its first tensors are {_some(list(state))}"
        )
    return layout


def _pooling(layout: Layout, asked: Pooling | None, translation: Translation) -> Pooling:
    learned = _pools_are_learned(translation)
    if learned and asked not in (None, "gem"):
        raise CheckpointError(f"the file holds exponents of GeM pooling, so it cannot pool by {asked}")
    if not learned and asked == "gem":
        raise CheckpointError("the file holds no exponents of GeM pooling")
    usual = [pooling for pooling in layout.poolings if (pooling == "gem") == learned]
    if asked is None and not learned and "gem" in layout.poolings:
        raise CheckpointError(f"the file does not tell how it pools: give --pooling {' or '.join(usual)}")
    return asked or usual[0]


def _pools_are_learned(translation: Translation) -> bool:
    return any(name.startswith("pools.") for name in translation.weights)


def _assumed(layout: Layout, asked: Pooling | None, translation: Translation) -> tuple[str, ...]:
    if asked or _pools_are_learned(translation) or len(layout.poolings) == 1:
        return ()
    usual, *others = layout.poolings
    return (f"it pools by {usual}, as that code does unless told; if it was, give --pooling {' or '.join(others)}",)


def _check_shapes(ours: State, translated: State, path: Path) -> None:
    wanted = {name: value.shape for name, value in ours.items() if not name.endswith("num_batches_tracked")}
    if missing := [name for name in wanted if name not in translated]:
        raise CheckpointError(f"{path} lacks what becomes {_some(missing)}")
    if left := [name for name in translated if name not in wanted]:
        raise CheckpointError(f"{path} has tensors for {_some(left)}, which the network has not")
    for name, shape in wanted.items():
        if translated[name].shape != shape:
            raise CheckpointError(f"{path}: {name} has shape {tuple(translated[name].shape)}, not {tuple(shape)}")


def _unknown_data(layout: Layout, state: State, translation: Translation) -> TrainingData:
    """Of data that nobody tells, at least the number of persons can be seen: the classifiers' outputs."""
    persons = {len(state[name]) for name, reason in translation.dropped.items() if reason == CLASSIFIER}
    return TrainingData(
        name=UNKNOWN_DATA,
        terms=f"unknown: ask whoever trained it with the code of {layout.name}",
        identities=persons.pop() if len(persons) == 1 else 0,
        crops=0,
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
