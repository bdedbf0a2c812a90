"""Replacing the metadata of a .safetensors or .onnx checkpoint; the weights do not change."""

from pathlib import Path

from model.checkpoint import METADATA_KEY, CheckpointMetadata, load_checkpoint, save_checkpoint
from model.errors import CheckpointError
from model.files import write_atomically


def rewrite_metadata(source: Path, out: Path, metadata: CheckpointMetadata) -> None:
    """Write the checkpoint `source` with other metadata to `out`, atomically; both may be the same file.

    Raises CheckpointError if the two formats differ, or `source` is not a checkpoint.
    """
    if source.suffix != out.suffix:
        raise CheckpointError(
            f"{out} would have another format than {source}: keep the ending {source.suffix}; `export` changes formats"
        )
    if source.suffix == ".onnx":
        _rewrite_onnx(source, out, metadata)
    else:
        save_checkpoint(out, load_checkpoint(source).weights, metadata)


def _rewrite_onnx(source: Path, out: Path, metadata: CheckpointMetadata) -> None:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(source)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint at {source}") from None
    except (DecodeError, OSError) as error:
        raise CheckpointError(f"{source} is no ONNX file: {error}") from error
    properties = {prop.key: prop.value for prop in graph.metadata_props}
    onnx.helper.set_model_props(graph, properties | {METADATA_KEY: metadata.model_dump_json()})
    write_atomically(out, graph.SerializeToString())
