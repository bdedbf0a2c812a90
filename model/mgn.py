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
    """What training needs of a batch.

    parts: `(N, 8, 256)`, f_g and f_p of the paper, not normalised, in the order of `PARTS`.
    logits: eight of `(N, classes)`; empty where the network has no classifiers.
    """

    parts: Tensor
    logits: list[Tensor]

    @property
    def concatenation(self) -> Tensor:
        """`(N, 2048)`: the parts one after the other."""
        return self.parts.flatten(1)


class MGN(nn.Module):
    """The network of section 3.1, on a backbone that is given to it, for pictures of any size.

    The global branch keeps the backbone's last stride; the Part-2 and Part-3 branches do without it, so that their maps
    are twice as high and wide. Each branch gives one feature of its whole map, and the last two one of each of their
    2 and 3 horizontal stripes. Eight reductions, not shared, bring all of them to 256 numbers. Of the first
    `own_heads` parts, the backbone's own pooling and linear layer are both pooling and reduction.
    """

    def __init__(self, backbone: Backbone, config: MGNConfig, classes: int = 0) -> None:
        """`classes` is the number of identities that the softmax tells apart; 0 builds no classifiers."""
        super().__init__()
        self.config = config
        self.trunk = backbone.trunk
        self.branches = nn.ModuleList(
            backbone.new_tail(downsample) for downsample in (config.global_stride == 2, False, False)
        )
        # A maximum of rows' maxima is the map's: gradients then spread over each map once, not once a stripe.
        self.rows = _RowMaxima() if config.pooling == "max" else nn.Identity()
        self.pools = nn.ModuleList(
            nn.Identity() if part < config.own_heads else _pool(config.pooling) for part in range(len(PARTS))
        )
        self.reductions = nn.ModuleList(
            _own_head(backbone) if part < config.own_heads else _reduction(backbone.channels, config)
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
        maps = [self.rows(branch(shared)) for branch in self.branches]
        stripes = [*maps, *_stripes(maps[1], 2), *_stripes(maps[2], 3)]
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
    """`(N, H, W, 3)` uint8 RGB -> `(N, 3, H, W)` float32, the numbers that the network is trained on."""

    mean: Tensor
    std: Tensor

    def __init__(self, input_format: InputFormat) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(input_format.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(input_format.std).view(1, 3, 1, 1) * 255)

    def forward(self, crops: Tensor) -> Tensor:
        return (crops.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std


class Embedder(nn.Module):
    """A trained MGN as the service uses it: decoded crops in, embeddings out.

    `(N, H, W, 3)` uint8 RGB of the checkpoint's input size -> `(N, 8, 256)` float32, each part L2-normalised times its
    weight, so that the 2048 numbers have norm 1. With `flip` the parts are averaged with those of the mirror image
    (paper, section 4.2), which costs twice the time.
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
    """Build the network that a checkpoint describes, with its weights, ready for inference in float32.

    Raises CheckpointError where weights are missing, left over or of another shape.
    """
    config, input_format = checkpoint.metadata.architecture, checkpoint.metadata.input
    mgn = MGN(build_backbone(config), config)
    state = {name: torch.tensor(weights) for name, weights in checkpoint.weights.items()}
    try:
        mgn.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the weights do not fit their architecture: {error}") from error
    return Embedder(mgn, input_format, checkpoint.metadata.part_weights).eval()


def part_scales(weights: PartWeights) -> Tensor:
    """`(8, 1)`: what the unit vector of each part is multiplied by, so that all eight together have norm 1."""
    return F.normalize(torch.tensor(weights, dtype=torch.float64), dim=0).float().view(-1, 1)


def weighted_parts(parts: Tensor, scales: Tensor) -> Tensor:
    """Parts `(N, 8, 256)` of any length -> each L2-normalised and scaled by `(8, 1)`."""
    return F.normalize(parts, dim=2) * scales


def _stripes(features: Tensor, count: int) -> list[Tensor]:
    """Cut `(N, C, H, W)` into `count` equal horizontal bands, as adaptive pooling bounds them.

    Where `count` does not divide H, neighbouring bands share a row. Explicit slices, because adaptive pooling does not
    export to ONNX for such heights.
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


def _own_head(backbone: Backbone) -> nn.Module:
    if backbone.new_head is None:
        raise CheckpointError(f"own_heads: {backbone.name} has no pooling and linear layer of its own")
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
