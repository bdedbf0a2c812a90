"""Reading OpenVINO IR (version 11) without OpenVINO: layers, their attributes, edges and constants."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from model.errors import CheckpointError

VERSION = "11"
MAX_XML_BYTES = 32 * 2**20
"""The .xml of Open Model Zoo's networks has less than one megabyte."""

MAX_BIN_BYTES = 2**30

_TYPES = {"f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4"}

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Operation:
    """A layer that computes: its type, attributes, and inputs in the order of its ports.

    An input is the name of another operation, or a constant. Conversions of constants to another type are skipped.
    """

    kind: str
    name: str
    attributes: Mapping[str, str]
    inputs: tuple["str | Constant", ...]


@dataclass(frozen=True)
class Constant:
    """A constant with its stored values."""

    name: str
    values: Array


@dataclass(frozen=True)
class IR:
    """The operations of a network in the file's order, which is topological, and the names of its constants."""

    path: Path
    operations: tuple[Operation, ...]
    constants: tuple[str, ...]


def read_ir(path: Path) -> IR:
    """Read `path`, an .xml file, and the .bin file in the same folder.

    Raises CheckpointError if a file is missing, too large or damaged, or of another version.
    """
    root = _parse(path)
    version = root.get("version")
    if root.tag != "net" or version != VERSION:
        raise CheckpointError(
            f"{path} is no OpenVINO IR of version {VERSION}: its root is <{root.tag} version={version!r}>; "
            "write it again with a newer Model Optimizer or openvino.save_model"
        )
    weights = _read_weights(path)
    layers = {_layer_id(layer, path): layer for layer in root.iterfind("layers/layer")}
    sources = _sources(root, layers, path)
    constants = {
        number: _constant(layer, weights, path) for number, layer in layers.items() if layer.get("type") == "Const"
    }
    operations = []
    for number, layer in layers.items():
        kind = layer.get("type", "")
        if kind == "Const" or _is_conversion(number, layers, sources, constants):
            continue
        inputs = tuple(_input(source, layers, sources, constants) for source in sources.get(number, ()))
        operations.append(Operation(kind, layer.get("name", number), _attributes(layer), inputs))
    names = [*(operation.name for operation in operations), *(constant.name for constant in constants.values())]
    if len(set(names)) < len(names):
        raise CheckpointError(f"{path} has two layers of the same name")
    return IR(path, tuple(operations), tuple(constant.name for constant in constants.values()))


def _parse(path: Path) -> ElementTree.Element:
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MAX_XML_BYTES else b""
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if size > MAX_XML_BYTES:
        raise CheckpointError(f"{path} has {size:,} bytes, an IR's .xml at most {MAX_XML_BYTES:,}")
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # entity expansion is unbounded, and no IR has entities
        raise CheckpointError(f"{path} is no OpenVINO IR: it declares a document type")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError) as error:
        raise CheckpointError(f"{path} is no XML: {error}") from error


def _read_weights(path: Path) -> bytes:
    bin_path = path.with_suffix(".bin")
    try:
        size = bin_path.stat().st_size
        if size > MAX_BIN_BYTES:
            raise CheckpointError(f"{bin_path} has {size:,} bytes, at most {MAX_BIN_BYTES:,} are read")
        return bin_path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"cannot read {bin_path}, which holds the weights of {path.name}: {error.strerror}"
        ) from error


def _layer_id(layer: ElementTree.Element, path: Path) -> str:
    number = layer.get("id")
    if number is None:
        raise CheckpointError(f"{path} has a layer without an id")
    return number


def _sources(
    root: ElementTree.Element, layers: Mapping[str, ElementTree.Element], path: Path
) -> dict[str, tuple[str, ...]]:
    """The input layers of each layer, by port."""
    ports: dict[str, list[tuple[int, str]]] = {}
    for edge in root.iterfind("edges/edge"):
        start, end, port = (edge.get(name, "") for name in ("from-layer", "to-layer", "to-port"))
        if start not in layers or end not in layers or not port.isdigit():
            raise CheckpointError(f"{path} has an edge from layer {start!r} to {end!r}, port {port!r}, not found")
        ports.setdefault(end, []).append((int(port), start))
    return {end: tuple(start for _, start in sorted(inputs)) for end, inputs in ports.items()}


def _is_conversion(
    number: str,
    layers: Mapping[str, ElementTree.Element],
    sources: Mapping[str, tuple[str, ...]],
    constants: Mapping[str, Constant],
) -> bool:
    """Whether a layer only converts a constant to another type."""
    return layers[number].get("type") == "Convert" and all(source in constants for source in sources.get(number, ("",)))


def _input(
    number: str,
    layers: Mapping[str, ElementTree.Element],
    sources: Mapping[str, tuple[str, ...]],
    constants: Mapping[str, Constant],
) -> "str | Constant":
    if number in constants:
        return constants[number]
    if _is_conversion(number, layers, sources, constants):
        return constants[sources[number][0]]
    return layers[number].get("name", number)


def _attributes(layer: ElementTree.Element) -> dict[str, str]:
    data = layer.find("data")
    return {} if data is None else dict(data.attrib)


def _constant(layer: ElementTree.Element, weights: bytes, path: Path) -> Constant:
    name, attributes = layer.get("name", "?"), _attributes(layer)
    kind = attributes.get("element_type", "")
    if kind not in _TYPES:
        raise CheckpointError(f"{path}: constant {name} is of type {kind!r}, not one of {', '.join(_TYPES)}")
    try:
        shape = tuple(int(size) for size in attributes.get("shape", "").split(",") if size.strip())
        offset, size = int(attributes["offset"]), int(attributes["size"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: constant {name} has no integer shape, offset and size") from error
    dtype = np.dtype(_TYPES[kind])
    if min((*shape, offset, size)) < 0 or int(np.prod(shape, dtype=object)) * dtype.itemsize != size:
        raise CheckpointError(f"{path}: constant {name} of shape {shape} does not take {size} bytes")
    if offset + size > len(weights):
        raise CheckpointError(
            f"{path.with_suffix('.bin')} is too short: constant {name} ends at byte {offset + size:,}, "
            f"the file has {len(weights):,}"
        )
    return Constant(name, np.frombuffer(weights, dtype, count=size // dtype.itemsize, offset=offset).reshape(shape))
