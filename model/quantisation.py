"""Quantisation of checkpoints to int8: about half the time and size, with slightly different embeddings."""

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

from model.checkpoint import Checkpoint
from model.errors import CheckpointError
from model.export import describe, write_graph
from model.files import write_atomically
from model.loading import Inference, inference_of, load_for_inference
from model.reference import Reference

Crops = NDArray[np.uint8]

GROUP_SIZE = 5
"""The number of consecutive convolutions that stay in float32 together.

A single convolution would not: when ONNX Runtime opens the file, it quantises the weights of a float convolution
between quantised ones, per tensor (WeightBiasQuantization)."""

_BATCH_SIZE = 16


@dataclass(frozen=True)
class Quantised:
    """Comparison of an int8 network with its float original, on crops that it was not calibrated on.

    left_out: how many of the `convolutions` stay in float32. speed_up: ratio of times for batches of 16.
    """

    mean_cosine: float
    lowest_cosine: float
    left_out: int
    convolutions: int
    speed_up: float


def export_int8(checkpoint: Checkpoint, path: Path, crops: Crops, cosine: float) -> Quantised:
    """Write a checkpoint as int8 ONNX, calibrated on half of `crops` and compared on the other half.

    Static quantisation: weights per channel, activations by minimum and maximum. crops: `(N, height, width, 3)` uint8
    RGB. If the mean cosine to the checkpoint's embeddings is below `cosine`, groups of convolutions stay in float32, as
    few as suffice. Raises CheckpointError, and writes nothing, if no choice suffices.
    """
    calibration, test = crops[::2], crops[1::2]
    exact = _embedded(inference_of(checkpoint), test)
    metadata = checkpoint.metadata.model_copy(update={"precision": "int8"})
    with TemporaryDirectory() as temporary:
        search = _LayerSearch(write_graph(checkpoint, Path(temporary)), Path(temporary), checkpoint, calibration)
        left_out, cosines = search.find(test, exact, cosine)
        if cosines.mean() < cosine:
            raise CheckpointError(
                f"no choice of layers reaches a mean cosine of {cosine}: it is {cosines.mean():.4f}; "
                "nothing was written"
            )
        reference = Reference.of(load_for_inference(search.candidate).embed, metadata.input.size)
        graph = onnx.load(search.candidate)
        describe(graph, metadata.model_copy(update={"reference": reference}))
        onnx.save(graph, search.candidate)
        speed_up = _speed_up(search.plain, search.candidate, checkpoint, test[:_BATCH_SIZE])
        write_atomically(path, search.candidate.read_bytes())
    float_convolutions = sum(min(GROUP_SIZE, search.convolutions - group * GROUP_SIZE) for group in left_out)
    return Quantised(float(cosines.mean()), float(cosines.min()), float_convolutions, search.convolutions, speed_up)


class _LayerSearch:
    """A search for the layers to leave in float32, by quantising a network repeatedly."""

    def __init__(self, raw: Path, folder: Path, checkpoint: Checkpoint, calibration: Crops) -> None:
        self.plain = folder / "plain.onnx"
        self.candidate = folder / "candidate.onnx"
        self._prepared = folder / "prepared.onnx"
        self._metadata = checkpoint.metadata
        self._calibration = calibration
        # Symbolic shape inference fails on graphs with a dynamic batch size.
        quant_pre_process(str(raw), str(self._prepared), skip_symbolic_shape=True)
        nodes = list(onnx.load(self._prepared).graph.node)
        positions = [position for position, node in enumerate(nodes) if node.op_type == "Conv"]
        self.convolutions = len(positions)
        starts = positions[::GROUP_SIZE]
        ends = [*starts[1:], len(nodes)]
        self._groups = [[node.name for node in nodes[start:end]] for start, end in zip(starts, ends, strict=True)]
        graph = onnx.load(raw)
        describe(graph, self._metadata)
        onnx.save(graph, self.plain)

    def find(
        self, test: Crops, reference: NDArray[np.float32], min_cosine: float
    ) -> tuple[list[int], NDArray[np.float32]]:
        """The groups left in float32, and the candidate's cosines to `reference` with this choice.

        Takes the first group that suffices alone; otherwise adds groups in order of their gain.
        """
        cosines = self._cosines([], test, reference)
        if cosines.mean() >= min_cosine:
            return [], cosines
        means = []
        for group in range(len(self._groups)):
            cosines = self._cosines([group], test, reference)
            if cosines.mean() >= min_cosine:
                return [group], cosines
            means.append(cosines.mean())
        left_out: list[int] = []
        for group in np.argsort(means)[::-1].tolist():
            left_out.append(group)
            cosines = self._cosines(left_out, test, reference)
            if cosines.mean() >= min_cosine:
                break
        return left_out, cosines

    def _cosines(self, left_out: Sequence[int], test: Crops, reference: NDArray[np.float32]) -> NDArray[np.float32]:
        """Write the candidate with these groups in float32; `(N,)`: its cosines to the reference."""
        level = logging.root.level
        logging.root.setLevel(logging.ERROR)  # hide its advice to preprocess, which was done above
        try:
            quantize_static(
                str(self._prepared),
                str(self.candidate),
                _CalibrationReader(self._calibration),
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
        products = _embedded(load_for_inference(self.candidate), test) * reference
        cosines: NDArray[np.float32] = products.sum(axis=(1, 2))
        return cosines


class _CalibrationReader(CalibrationDataReader):  # type: ignore[misc]
    """Yields the crops in batches."""

    def __init__(self, crops: Crops) -> None:
        self._batches: Iterator[Crops] = iter([crops[i : i + _BATCH_SIZE] for i in range(0, len(crops), _BATCH_SIZE)])

    def get_next(self) -> dict[str, Crops] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"crops": batch}


def _embedded(network: Inference, crops: Crops) -> NDArray[np.float32]:
    return np.concatenate([network.embed(crops[i : i + _BATCH_SIZE]) for i in range(0, len(crops), _BATCH_SIZE)])


def _speed_up(plain: Path, quantised: Path, checkpoint: Checkpoint, crops: Crops, rounds: int = 9) -> float:
    """The median ratio of times over all rounds but the first, a warm-up; each round times both networks once."""
    networks = [load_for_inference(plain), load_for_inference(quantised)]
    ratios = []
    for _ in range(rounds):
        times = []
        for network in networks:
            start = time.perf_counter()
            network.embed(crops)
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return float(np.median(ratios[1:]))
