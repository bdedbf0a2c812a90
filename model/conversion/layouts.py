"""The layouts of public MGN code, and the mapping of their tensors to this library's MGN."""

import re
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Protocol

from model.architecture import PARTS, MGNConfig, Pooling
from model.checkpoint import InputFormat
from model.conversion.files import State
from model.errors import CheckpointError

COUNTER = "counts training steps"
CLASSIFIER = "tells apart the persons of its training"


@dataclass
class Translation:
    """A translated state dict: weights by their new names, and dropped tensors with the reason."""

    weights: State = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


class Layout(Protocol):
    """The layout of one code base.

    name: its repository. poolings: the possible poolings, the default first.
    """

    name: str
    poolings: tuple[Pooling, ...]

    @abstractmethod
    def recognises(self, state: State) -> bool:
        """Whether a state dict has this layout."""

    @abstractmethod
    def architecture(self, state: State, pooling: Pooling) -> MGNConfig:
        """The architecture of a state dict."""

    @abstractmethod
    def input(self, state: State) -> InputFormat:
        """The input format of a state dict, or the default of that code."""

    @abstractmethod
    def translate(self, state: State) -> Translation:
        """Classify every tensor: translated, dropped or unknown."""


class SeathiefwangLayout:
    """seathiefwang/MGN-pytorch and related projects, which differ in the trunk's name.

    Eight reductions, or one shared by all parts. The parts have the order of `PARTS`, except in levyfan/reid-mgn, which
    orders them by branch; the conversion reorders them.
    """

    def __init__(self, name: str, trunk: str, poolings: tuple[Pooling, ...], interpolation: str) -> None:
        self.name = name
        self.poolings = poolings
        self._trunk = trunk
        self._interpolation = interpolation

    def recognises(self, state: State) -> bool:
        shared = "reduction.0.weight" in state
        named = f"{self._trunk}.0.weight" in state and "p1.0.0.conv1.weight" in state
        if not named or shared != (self.name == "GNAYUOHZ/ReID-MGN"):
            return False
        width = state.get("fc_id_2048_0.weight")
        pooled = width is not None and width.shape[1] == 2048
        return pooled == (self.name == "levyfan/reid-mgn")

    def architecture(self, state: State, pooling: Pooling) -> MGNConfig:
        pooled = self.name == "levyfan/reid-mgn"
        return MGNConfig(pooling=pooling, softmax_on="pooled" if pooled else "reduced", classifier_bias=True)

    def input(self, state: State) -> InputFormat:
        bicubic = self._interpolation == "bicubic"
        return InputFormat(height=384, width=128, interpolation="bicubic" if bicubic else "bilinear", flip=True)

    def translate(self, state: State) -> Translation:
        found = Translation()
        for name, value in state.items():
            if name.endswith("num_batches_tracked"):
                found.dropped[name] = COUNTER
            elif name.startswith("fc_id_"):
                found.dropped[name] = CLASSIFIER
            elif name.startswith(f"{self._trunk}."):
                found.weights["trunk." + name.removeprefix(f"{self._trunk}.")] = value
            elif match := re.match(r"p([123])\.(.*)", name):
                found.weights[f"branches.{int(match[1]) - 1}.{match[2]}"] = value
            elif match := re.match(r"reduction_([0-7])\.(.*)", name):
                found.weights[f"reductions.{match[1]}.{match[2]}"] = value
            elif name.startswith("reduction."):
                for part in range(len(PARTS)):
                    found.weights[f"reductions.{part}.{name.removeprefix('reduction.')}"] = value
            else:
                found.unknown.append(name)
        return found


_FASTREID_PARTS = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")


class FastReidLayout:
    """JDAI-CV/fast-reid: heads named b1 to b33; release 0.1.1, or 1.0 and later.

    In 0.1.1 a reduction ends in ReLU, which no tensor shows, and the head adds a batch norm, its `bnneck`; since 1.0 a
    reduction is a convolution and a batch norm.
    """

    poolings: tuple[Pooling, ...] = ("gem", "average", "max")

    def __init__(self, release: str) -> None:
        self.name = f"JDAI-CV/fast-reid {release}"
        self._old = release == "0.1.1"

    def recognises(self, state: State) -> bool:
        if "backbone.0.weight" not in state or "b1.0.0.conv1.weight" not in state:
            return False
        return ("b1_pool.1.weight" if self._old else "b1_head.bottleneck.0.weight") in state

    def architecture(self, state: State, pooling: Pooling) -> MGNConfig:
        ibn = any(".bn1.IN." in name for name in state)
        return MGNConfig(
            backbone="resnet50_ibn" if ibn else "resnet50",
            pooling=pooling,
            reduction_relu=self._old,
            neck=self._old and any("_head.bnneck." in name for name in state),
            softmax_on="reduced",
            global_stride=1,
            stem="padded" if self._old else "ceil",
        )

    def input(self, state: State) -> InputFormat:
        """The file's mean and std are of pixels in 0..255."""
        given = {
            name: tuple((state[f"pixel_{name}"].flatten() / 255).tolist())
            for name in ("mean", "std")
            if f"pixel_{name}" in state
        }
        return InputFormat(height=384, width=128, interpolation="bicubic", **given)

    def translate(self, state: State) -> Translation:
        found = Translation()
        for name, value in state.items():
            if name.endswith("num_batches_tracked"):
                found.dropped[name] = COUNTER
            elif name in ("pixel_mean", "pixel_std"):
                found.dropped[name] = "stands in the metadata"
            elif re.match(r"b\d+_head\.(classifier\.)?weight$", name):
                found.dropped[name] = CLASSIFIER
            elif name.startswith("backbone."):
                found.weights["trunk." + name.removeprefix("backbone.")] = value
            elif match := re.match(r"b([123])\.(.*)", name):
                found.weights[f"branches.{int(match[1]) - 1}.{match[2]}"] = value
            elif ours := self._head(name):
                found.weights[ours] = value.reshape(()) if ours.endswith(".exponent") else value
            else:
                found.unknown.append(name)
        return found

    def _head(self, name: str) -> str | None:
        head, _, rest = name.partition(".")
        part, _, kind = head.partition("_")
        if part not in _FASTREID_PARTS:
            return None
        number = _FASTREID_PARTS.index(part)
        if self._old:
            prefixes = {"pool.0.p": "pools.{}.exponent", "pool.1.": "reductions.{}.0.", "pool.2.": "reductions.{}.1.",
                        "head.bnneck.": "reductions.{}.3."}  # fmt: skip
        else:
            prefixes = {"head.pool_layer.p": "pools.{}.exponent", "head.bottleneck.": "reductions.{}."}
        for theirs, ours in prefixes.items():
            if f"{kind}.{rest}".startswith(theirs):
                return ours.format(number) + f"{kind}.{rest}".removeprefix(theirs)
        return None


LAYOUTS: tuple[Layout, ...] = (
    SeathiefwangLayout("seathiefwang/MGN-pytorch", "backone", ("average", "max"), "bicubic"),
    SeathiefwangLayout("GNAYUOHZ/ReID-MGN", "backbone", ("max",), "bicubic"),
    SeathiefwangLayout("levyfan/reid-mgn", "backbone", ("max",), "bilinear"),
    FastReidLayout("0.1.1"),
    FastReidLayout("1.0"),
)


def recognise(state: State) -> Layout | None:
    """The layout of a state dict, or None."""
    return next((layout for layout in LAYOUTS if layout.recognises(state)), None)


def layout_named(name: str) -> Layout:
    """The layout with this name. Raises CheckpointError with the known names."""
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise CheckpointError(f"there is no layout {name!r}; those are: {', '.join(layout.name for layout in LAYOUTS)}")
