"""The typed description of an MGN: its eight parts, and the options of its variants."""

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
"""The number of whole-crop parts, which come first; the others describe horizontal stripes."""

PART_DIM = 256
EMBEDDING_DIM = len(PARTS) * PART_DIM

PartWeights = tuple[float, float, float, float, float, float, float, float]
"""The weight of each part, in the order of `PARTS`; only the ratios matter."""

EQUAL_WEIGHTS: PartWeights = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

OMZChannels = tuple[int, int, int, int]
"""Channels of the stem and of the three stages of an OSNet of Open Model Zoo."""

OMZ_CHANNELS: OMZChannels = (64, 256, 384, 512)
"""The channels at width 1.0, person-reidentification-retail-0277."""

OMZ_INPUT = (256, 128)
"""The input height and width in pixels of Open Model Zoo's re-identification networks, which give 256-d features."""

Pooling = Literal["max", "average", "gem"]
SoftmaxOn = Literal["pooled", "reduced"]
ClassifierKind = Literal["linear", "cosine"]
BackboneName = Literal["resnet50", "resnet50_ibn", "mobilenet_v2", "osnet_x1_0", "osnet_omz"]
Stem = Literal["padded", "ceil"]


@dataclass(frozen=True)
class MGNConfig:
    """The options in which MGN variants differ. The defaults are the paper's (arXiv 1804.01438, section 3).

    softmax_on: the features of the three whole-crop parts for the softmax loss: `pooled`, of the backbone's width (the
    paper), or `reduced` to 256 (most public code). The five stripes always use the reduced ones. classifier: `cosine`
    gives cosines between features and classes, which the circle loss needs. global_stride: 1 removes the last stride
    from the global branch too. stem: a ResNet's max pooling is padded, or rounds up without padding, which gives the
    same size on a shifted grid. neck: adds a batch norm as the last layer of every reduction. omz_channels: the
    channels of the backbone `osnet_omz`. own_heads: the number of whole-crop parts that use the backbone's pretrained
    pooling and linear layer instead of MGN's; they need `reduced` and the stride 1.
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
        """`paper` if every option but the backbone is the paper's, else `practical`."""
        return "paper" if self == MGNConfig(backbone=self.backbone) else "practical"
