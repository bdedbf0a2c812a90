"""Checkpoints in 8-bit integers: about half the time and size, for vectors that differ a little."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from model.checkpoint import Checkpoint, write_atomically
from model.errors import CheckpointError
from model.export import describe, write_graph
from model.loading import Inference, inference_of, load_for_inference
from model.reference import Reference

Crops = NDArray[np.uint8]

GROUP = 5
"""Convolutions that are left in single precision together: several, as ONNX Runtime quantises the weights of a single
one between others that are quantised all the same, and by tensor, when it opens the file (WeightBiasQuantization)."""

_BATCH = 16


@dataclass(frozen=True)
class Quantised:
    """How an 8-bit network compares with the one it was made of, over crops that it was not calibrated on.

    left_out: convolutions that stay in single precision, of `convolutions`. speed_up: at batches of 16.
    """

    mean_cosine: float
    lowest_cosine: float
    left_out: int
    convolutions: int
    speed_up: float


def export_int8(checkpoint: Checkpoint, path: Path, crops: Crops, cosine: float) -> Quantised:
    """Write a checkpoint as ONNX in 8-bit integers, calibrated on half of `crops` and compared on the other half.

    Static quantisation, weights by channel, activations between the least and the greatest seen. Where the mean cosine
    to the checkpoint's own embeddings is below `cosine`, convolutions are left in single precision, as few groups
    as do. Raises CheckpointError, and writes nothing, where it cannot be.
    """
    seen, unseen = crops[::2], crops[1::2]
    exact = _embedded(inference_of(checkpoint), unseen)
    metadata = checkpoint.metadata.model_copy(update={"precision": "int8"})
    with TemporaryDirectory() as temporary:
        workshop = _Workshop(write_graph(checkpoint, Path(temporary)), Path(temporary), checkpoint, seen)
        left_out, found = workshop.search(unseen, exact, cosine)
        if found.mean() < cosine:
            raise CheckpointError(
                f"no choice of layers reaches a mean cosine of {cosine}: it is {found.mean():.4f}; nothing was written"
            )
        reference = Reference.of(load_for_inference(workshop.candidate).embed, metadata.input.size)
        graph = onnx.load(workshop.candidate)
        describe(graph, metadata.model_copy(update={"reference": reference}))
        onnx.save(graph, workshop.candidate)
        speed_up = _speed_up(workshop.plain, workshop.candidate, checkpoint, unseen[:_BATCH])
        write_atomically(path, workshop.candidate.read_bytes())
    return Quantised(float(found.mean()), float(found.min()), len(left_out) * GROUP, workshop.convolutions, speed_up)


class _Workshop:
    """One network, quantised again and again with other layers left out."""

    def __init__(self, raw: Path, folder: Path, checkpoint: Checkpoint, seen: Crops) -> None:
        self.plain = folder / "plain.onnx"
        self.candidate = folder / "candidate.onnx"
        self._prepared = folder / "prepared.onnx"
        self._metadata = checkpoint.metadata
        self._seen = seen
        # Symbolic shapes fail on graphs of any batch size.
        quant_pre_process(str(raw), str(self._prepared), skip_symbolic_shape=True)
        nodes = list(onnx.load(self._prepared).graph.node)
        places = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
        self.convolutions = len(places)
        starts = places[::GROUP]
        ends = [*starts[1:], len(nodes)]
        self._groups = [[node.name for node in nodes[start:end]] for start, end in zip(starts, ends, strict=True)]
        graph = onnx.load(raw)
        describe(graph, self._metadata)
        onnx.save(graph, self.plain)

    def search(
        self, unseen: Crops, reference: NDArray[np.float32], wanted: float
    ) -> tuple[list[int], NDArray[np.float32]]:
        """The groups left out, and the cosines that the candidate then has.

        The first group that is enough alone is taken; if none is, those that gain most are left out together.
        """
        found = self._cosines([], unseen, reference)
        if found.mean() >= wanted:
            return [], found
        gains = []
        for group in range(len(self._groups)):
            found = self._cosines([group], unseen, reference)
            if found.mean() >= wanted:
                return [group], found
            gains.append(found.mean())
        left_out: list[int] = []
        for group in np.argsort(gains)[::-1].tolist():
            left_out.append(group)
            found = self._cosines(left_out, unseen, reference)
            if found.mean() >= wanted:
                break
        return left_out, found

    def _cosines(self, left_out: Sequence[int], unseen: Crops, reference: NDArray[np.float32]) -> NDArray[np.float32]:
        level = logging.root.level
        logging.root.setLevel(logging.ERROR)  # it advises what was done before
        try:
            quantize_static(
                str(self._prepared),
                str(self.candidate),
                _Reader(self._seen),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[name for group in left_out for name in self._groups[group]],
            )
        finally:
            logging.root.setLevel(level)
        graph = onnx.load(self.candidate)
        describe(graph, self._metadata)
        onnx.save(graph, self.candidate)
        products = _embedded(load_for_inference(self.candidate), unseen) * reference
        cosines: NDArray[np.float32] = products.sum(axis=(1, 2))
        return cosines


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Gives the crops a few at a time."""

    def __init__(self, crops: Crops) -> None:
        self._batches: Iterator[Crops] = iter([crops[i : i + _BATCH] for i in range(0, len(crops), _BATCH)])

    def get_next(self) -> dict[str, Crops] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"crops": batch}


def _embedded(network: Inference, crops: Crops) -> NDArray[np.float32]:
    return np.concatenate([network.embed(crops[i : i + _BATCH]) for i in range(0, len(crops), _BATCH)])


def _speed_up(plain: Path, quantised: Path, checkpoint: Checkpoint, crops: Crops, rounds: int = 9) -> float:
    """The median of the ratios of rounds in which each is timed once."""
    networks = [load_for_inference(plain), load_for_inference(quantised)]
    ratios = []
    for _ in range(rounds):
        times = []
        for network in networks:
            began = time.perf_counter()
            network.embed(crops)
            times.append(time.perf_counter() - began)
        ratios.append(times[0] / times[1])
    return float(np.median(ratios[1:]))
