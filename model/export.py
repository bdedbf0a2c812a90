"""Export of checkpoints: with float16 weights, and as ONNX for any batch size."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from model.checkpoint import METADATA_KEY, Checkpoint, CheckpointMetadata, save_checkpoint
from model.errors import CheckpointError
from model.files import write_atomically
from model.loading import Inference, inference_of, load_for_inference, with_reference
from model.mgn import load_embedder
from model.reference import MIN_COSINE, patches

_OPSET = 18
_PARITY_BATCHES = (1, 3, 32)

_MIN_HALVED_SIZE = 16_384
"""Elements. Smaller tensors stay in float32: depthwise convolutions and biases take little space and lose most by
rounding, because folded batch norms widen their range of magnitudes."""


def export_half(checkpoint: Checkpoint, path: Path) -> float:
    """Write a checkpoint with large weights in float16, at half the size and with another model id.

    Returns the lowest cosine to the checkpoint's embeddings of random patches. Raises CheckpointError, and writes
    nothing, if the cosine is below MIN_COSINE.
    """
    weights = {
        name: tensor.astype(np.float16) if tensor.size >= _MIN_HALVED_SIZE else tensor
        for name, tensor in checkpoint.weights.items()
    }
    halved = with_reference(Checkpoint(weights, checkpoint.metadata))
    cosine = _lowest_cosine(checkpoint, inference_of(halved))
    save_checkpoint(path, halved.weights, halved.metadata)
    return cosine


def export_onnx(checkpoint: Checkpoint, path: Path, halved: bool = True) -> float:
    """Write a checkpoint's embedder as ONNX and compare its embeddings with those of the torch network.

    The graph takes `crops` `(N, height, width, 3)` uint8 RGB and gives `parts` `(N, 8, 256)` float32; the file contains
    the checkpoint's metadata. halved: store large weights in float16; the graph computes in float32 either way. Returns
    the lowest cosine over random patches in batches of 1, 3 and 32. Raises CheckpointError, and writes nothing, if the
    cosine is below MIN_COSINE.
    """
    with TemporaryDirectory() as folder:
        graph = onnx.load(write_graph(checkpoint, Path(folder)))
        if halved:
            _halve_initialisers(graph.graph)
        describe(graph, with_reference(checkpoint).metadata)
        candidate = Path(folder) / "candidate.onnx"
        onnx.save(graph, candidate)
        cosine = _lowest_cosine(checkpoint, load_for_inference(candidate))
        write_atomically(path, candidate.read_bytes())
    return cosine


def write_graph(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write a checkpoint's embedder into a folder as a plain ONNX graph, in float32 and without metadata."""
    raw = folder / "raw.onnx"
    export_graph(load_embedder(checkpoint), checkpoint.metadata.input.size, raw, ("parts",))
    return raw


def export_graph(network: nn.Module, size: tuple[int, int], path: Path, outputs: tuple[str, ...]) -> None:
    """Write a network that takes `crops` `(N, height, width, 3)` uint8 RGB, for any N, as an ONNX graph."""
    torch.onnx.export(
        network,
        (torch.zeros((2, *size, 3), dtype=torch.uint8),),
        path,
        input_names=["crops"],
        output_names=list(outputs),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        opset_version=_OPSET,
        dynamo=True,
        external_data=False,
        optimize=True,
        verbose=False,
    )


def _halve_initialisers(graph: onnx.GraphProto) -> None:
    """Store large float32 constants as float16, each followed by a cast; runtimes fold the casts when they load."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _MIN_HALVED_SIZE:
            continue
        name, halved = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def describe(graph: onnx.ModelProto, metadata: CheckpointMetadata) -> None:
    """Store a checkpoint's metadata in a graph, and remove the exporter's notes, which hold local file paths."""
    graph.producer_name = "passerby"
    graph.doc_string = f"MGN {metadata.model_id}"
    for node in graph.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in graph.graph.value_info:
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    helper.set_model_props(graph, {METADATA_KEY: metadata.model_dump_json()})


def _lowest_cosine(checkpoint: Checkpoint, exported: Inference) -> float:
    """Compare embeddings of random patches. Raises CheckpointError for a cosine below MIN_COSINE."""
    reference = inference_of(checkpoint)
    lowest = 1.0
    for count in _PARITY_BATCHES:
        crops = patches(count, checkpoint.metadata.input.size, seed=count)
        products = reference.embed(crops) * exported.embed(crops)
        lowest = min(lowest, float(products.sum(axis=(1, 2)).min()))
    if lowest < MIN_COSINE:
        raise CheckpointError(
            f"the exported network differs from the checkpoint: lowest cosine {lowest:.6f}, "
            f"at least {MIN_COSINE} is required; nothing was written"
        )
    return lowest
