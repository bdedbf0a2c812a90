"""A writer of OpenVINO IR for tests: the graph of an `OMZOSNet` as in Open Model Zoo's files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray

from model.architecture import OMZChannels
from model.osnet import OMZOSNet

TINY: OMZChannels = (16, 64, 128, 192)

EPS = "9.9999997473787516e-06"


def random_network(channels: OMZChannels = TINY, seed: int = 0) -> OMZOSNet:
    """A network whose weights are exact in half precision, so that files hold them without loss."""
    torch.manual_seed(seed)
    network = OMZOSNet(channels).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_((parameter + 0.02 * torch.randn_like(parameter)).half().float())
    return network


def write_ir(path: Path, network: OMZOSNet) -> Path:
    """Write `path`, an .xml file, and the .bin in the same folder."""
    writer = IRWriter()
    writer.network({name: tensor.numpy() for name, tensor in network.state_dict().items()})
    writer.save(path)
    return path


@dataclass
class IRWriter:
    """Layers, edges and constants, collected in the order of the file."""

    layers: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    edges: list[tuple[int, int, int]] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)

    def save(self, path: Path, version: str = "11") -> None:
        root = ElementTree.Element("net", name="test", version=version)
        layers = ElementTree.SubElement(root, "layers")
        for number, (kind, name, data) in enumerate(self.layers):
            layer = ElementTree.SubElement(layers, "layer", id=str(number), name=name, type=kind)
            if data:
                ElementTree.SubElement(layer, "data", data)
        edges = ElementTree.SubElement(root, "edges")
        for start, end, port in self.edges:
            names = {"from-layer": start, "from-port": 1, "to-layer": end, "to-port": port}
            ElementTree.SubElement(edges, "edge", {name: str(value) for name, value in names.items()})
        ElementTree.ElementTree(root).write(path)
        path.with_suffix(".bin").write_bytes(bytes(self.weights))

    def layer(self, kind: str, inputs: Sequence[int] = (), **data: str) -> int:
        number = len(self.layers)
        self.layers.append((kind, f"{kind}_{number}", data))
        self.edges += [(start, number, port) for port, start in enumerate(inputs)]
        return number

    def constant(self, values: NDArray[np.generic], kind: str) -> int:
        content = values.astype({"f16": "<f2", "i64": "<i8"}[kind]).tobytes()
        place = {"offset": str(len(self.weights)), "size": str(len(content))}
        self.weights += content
        shape = ",".join(map(str, values.shape))
        return self.layer("Const", element_type=kind, shape=shape, **place)

    def weight(self, values: NDArray[np.floating]) -> int:
        """A constant in half precision and its conversion to single precision."""
        return self.layer("Convert", [self.constant(values, "f16")], destination_type="f32")

    def numbers(self, *values: int) -> int:
        return self.constant(np.array(values), "i64")

    def network(self, state: dict[str, NDArray[np.float32]]) -> None:
        """The layers of a network of these weights."""
        out = self.layer("Parameter", shape="1,3,256,128", element_type="f32")
        out = self.layer("Gather", [out, self.numbers(2, 1, 0), self.numbers(1)], batch_dims="0")
        out = self.layer("Subtract", [out, self.weight(np.full((1, 3, 1, 1), 120.0))])
        out = self.layer("Multiply", [out, self.weight(np.full((1, 3, 1, 1), 1 / 64))])
        out = self.affine(self.norm(out, 2, 3), state, "input_norm")
        out = self.convolution(out, state, "conv1", strides="2, 2", pads="3, 3")
        out = self.layer("ReLU", [self.affine(self.norm(out, 2, 3), state, "stem_norm")])
        window = {"kernel": "3, 3", "strides": "2, 2", "pads_begin": "1, 1", "pads_end": "1, 1"}
        out = self.layer("MaxPool", [out], rounding_type="floor", **window)
        for stage in ("conv2", "conv3", "conv4"):
            out = self.block(out, state, f"{stage}.0")
            out = self.block(out, state, f"{stage}.1")
            if stage != "conv4":
                out = self.layer("ReLU", [self.convolution(out, state, f"{stage}.2")])
                out = self.layer("AvgPool", [out], kernel="2, 2", strides="2, 2", pads_begin="0, 0")
        self.head(self.layer("ReLU", [self.convolution(out, state, "conv5.0")]), state)

    def block(self, features: int, state: dict[str, NDArray[np.float32]], name: str) -> int:
        reduced = self.layer("ReLU", [self.convolution(features, state, f"{name}.conv1")])
        gathered = None
        for stream in range(4):
            out = reduced
            for number in range(stream + 1):
                light = f"{name}.streams.{stream}.{number}"
                out = self.convolution(out, state, f"{light}.conv1")
                out = self.layer("ReLU", [self.convolution(out, state, f"{light}.conv2", pads="1, 1")])
            out = self.layer("Multiply", [out, self.layer("Sigmoid", [self.gate(out, state, f"{name}.gate", stream)])])
            gathered = out if gathered is None else self.layer("Add", [gathered, out])
        assert gathered is not None
        out = self.convolution(gathered, state, f"{name}.conv3")
        if f"{name}.downsample.weight" in state:
            features = self.convolution(features, state, f"{name}.downsample")
        return self.layer("ReLU", [self.layer("Add", [out, features])])

    def gate(self, features: int, state: dict[str, NDArray[np.float32]], name: str, stream: int) -> int:
        seen = self.layer("ReduceMean", [features, self.numbers(2, 3)], keep_dims="true")
        if f"{name}.fc1.weight" in state:
            return self.convolution(
                self.layer("ReLU", [self.convolution(seen, state, f"{name}.fc1")]), state, f"{name}.fc2"
            )
        groups = self.numbers(1, 16, len(state[f"{name}.norms.0.weight"]) // 16)
        normed = self.norm(self.layer("Reshape", [seen, groups], special_zero="true"), 2)
        restored = self.layer("Reshape", [normed, self.layer("ShapeOf", [seen])], special_zero="true")
        return self.affine(restored, state, f"{name}.norms.{stream}")

    def head(self, features: int, state: dict[str, NDArray[np.float32]]) -> None:
        pooled = self.convolution(features, state, "head.pool")
        channels, matrix = len(state["head.pool.weight"]), state["head.linear.weight"][:, :, 0, 0]
        flat = self.layer("Reshape", [pooled, self.numbers(-1, channels)])
        product = self.layer("MatMul", [flat, self.weight(matrix)], transpose_a="false", transpose_b="true")
        out = self.layer("Add", [product, self.weight(state["head.linear.bias"][None])])
        count = self.layer(
            "Gather", [self.layer("ShapeOf", [flat]), self.numbers(0), self.constant(np.array(0), "i64")]
        )
        shape = self.layer("Concat", [count, self.numbers(-1), self.numbers(1)], axis="0")
        out = self.layer("Reshape", [out, shape])
        out = self.layer("Multiply", [out, self.weight(np.ones((1, len(matrix), 1)))])
        out = self.layer("Add", [out, self.weight(np.zeros((1, len(matrix), 1)))])
        out = self.layer("PReLU", [out, self.weight(state["head.prelu.weight"][None])])
        self.layer("Result", [self.layer("Reshape", [out, self.numbers(0, -1)])])

    def norm(self, features: int, *axes: int) -> int:
        return self.layer(
            "MVN", [features, self.numbers(*axes)], eps=EPS, eps_mode="INSIDE_SQRT", normalize_variance="true"
        )

    def affine(self, features: int, state: dict[str, NDArray[np.float32]], name: str) -> int:
        scale, shift = (state[f"{name}.{what}"].reshape(1, -1, 1, 1) for what in ("weight", "bias"))
        return self.layer("Add", [self.layer("Multiply", [features, self.weight(scale)]), self.weight(shift)])

    def convolution(
        self,
        features: int,
        state: dict[str, NDArray[np.float32]],
        name: str,
        strides: str = "1, 1",
        pads: str = "0, 0",
    ) -> int:
        weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
        depthwise = name.endswith((".conv2", "head.pool"))
        attributes = {"strides": strides, "pads_begin": pads, "pads_end": pads, "dilations": "1, 1"}
        kind = "GroupConvolution" if depthwise else "Convolution"
        out = self.layer(kind, [features, self.weight(weight[:, None] if depthwise else weight)], **attributes)
        return out if bias is None else self.layer("Add", [out, self.weight(bias.reshape(1, -1, 1, 1))])
