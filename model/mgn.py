"""The Multiple Granularity Network (arXiv 1804.01438): one trunk, three branches, eight parts."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.architecture import EQUAL_WEIGHTS, GLOBAL_PARTS, PART_DIM, PARTS, MGNConfig, PartWeights, Pooling
from model.backbones import Backbone, build_backbone
from model.checkpoint import Checkpoint, InputFormat
from model.errors import CheckpointError


class MGNOutput(NamedTuple):
    """The outputs of MGN for training.

    parts: `(N, 8, 256)`, f_g and f_p of the paper, not normalised, in the order of `PARTS`.
    logits: eight tensors `(N, classes)`; empty if the network has no classifiers.
    """

    parts: Tensor
    logits: list[Tensor]

    @property
    def concatenation(self) -> Tensor:
        """`(N, 2048)`: the concatenated parts."""
        return self.parts.flatten(1)


class MGN(nn.Module):
    """The network of the paper's section 3.1, on a given backbone, for pictures of any size.

    The global branch keeps the backbone's last stride; the Part-2 and Part-3 branches drop it, so that their maps have
    twice the height and width. Each branch gives one feature of its whole map; the Part-2 and Part-3 branches also give
    one feature of each of their 2 and 3 horizontal stripes. Eight separate reductions map these features to 256
    dimensions. In the first `own_heads` parts, the backbone's pretrained head replaces pooling and reduction.
    """

    def __init__(self, backbone: Backbone, config: MGNConfig, classes: int = 0) -> None:
        """classes: the number of identities of the softmax loss; 0 builds no classifiers.

        Raises CheckpointError for `own_heads` on a backbone without a pretrained head.
        """
        super().__init__()
        self.config = config
        self.trunk = backbone.trunk
        self.branches = nn.ModuleList(
            backbone.new_tail(downsample) for downsample in (config.global_stride == 2, False, False)
        )
        # A map's maximum is the maximum of its row maxima: the backward pass writes each map once, not once per stripe.
        self.rows = _RowMaxima() if config.pooling == "max" else nn.Identity()
        self.pools = nn.ModuleList(
            nn.Identity() if part < config.own_heads else _pool(config.pooling) for part in range(len(PARTS))
        )
        self.reductions = nn.ModuleList(
            _pretrained_head(backbone) if part < config.own_heads else _reduction(backbone.channels, config)
            for part in range(len(PARTS))
        )
        self.classifiers = nn.ModuleList()
        if classes:
            for part in range(len(PARTS)):
                pooled = part < GLOBAL_PARTS and config.softmax_on == "pooled"
                width = backbone.channels if pooled else PART_DIM
                self.classifiers.append(_classifier(width, classes, config))

    def forward(self, images: Tensor) -> MGNOutput:
        """`(N, 3, H, W)` normalised pictures -> their parts and logits."""
        return self.forward_from_maps(self.trunk(images))

    def forward_from_maps(self, shared: Tensor) -> MGNOutput:
        """The trunk's maps `(N, C, H/16, W/16)` -> parts and logits."""
        maps = [branch(shared) for branch in self.branches]
        rows = [self.rows(branch_map) for branch_map in maps]
        heads = self.config.own_heads
        stripes = [*maps[:heads], *rows[heads:], *horizontal_stripes(rows[1], 2), *horizontal_stripes(rows[2], 3)]
        pooled = [pool(stripe) for pool, stripe in zip(self.pools, stripes, strict=True)]
        reduced = [reduce(feature).flatten(1) for reduce, feature in zip(self.reductions, pooled, strict=True)]
        logits = [
            classify(self._softmax_input(part, pooled[part], reduced[part]))
            for part, classify in enumerate(self.classifiers)
        ]
        return MGNOutput(torch.stack(reduced, dim=1), logits)

    def _softmax_input(self, part: int, pooled: Tensor, reduced: Tensor) -> Tensor:
        if part < GLOBAL_PARTS and self.config.softmax_on == "pooled":
            return pooled.flatten(1)
        return reduced


class Normalise(nn.Module):
    """`(N, H, W, 3)` uint8 RGB -> `(N, 3, H, W)` float32, normalised by mean and std."""

    mean: Tensor
    std: Tensor

    def __init__(self, input_format: InputFormat) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(input_format.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(input_format.std).view(1, 3, 1, 1) * 255)

    def forward(self, crops: Tensor) -> Tensor:
        return (crops.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std


class Embedder(nn.Module):
    """A trained MGN for inference: decoded crops in, embeddings out.

    `(N, H, W, 3)` uint8 RGB of the checkpoint's input size -> `(N, 8, 256)` float32, each part L2-normalised times its
    weight, so that the whole embedding has norm 1. With `flip` the parts are averaged with those of the mirror image
    (paper, section 4.2), which takes twice the time.
    """

    scales: Tensor

    def __init__(self, mgn: MGN, input_format: InputFormat, part_weights: PartWeights = EQUAL_WEIGHTS) -> None:
        super().__init__()
        self.register_buffer("scales", part_scales(part_weights), persistent=False)
        self.mgn = mgn
        self.normalise = Normalise(input_format)
        self.flip = input_format.flip

    def forward(self, crops: Tensor) -> Tensor:
        images = self.normalise(crops)
        parts = self.mgn(images).parts
        if self.flip:
            parts = (parts + self.mgn(images.flip(3)).parts) / 2
        return weighted_parts(parts.float(), self.scales)


def load_embedder(checkpoint: Checkpoint) -> Embedder:
    """Build a checkpoint's network with its weights, in evaluation mode and float32.

    Raises CheckpointError if weights are missing, unexpected or of another shape.
    """
    config, input_format = checkpoint.metadata.architecture, checkpoint.metadata.input
    mgn = MGN(build_backbone(config), config)
    try:
        mgn.load_state_dict({name: torch.tensor(weights) for name, weights in checkpoint.weights.items()})
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"the weights do not fit their architecture: {error}") from error
    return Embedder(mgn, input_format, checkpoint.metadata.part_weights).eval()


def part_scales(weights: PartWeights) -> Tensor:
    """`(8, 1)`: the factor of each part's unit vector, so that the whole embedding has norm 1."""
    return F.normalize(torch.tensor(weights, dtype=torch.float64), dim=0).float().view(-1, 1)


def weighted_parts(parts: Tensor, scales: Tensor) -> Tensor:
    """Parts `(N, 8, 256)` -> each L2-normalised and scaled by `(8, 1)`."""
    return F.normalize(parts, dim=2) * scales


def horizontal_stripes(features: Tensor, count: int) -> list[Tensor]:
    """Cut `(N, C, H, W)` into `count` equal horizontal stripes with the bounds of adaptive pooling.

    If `count` does not divide H, neighbouring stripes share a row. Uses slices because adaptive pooling does not export
    to ONNX for such heights.
    """
    height = features.shape[2]
    bounds = [(i * height // count, -(-(i + 1) * height // count)) for i in range(count)]
    return [features[:, :, top:bottom] for top, bottom in bounds]


class _MaxPool(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(features, 1)


class _RowMaxima(nn.Module):
    """`(N, C, H, W)` -> `(N, C, H, 1)`."""

    def forward(self, features: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(features, (features.shape[2], 1))


class _AveragePool(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3), keepdim=True)


class _GeMPool(nn.Module):
    """Generalised mean with a learned exponent (Radenovic et al., arXiv 1711.02512, equation 3)."""

    def __init__(self, exponent: float = 3.0, floor: float = 1e-6) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(exponent))
        self.floor = floor

    def forward(self, features: Tensor) -> Tensor:
        powers = features.clamp(min=self.floor).pow(self.exponent)
        return powers.mean(dim=(2, 3), keepdim=True).pow(1 / self.exponent)


def _pool(kind: Pooling) -> nn.Module:
    return {"max": _MaxPool, "average": _AveragePool, "gem": _GeMPool}[kind]()


def _pretrained_head(backbone: Backbone) -> nn.Module:
    if backbone.new_head is None:
        raise CheckpointError(f"own_heads: {backbone.name} has no pretrained pooling and linear layer")
    return backbone.new_head()


def _reduction(channels: int, config: MGNConfig) -> nn.Sequential:
    convolution = nn.Conv2d(channels, PART_DIM, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_in")
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(PART_DIM)]
    if config.reduction_relu:
        layers.append(nn.ReLU())
    if config.neck:
        layers.append(nn.BatchNorm2d(PART_DIM))
    return nn.Sequential(*layers)


def _classifier(width: int, classes: int, config: MGNConfig) -> nn.Module:
    if config.classifier == "cosine":
        return _CosineClassifier(width, classes)
    classifier = nn.Linear(width, classes, bias=config.classifier_bias)
    nn.init.normal_(classifier.weight, std=0.001)
    if config.classifier_bias:
        nn.init.zeros_(classifier.bias)
    return classifier


class _CosineClassifier(nn.Module):
    """`(N, width)` -> `(N, classes)` cosines with a learned direction for each class."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, width))
        nn.init.normal_(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(F.normalize(features), F.normalize(self.weight))
