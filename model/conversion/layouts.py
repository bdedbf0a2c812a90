"""The layouts of public MGN code, and the mapping of their tensors to this library's MGN."""

import re
from dataclasses import dataclass, field
from typing import Protocol

from model.architecture import PARTS, MGNConfig, Pooling, SoftmaxOn
from model.checkpoint import InputFormat
from model.conversion.files import State
from model.errors import CheckpointError
from model.transforms import Interpolation

COUNTER = "counts training steps"
CLASSIFIER = "classifies the training identities"


@dataclass
class Translation:
    """A translated state dict.

    weights: the tensors by their names in this library's MGN. dropped: the reason by name. unknown: the names of
    tensors that the layout does not have.
    """

    weights: State = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


class Layout(Protocol):
    """The layout of one code base's checkpoints."""

    @property
    def name(self) -> str:
        """The code base's repository."""

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """The possible poolings, the default first."""

    def recognises(self, state: State) -> bool:
        """Whether a state dict has this layout."""

    def architecture(self, state: State, pooling: Pooling) -> MGNConfig:
        """The architecture of a state dict."""

    def input(self, state: State) -> InputFormat:
        """The input format of a state dict, or the default of that code."""

    def translate(self, state: State) -> Translation:
        """Classify every tensor: translated, dropped or unknown."""


@dataclass(frozen=True)
class SeathiefwangLayout:
    """seathiefwang/MGN-pytorch and related projects.

    trunk: the trunk's name. softmax_on: see MGNConfig. shared_reduction: whether all parts share one reduction.
    levyfan/reid-mgn concatenates the parts by branch; a converted checkpoint has the order of `PARTS`.
    """

    name: str
    trunk: str
    poolings: tuple[Pooling, ...]
    interpolation: Interpolation
    softmax_on: SoftmaxOn = "reduced"
    shared_reduction: bool = False

    def recognises(self, state: State) -> bool:
        if f"{self.trunk}.0.weight" not in state or "p1.0.0.conv1.weight" not in state:
            return False
        classifier = state.get("fc_id_2048_0.weight")
        is_pooled = classifier is not None and classifier.shape[1:] == (2048,)
        is_shared = "reduction.0.weight" in state
        return is_shared == self.shared_reduction and is_pooled == (self.softmax_on == "pooled")

    def architecture(self, state: State, pooling: Pooling) -> MGNConfig:
        return MGNConfig(pooling=pooling, softmax_on=self.softmax_on, classifier_bias=True)

    def input(self, state: State) -> InputFormat:
        return InputFormat(height=384, width=128, interpolation=self.interpolation, flip=True)

    def translate(self, state: State) -> Translation:
        translation = Translation()
        for name, value in state.items():
            if name.endswith("num_batches_tracked"):
                translation.dropped[name] = COUNTER
            elif name.startswith("fc_id_"):
                translation.dropped[name] = CLASSIFIER
            elif name.startswith(f"{self.trunk}."):
                translation.weights["trunk." + name.removeprefix(f"{self.trunk}.")] = value
            elif match := re.match(r"p([123])\.(.*)", name):
                translation.weights[f"branches.{int(match[1]) - 1}.{match[2]}"] = value
            elif match := re.match(r"reduction_([0-7])\.(.*)", name):
                translation.weights[f"reductions.{match[1]}.{match[2]}"] = value
            elif name.startswith("reduction."):
                for part in range(len(PARTS)):
                    translation.weights[f"reductions.{part}.{name.removeprefix('reduction.')}"] = value
            else:
                translation.unknown.append(name)
        return translation


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
        pixel_statistics = {  # of pixels in 0..255
            name: tuple((state[f"pixel_{name}"].flatten() / 255).tolist())
            for name in ("mean", "std")
            if f"pixel_{name}" in state
        }
        return InputFormat(height=384, width=128, interpolation="bicubic", **pixel_statistics)

    def translate(self, state: State) -> Translation:
        translation = Translation()
        for name, value in state.items():
            if name.endswith("num_batches_tracked"):
                translation.dropped[name] = COUNTER
            elif name in ("pixel_mean", "pixel_std"):
                translation.dropped[name] = "is stored in the metadata"
            elif re.match(r"b\d+_head\.(classifier\.)?weight$", name):
                translation.dropped[name] = CLASSIFIER
            elif name.startswith("backbone."):
                translation.weights["trunk." + name.removeprefix("backbone.")] = value
            elif match := re.match(r"b([123])\.(.*)", name):
                translation.weights[f"branches.{int(match[1]) - 1}.{match[2]}"] = value
            elif new_name := self._translated_head(name):
                translation.weights[new_name] = value.reshape(()) if new_name.endswith(".exponent") else value
            else:
                translation.unknown.append(name)
        return translation

    def _translated_head(self, name: str) -> str | None:
        """The new name of a tensor of a part's pooling or reduction; None for other tensors."""
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
        for old, new in prefixes.items():
            if f"{kind}.{rest}".startswith(old):
                return new.format(number) + f"{kind}.{rest}".removeprefix(old)
        return None


LAYOUTS: tuple[Layout, ...] = (
    SeathiefwangLayout("seathiefwang/MGN-pytorch", "backone", ("average", "max"), "bicubic"),
    SeathiefwangLayout("GNAYUOHZ/ReID-MGN", "backbone", ("max",), "bicubic", shared_reduction=True),
    SeathiefwangLayout("levyfan/reid-mgn", "backbone", ("max",), "bilinear", softmax_on="pooled"),
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
    raise CheckpointError(
        f"there is no layout {name!r}; the known layouts are: {', '.join(layout.name for layout in LAYOUTS)}"
    )
