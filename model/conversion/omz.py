"""Conversion of the graph of an Open Model Zoo re-identification network to `OMZOSNet`; every constant must be used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.architecture import OMZChannels
from model.conversion.openvino_ir import IR, Constant, Operation, read_ir
from model.errors import CheckpointError
from model.osnet import CONTEXT_GROUPS, STREAMS, OMZOSNet

Values = NDArray[np.float32]

_BGR_TO_RGB = [2, 1, 0]
_INPUT = "1,3,256,128"
_NORM = {"eps": "9.9999997473787516e-06", "eps_mode": "inside_sqrt", "normalize_variance": "true"}


@dataclass(frozen=True)
class OMZWeights:
    """A network's weights by the names of `OMZOSNet`, its channels, and its mean and std of RGB in 0..1.

    constants: the number of constants in the file.
    """

    weights: dict[str, Tensor]
    channels: OMZChannels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    constants: int


def convert_omz(path: Path) -> OMZWeights:
    """Read an IR's .xml file and the .bin in the same folder.

    The operations must be those of the network, in its order, and must use every constant. Raises CheckpointError with
    the first unexpected operation or unused constant.
    """
    reader = _Reader(read_ir(path))
    mean, std = reader.network()
    reader.check_all_read()
    channels = reader.channels()
    expected = {name: tuple(tensor.shape) for name, tensor in OMZOSNet(channels).state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in reader.weights.items()}
    if expected != shapes:
        name = next(name for name in [*expected, *shapes] if expected.get(name) != shapes.get(name))
        raise CheckpointError(
            f"{path} is no OSNet of channels {channels}: {name} has shape {shapes.get(name)}, not {expected.get(name)}"
        )
    return OMZWeights(reader.weights, channels, mean, std, len(reader.used))


Gate = Callable[[str, str, int], str]
"""(gate's name, features' name, number of the stream) -> the name of the gated features."""


@dataclass
class _Reader:
    """Reads the operations in order; each method checks the operations that it expects, and raises CheckpointError.

    weights: those read so far. used: the names of the constants read so far. position: of the next operation.
    Operations are passed by name.
    """

    ir: IR
    weights: dict[str, Tensor] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    position: int = 0

    def network(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Read the whole network, from the picture to its features; returns mean and standard deviation."""
        picture = self.next("Parameter", (), shape=_INPUT, element_type="f32")
        rgb, (order, axis) = self.with_constants("Gather", [picture], 2)
        self.expect("the order of channels", order, _BGR_TO_RGB)
        self.expect("the axis of channels", axis, [1])
        centred, mean = self.one_constant("Subtract", rgb)
        scaled, factor = self.one_constant("Multiply", centred)
        out = self.instance_norm("input_norm", scaled)
        out = self.convolution("conv1", out, bias=False, strides="2, 2", pads_begin="3, 3", pads_end="3, 3")
        out = self.next("ReLU", [self.instance_norm("stem_norm", out)])
        out = self.next("MaxPool", [out], kernel="3, 3", strides="2, 2", pads_begin="1, 1", rounding_type="floor")
        for stage in ("conv2", "conv3", "conv4"):
            out = self.block(f"{stage}.0", out, self.shared_gate, downsample=True)
            out = self.block(f"{stage}.1", out, self.context_gate, downsample=False)
            if stage != "conv4":
                out = self.next("ReLU", [self.convolution(f"{stage}.2", out)])
                out = self.next("AvgPool", [out], kernel="2, 2", strides="2, 2", pads_begin="0, 0")
        out = self.next("ReLU", [self.convolution("conv5.0", out)])
        self.head(out)
        return _triple(mean / 255), _triple(1 / (factor * 255))

    def channels(self) -> OMZChannels:
        """The channels of the stem and of the stages, from the weights that were read."""
        names = ("conv1.weight", *(f"conv{stage}.0.conv3.weight" for stage in (2, 3, 4)))
        stem, first, second, third = (len(self.weights[name]) for name in names)
        if any(stage % (4 * CONTEXT_GROUPS) for stage in (first, second, third)):
            raise CheckpointError(
                f"{self.ir.path} has stages of {first}, {second} and {third} channels, not multiples of "
                f"{4 * CONTEXT_GROUPS}"
            )
        return stem, first, second, third

    def block(self, name: str, features: str, gate: Gate, downsample: bool) -> str:
        reduced = self.next("ReLU", [self.convolution(f"{name}.conv1", features)])
        summed = ""
        for stream in range(STREAMS):
            out = reduced
            for number in range(stream + 1):
                out = self.light_convolution(f"{name}.streams.{stream}.{number}", out)
            gated = gate(f"{name}.gate", out, stream)
            summed = self.next("Add", [summed, gated]) if stream else gated
        out = self.convolution(f"{name}.conv3", summed)
        residual = self.convolution(f"{name}.downsample", features) if downsample else features
        return self.next("ReLU", [self.next("Add", [out, residual])])

    def light_convolution(self, name: str, features: str) -> str:
        out = self.convolution(f"{name}.conv1", features, bias=False)
        return self.next("ReLU", [self.convolution(f"{name}.conv2", out, depthwise=True, pads_begin="1, 1")])

    def shared_gate(self, name: str, features: str, stream: int) -> str:
        """The two layers of the shared gate; the file repeats their biases, and sometimes weights, for each stream."""
        means = self.mean_over_map(features)
        hidden = self.next("ReLU", [self.convolution(f"{name}.fc1", means)])
        gate = self.next("Sigmoid", [self.convolution(f"{name}.fc2", hidden)])
        return self.next("Multiply", [features, gate])

    def context_gate(self, name: str, features: str, stream: int) -> str:
        means = self.mean_over_map(features)
        grouped, (shape,) = self.with_constants("Reshape", [means], 1)
        self.expect("the groups of a context gate", shape[1:2], [CONTEXT_GROUPS])
        normed, (axes,) = self.with_constants("MVN", [grouped], 1, **_NORM)
        self.expect("the axis of a context gate", axes, [2])
        size = self.next("ShapeOf", [means])
        restored = self.next("Reshape", [normed, size])
        shifted = self.scale_and_shift(f"{name}.norms.{stream}", restored)
        return self.next("Multiply", [features, self.next("Sigmoid", [shifted])])

    def head(self, features: str) -> None:
        pooled = self.convolution("head.pool", features, depthwise=True, pads_begin="0, 0")
        flat, (shape,) = self.with_constants("Reshape", [pooled], 1)
        self.expect("the shape of the pooled map", shape, [-1, len(self.weights["head.pool.weight"])])
        product, (matrix,) = self.with_constants("MatMul", [flat], 1, transpose_a="false", transpose_b="true")
        reduced, bias = self.one_constant("Add", product)
        size = self.next("ShapeOf", [flat])
        count, (index, axis) = self.with_constants("Gather", [size], 2)
        self.expect("the index of the batch", np.append(index.reshape(-1), axis), [0, 0])
        columns, ends = self.with_constants("Concat", [count], 2)
        self.expect("the shape before the last batch norm", np.concatenate(ends), [-1, 1])
        columns = self.next("Reshape", [reduced, columns])
        scaled, scale = self.one_constant("Multiply", columns)
        shifted, shift = self.one_constant("Add", scaled)
        activated, (slope,) = self.with_constants("PReLU", [shifted], 1)
        last, (shape,) = self.with_constants("Reshape", [activated], 1)
        self.expect("the shape of the features", shape, [0, -1])
        self.next("Result", [last])
        # A batch norm after the linear layer, folded into it.
        self.put("head.linear.weight", (matrix * scale.reshape(-1, 1))[:, :, None, None])
        self.put("head.linear.bias", (bias * scale.reshape(1, -1) + shift.reshape(1, -1)).reshape(-1))
        self.put("head.prelu.weight", slope.reshape(-1))

    def mean_over_map(self, features: str) -> str:
        means, (axes,) = self.with_constants("ReduceMean", [features], 1, keep_dims="true")
        self.expect("the axes of a mean over a map", axes, [2, 3])
        return means

    def instance_norm(self, name: str, features: str) -> str:
        normed, (axes,) = self.with_constants("MVN", [features], 1, **_NORM)
        self.expect(f"the axes of {name}", axes, [2, 3])
        return self.scale_and_shift(name, normed)

    def scale_and_shift(self, name: str, features: str) -> str:
        scaled, scale = self.one_constant("Multiply", features)
        shifted, shift = self.one_constant("Add", scaled)
        self.put(f"{name}.weight", scale.reshape(-1))
        self.put(f"{name}.bias", shift.reshape(-1))
        return shifted

    def convolution(
        self, name: str, features: str, bias: bool = True, depthwise: bool = False, **attributes: str
    ) -> str:
        kind = "GroupConvolution" if depthwise else "Convolution"
        attributes = {"strides": "1, 1", "pads_begin": "0, 0", "dilations": "1, 1", **attributes}
        attributes = {"pads_end": attributes["pads_begin"], **attributes}
        out, (weight,) = self.with_constants(kind, [features], 1, **attributes)
        self.put(f"{name}.weight", weight[:, 0] if depthwise else weight)
        if not bias:
            return out
        shifted, shift = self.one_constant("Add", out)
        self.put(f"{name}.bias", shift.reshape(-1))
        return shifted

    def one_constant(self, kind: str, features: str) -> tuple[str, Values]:
        out, constants = self.with_constants(kind, [features], 1)
        return out, constants[0]

    def next(self, kind: str, inputs: Sequence[str], **attributes: str) -> str:
        """Read the next operation, which has `inputs` and no constant; returns its name."""
        return self.with_constants(kind, inputs, 0, **attributes)[0]

    def with_constants(
        self, kind: str, inputs: Sequence[str], count: int, **attributes: str
    ) -> tuple[str, list[Values]]:
        """Read the next operation, which has `inputs`, then `count` constants; returns its name and their values."""
        if self.position == len(self.ir.operations):
            raise CheckpointError(f"{self.ir.path} is not the whole network: it ends where {kind} is expected")
        operation = self.ir.operations[self.position]
        self.position += 1
        if operation.kind != kind:
            raise self._unexpected(operation, f"{kind} is expected here")
        for name, value in attributes.items():
            if not _is_same(operation.attributes.get(name), value):
                raise self._unexpected(operation, f"its {name} is {operation.attributes.get(name)!r}, not {value!r}")
        constants = operation.inputs[len(inputs) :]
        if operation.inputs[: len(inputs)] != tuple(inputs) or len(constants) != count:
            raise self._unexpected(
                operation, f"{' and '.join(inputs)} and {count} constants are expected as its inputs"
            )
        values = []
        for constant in constants:
            if not isinstance(constant, Constant):
                raise self._unexpected(operation, f"its input {constant} is expected to be a constant")
            self.used.add(constant.name)
            values.append(constant.values.astype(np.float32))
        return operation.name, values

    def put(self, name: str, values: Values) -> None:
        """Store a weight; repetitions in the file must be equal."""
        weight = torch.tensor(np.ascontiguousarray(values))
        if name in self.weights and not torch.equal(self.weights[name], weight):
            raise CheckpointError(f"{self.ir.path} is no network of this kind: its streams do not share {name}")
        self.weights[name] = weight

    def expect(self, what: str, values: Values, expected: Sequence[int]) -> None:
        """Raise CheckpointError, which names `what`, if a constant has other values than the network's."""
        if values.reshape(-1).tolist() != list(expected):
            raise CheckpointError(
                f"{self.ir.path} is no network of this kind: {what}: {values.reshape(-1).tolist()}, "
                f"expected {list(expected)}"
            )

    def check_all_read(self) -> None:
        """Raise CheckpointError if operations or constants are left."""
        if self.position < len(self.ir.operations):
            raise self._unexpected(self.ir.operations[self.position], "the network is expected to end before it")
        if unused := [name for name in self.ir.constants if name not in self.used]:
            raise CheckpointError(
                f"{self.ir.path} has {len(unused)} constants that no operation uses, for instance {unused[0]}"
            )

    def _unexpected(self, operation: Operation, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.ir.path} is no re-identification network of Open Model Zoo: operation {operation.kind} "
            f"{operation.name!r}: {why}"
        )


def _is_same(value: str | None, expected: str) -> bool:
    """Whether two values of an attribute are the same but for spaces and case."""
    return value is not None and value.replace(" ", "").lower() == expected.replace(" ", "").lower()


def _triple(values: NDArray[np.floating]) -> tuple[float, float, float]:
    first, second, third = (round(float(value), 6) for value in values.reshape(-1))
    return first, second, third
