"""The engines that can run checkpoints, and the package that each needs."""

from importlib.util import find_spec
from typing import Literal

EngineKind = Literal["auto", "onnx", "openvino", "torch"]

KINDS_OF_SUFFIX: dict[str, tuple[EngineKind, ...]] = {".onnx": ("onnx", "openvino"), ".safetensors": ("torch",)}
"""By the suffix of a checkpoint, the engines that can run it; `auto` takes the first."""

_PACKAGES: dict[EngineKind, str] = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
_EXTRAS: dict[EngineKind, str] = {"onnx": "cpu", "openvino": "openvino", "torch": "gpu"}


def is_installed(kind: EngineKind) -> bool:
    """Whether the package that an engine needs is installed."""
    return find_spec(_PACKAGES[kind]) is not None


def need_of(kind: EngineKind) -> str:
    """What to install for an engine, in a sentence."""
    return f"the {kind} engine needs the extra `{_EXTRAS[kind]}`: pip install 'passerby[{_EXTRAS[kind]}]'"
