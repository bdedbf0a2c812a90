"""What tests of the service build: pictures, and a checkpoint so small that it loads in no time."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import ExifTags, Image

from model.architecture import EMBEDDING_DIM, PART_DIM, PARTS, MGNConfig
from model.checkpoint import METADATA_KEY, CheckpointMetadata, InputFormat, TrainingData


def tiny_metadata(height: int = 64, width: int = 32, name: str = "tiny") -> CheckpointMetadata:
    """What a checkpoint for tests says about itself."""
    return CheckpointMetadata(
        name=name,
        architecture=MGNConfig(backbone="mobilenet_v2"),
        input=InputFormat(height=height, width=width),
        training_data=TrainingData(name="none", terms="none", identities=0, crops=0),
        recipe={},
        sha256="0123456789abcdef" * 4,
    )


def write_tiny_checkpoint(path: Path, metadata: CheckpointMetadata | None = None, seed: int = 20240607) -> Path:
    """Write an ONNX checkpoint that embeds a crop as random projections of its colours in an 8 x 4 grid.

    Those of another seed give embeddings that have nothing to do with these; let `metadata` say another name then.
    """
    metadata = metadata or tiny_metadata()
    height, width = metadata.input.size
    rng = np.random.default_rng(seed)
    constants = {
        "middle": np.float32(127.5),
        "projection": rng.standard_normal((8 * 4 * 3, EMBEDDING_DIM), dtype=np.float32),
        "parts_shape": np.array([-1, len(PARTS), PART_DIM], dtype=np.int64),
        "part_norm": np.float32(len(PARTS) ** -0.5),
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
        helper.make_node("Mul", ["unit", "part_norm"], ["parts"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", height, width, 3])],
        [helper.make_tensor_value_info("parts", TensorProto.FLOAT, ["N", len(PARTS), PART_DIM])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def random_pixels(seed: int, height: int = 128, width: int = 64) -> NDArray[np.uint8]:
    """Patches of random colours, `(height, width, 3)`, which survive JPEG well."""
    patches = np.random.default_rng(seed).integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return np.kron(patches, np.ones((16, 16, 1), dtype=np.uint8))[:height, :width]


def picture(seed: int, height: int = 128, width: int = 64) -> Image.Image:
    """A picture of `random_pixels`."""
    return Image.fromarray(random_pixels(seed, height, width))


def encoded(picture: Image.Image, pillow_format: str = "JPEG", **options: Any) -> bytes:
    """The bytes of a file that holds `picture`; `options` as Pillow's save takes them."""
    file = BytesIO()
    picture.save(file, pillow_format, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    """An EXIF block that says how a picture lies."""
    block = Image.Exif()
    block[ExifTags.Base.Orientation] = orientation
    return block


def laid(upright: Image.Image, orientation: int) -> Image.Image:
    """A picture as a file holds it whose EXIF orientation sets it upright again."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    return upright if undo is None else upright.transpose(undo)
