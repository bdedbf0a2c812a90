"""The typed description of an MGN: its eight parts, and the choices in which variants differ from the paper."""

from dataclasses import dataclass
from typing import Literal

PARTS: tuple[str, ...] = (
    "global",
    "global_p2",
    "global_p3",
    "upper_half",
    "lower_half",
    "top_third",
    "middle_third",
    "bottom_third",
)
"""The eight parts in the order in which an embedding holds them."""

GLOBAL_PARTS = 3
"""How many of the parts, from the first, describe the whole crop; the others describe horizontal stripes."""

PART_DIM = 256
EMBEDDING_DIM = len(PARTS) * PART_DIM

PartWeights = tuple[float, float, float, float, float, float, float, float]
"""What each part counts for, in the order of `PARTS`; only their ratios matter."""

EQUAL_WEIGHTS: PartWeights = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

OMZChannels = tuple[int, int, int, int]
"""Channels of the stem and of the three stages of an OSNet of Open Model Zoo."""

OMZ_CHANNELS: OMZChannels = (64, 256, 384, 512)
"""Those of width 1.0, person-reidentification-retail-0277."""

OMZ_INPUT = (256, 128)
"""Height and width in pixels of what Open Model Zoo's re-identification networks take, which give a part's numbers."""

Pooling = Literal["max", "average", "gem"]
SoftmaxOn = Literal["pooled", "reduced"]
ClassifierKind = Literal["linear", "cosine"]
BackboneName = Literal["resnet50", "resnet50_ibn", "mobilenet_v2", "osnet_x1_0", "osnet_omz"]
Stem = Literal["padded", "ceil"]


@dataclass(frozen=True)
class MGNConfig:
    """Every choice in which MGNs differ. The defaults are the paper (arXiv 1804.01438, section 3).

    `softmax_on` says which features of the three whole-crop parts the softmax loss sees: the `pooled` ones of the
    backbone's width (the paper) or the `reduced` 256-d ones (most public code). The five stripes always use the
    reduced ones. A `cosine` classifier gives cosines between features and classes, as the circle loss wants them.
    `global_stride` 1 leaves the last stride out of the global branch too. A ResNet's `stem` pools over padded maps, or
    without padding and rounding up, which gives the same size on a shifted grid. A `neck` is one more batch norm, the
    last layer of every reduction. `omz_channels` are those of the backbone `osnet_omz`, and so many of its whole-crop
    parts as `own_heads` says start as the backbone's own pooling and linear layer, in place of MGN's.
    """

    backbone: BackboneName = "resnet50"
    pooling: Pooling = "max"
    reduction_relu: bool = True
    softmax_on: SoftmaxOn = "pooled"
    classifier_bias: bool = False
    classifier: ClassifierKind = "linear"
    global_stride: Literal[1, 2] = 2
    stem: Stem = "padded"
    neck: bool = False
    omz_channels: OMZChannels = OMZ_CHANNELS
    own_heads: Literal[0, 1, 2, 3] = 0

    @property
    def name(self) -> str:
        """`paper` where every choice but the backbone is the paper's, `practical` otherwise."""
        return "paper" if self == MGNConfig(backbone=self.backbone) else "practical"
