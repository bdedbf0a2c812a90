"""The engines that can run checkpoints: the suffix of their files, and the package and extra that each needs."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

EngineName = Literal["onnx", "openvino", "torch"]
EngineKind = Literal["auto", EngineName]
"""`auto` is the first engine in the list below that is installed and runs a checkpoint."""


@dataclass(frozen=True)
class _Needs:
    suffix: str
    package: str
    extra: str


_ENGINES: dict[EngineName, _Needs] = {
    "onnx": _Needs(".onnx", "onnxruntime", "cpu"),
    "openvino": _Needs(".onnx", "openvino", "openvino"),
    "torch": _Needs(".safetensors", "torch", "gpu"),
}

SUFFIXES = tuple(dict.fromkeys(needs.suffix for needs in _ENGINES.values()))
"""The suffixes of checkpoints."""


def engines_for(suffix: str) -> list[EngineName]:
    """The engines that can run checkpoints with this suffix."""
    return [name for name, needs in _ENGINES.items() if needs.suffix == suffix]


def default_suffix(kind: EngineKind) -> str:
    """The form of a checkpoint for an engine; for `auto`, that of the first one that is installed."""
    if kind == "auto":
        return next((needs.suffix for name, needs in _ENGINES.items() if is_installed(name)), SUFFIXES[0])
    return _ENGINES[kind].suffix


def is_installed(name: EngineName) -> bool:
    """Whether the package that an engine needs is installed."""
    return find_spec(_ENGINES[name].package) is not None


def install_hint(name: EngineName) -> str:
    """What to install for an engine, in a sentence."""
    extra = _ENGINES[name].extra
    return f"the {name} engine needs the extra `{extra}`: pip install 'passerby[{extra}]'"
