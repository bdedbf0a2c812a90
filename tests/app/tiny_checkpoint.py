"""A tiny checkpoint for fast starts of a service, in tests that do not depend on the model."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from model.architecture import EMBEDDING_DIM, PART_DIM, PARTS, MGNConfig
from model.checkpoint import METADATA_KEY, CheckpointMetadata, InputFormat, TrainingData
from model.onnx_session import run_session
from model.reference import Reference


def tiny_metadata(height: int = 64, width: int = 32, name: str = "tiny") -> CheckpointMetadata:
    """The metadata of a checkpoint for tests."""
    return CheckpointMetadata(
        name=name,
        architecture=MGNConfig(backbone="mobilenet_v2"),
        input=InputFormat(height=height, width=width),
        training_data=TrainingData(name="none", terms="none", identities=0, crops=0),
        recipe={},
        sha256="0123456789abcdef" * 4,
    )


_EQUAL = (len(PARTS) ** -0.5,) * len(PARTS)


def write_tiny_checkpoint(
    path: Path,
    metadata: CheckpointMetadata | None = None,
    seed: int = 20240607,
    part_weights: Sequence[float] = _EQUAL,
    referenced: bool = True,
) -> Path:
    """Write an ONNX checkpoint that embeds a crop as random projections of its colours in an 8 x 4 grid.

    Those of another seed give embeddings that have nothing to do with these; let `metadata` say another name then.
    part_weights: the norm of each part, of which the sum of squares is 1. referenced: whether it has reference
    embeddings.
    """
    metadata = metadata or tiny_metadata()
    height, width = metadata.input.size
    rng = np.random.default_rng(seed)
    constants = {
        "middle": np.float32(127.5),
        "projection": rng.standard_normal((8 * 4 * 3, EMBEDDING_DIM), dtype=np.float32),
        "parts_shape": np.array([-1, len(PARTS), PART_DIM], dtype=np.int64),
        "part_weights": np.array(part_weights, dtype=np.float32).reshape(len(PARTS), 1),
    }
    nodes = [
        helper.make_node("Cast", ["crops"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["numbers", "middle"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["images"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool",
            ["images"],
            ["grid"],
            kernel_shape=[height // 8, width // 4],
            strides=[height // 8, width // 4],
        ),
        helper.make_node("Flatten", ["grid"], ["colours"]),
        helper.make_node("MatMul", ["colours", "projection"], ["projected"]),
        helper.make_node("Reshape", ["projected", "parts_shape"], ["unscaled"]),
        helper.make_node("LpNormalization", ["unscaled"], ["unit"], axis=2, p=2),
        helper.make_node("Mul", ["unit", "part_weights"], ["parts"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", height, width, 3])],
        [helper.make_tensor_value_info("parts", TensorProto.FLOAT, ["N", len(PARTS), PART_DIM])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    if referenced and metadata.reference is None:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        reference = Reference.of(partial(run_session, session), metadata.input.size)
        metadata = metadata.model_copy(update={"reference": reference})
    helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    onnx.save(model, path)
    return path
