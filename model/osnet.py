"""OSNet (Zhou et al., ICCV 2019): the authors' network, and Open Model Zoo's variant for re-identification."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.architecture import OMZ_CHANNELS, PART_DIM, OMZChannels

STREAMS = 4
"""The streams of an omni-scale block: chains of one to four light convolutions."""

OMZ_MAP = (16, 8)
"""Height and width of the last feature map of Open Model Zoo's networks."""

CONTEXT_GROUPS = 16
"""The number of channel groups in a linear context transform."""


class OSNet(nn.Module):
    """The layers conv1 to conv5, without classifier: `(N, 3, H, W)` -> `(N, 512, H/16, W/16)`.

    Width 1.0; tensors have the authors' names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _Convolution(3, 64, 7, stride=2)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = nn.Sequential(
            _OmniScaleBlock(64, 256),
            _OmniScaleBlock(256, 256),
            nn.Sequential(_Convolution(256, 256, 1), nn.AvgPool2d(2, stride=2)),
        )
        self.conv3 = nn.Sequential(
            _OmniScaleBlock(256, 384),
            _OmniScaleBlock(384, 384),
            nn.Sequential(_Convolution(384, 384, 1), nn.AvgPool2d(2, stride=2)),
        )
        self.conv4 = nn.Sequential(_OmniScaleBlock(384, 512), _OmniScaleBlock(512, 512))
        self.conv5 = _Convolution(512, 512, 1)

    def forward(self, images: Tensor) -> Tensor:
        shared = self.conv3(self.conv2(self.maxpool(self.conv1(images))))
        features: Tensor = self.conv5(self.conv4(shared))
        return features


class OMZOSNet(nn.Module):
    """The network of Open Model Zoo's person-reidentification-retail-0277 and its siblings.

    channels: of the stem and of the three stages; a quarter of each stage's channels is a multiple of CONTEXT_GROUPS.

    Differences from the paper: the input and the stem have instance norms, every batch norm is folded into the
    convolution before it, and the second block of each stage gates its streams by linear context transforms.

    `(N, 3, 256, 128)` RGB with the mean and standard deviation of ImageNet -> `(N, 256)`, not normalised.
    """

    def __init__(self, channels: OMZChannels = OMZ_CHANNELS) -> None:
        super().__init__()
        stem, *stages = channels
        self.channels = stages[2]
        self.input_norm = nn.InstanceNorm2d(3, affine=True)
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.stem_norm = nn.InstanceNorm2d(stem, affine=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = _folded_stage(stem, stages[0], transition=True)
        self.conv3 = _folded_stage(stages[0], stages[1], transition=True)
        self.conv4 = _folded_stage(stages[1], stages[2], transition=False)
        self.conv5 = nn.Sequential(nn.Conv2d(stages[2], stages[2], 1), nn.ReLU(inplace=True))
        self.head = OMZHead(stages[2])

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(self.conv5(self.conv4(self.trunk()(images)))).flatten(1)
        return features

    def trunk(self) -> nn.Sequential:
        """Everything before conv4: `(N, 3, H, W)` -> `(N, C, H/16, W/16)`, with the second stage's channels."""
        stem = (self.input_norm, self.conv1, self.stem_norm, nn.ReLU(inplace=True), self.maxpool)
        return nn.Sequential(*stem, self.conv2, self.conv3)


class OMZHead(nn.Module):
    """The pooling and linear layer of these networks: `(N, C, 16, 8)` -> `(N, 256, 1, 1)`.

    The pooling is learned: a weight for each channel and position of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.Conv2d(channels, channels, OMZ_MAP, groups=channels)
        self.linear = nn.Conv2d(channels, PART_DIM, 1)
        self.prelu = nn.PReLU()

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.prelu(self.linear(self.pool(features)))
        return out


def _folded_stage(channels: int, out: int, transition: bool) -> nn.Sequential:
    """A stage of `OMZOSNet`. transition: whether it ends with a layer that halves height and width."""
    layers: list[nn.Module] = [
        _FoldedBlock(channels, out, _AggregationGate(out // 4)),
        _FoldedBlock(out, out, _ContextGate(out // 4)),
    ]
    if transition:
        layers += [nn.Conv2d(out, out, 1), nn.ReLU(inplace=True), nn.AvgPool2d(2, stride=2)]
    return nn.Sequential(*layers)


class _FoldedBlock(nn.Module):
    """Section 3.2, figure 4, with batch norms folded into biases."""

    def __init__(self, channels: int, out: int, gate: "_AggregationGate | _ContextGate") -> None:
        super().__init__()
        middle = out // 4
        self.conv1 = nn.Conv2d(channels, middle, 1)
        self.streams = nn.ModuleList(
            nn.Sequential(*(_FoldedLightConvolution(middle) for _ in range(length))) for length in range(1, STREAMS + 1)
        )
        self.gate = gate
        self.conv3 = nn.Conv2d(middle, out, 1)
        self.downsample = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        reduced = F.relu(self.conv1(features))
        summed = self.gate(self.streams[0](reduced), 0)
        for number in range(1, STREAMS):
            summed = summed + self.gate(self.streams[number](reduced), number)
        return F.relu(self.conv3(summed) + self.downsample(features))


class _FoldedLightConvolution(nn.Module):
    """Section 3.1, Lite 3 x 3, with the batch norm folded into the depthwise convolution's bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(features)))


class _ContextGate(nn.Module):
    """Linear context transform (Ruan et al., arXiv 1909.03834): a gate for each stream.

    Each channel's mean over the map is normalised within groups of neighbouring channels, scaled and shifted: a group
    norm of a 1 x 1 map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(CONTEXT_GROUPS, channels) for _ in range(STREAMS))

    def forward(self, features: Tensor, stream: int) -> Tensor:
        means = features.mean(dim=(2, 3), keepdim=True)
        return features * torch.sigmoid(self.norms[stream](means))


class _Convolution(nn.Module):
    """Convolution, batch norm and, unless `linear`, ReLU."""

    def __init__(self, channels: int, out: int, size: int, stride: int = 1, linear: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, size, stride=stride, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.relu = nn.Identity() if linear else nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn(self.conv(features)))
        return out


class _LightConvolution(nn.Module):
    """Section 3.1, Lite 3 x 3: a pointwise convolution, then a depthwise one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn(self.conv2(self.conv1(features))))
        return out


class _AggregationGate(nn.Module):
    """Section 3.2, equation 3: weights each channel of a stream by its mean over the map; shared by all streams."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, features: Tensor, stream: int = 0) -> Tensor:
        means = features.mean(dim=(2, 3), keepdim=True)
        return features * torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))


class _OmniScaleBlock(nn.Module):
    """Section 3.2, figure 4: streams of one to four light convolutions, gated and summed; residual connection."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        middle = out // 4
        self.conv1 = _Convolution(channels, middle, 1)
        self.conv2a = _LightConvolution(middle)
        self.conv2b = nn.Sequential(*(_LightConvolution(middle) for _ in range(2)))
        self.conv2c = nn.Sequential(*(_LightConvolution(middle) for _ in range(3)))
        self.conv2d = nn.Sequential(*(_LightConvolution(middle) for _ in range(4)))
        self.gate = _AggregationGate(middle)
        self.conv3 = _Convolution(middle, out, 1, linear=True)
        self.downsample = _Convolution(channels, out, 1, linear=True) if channels != out else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        reduced = self.conv1(features)
        streams = (self.conv2a, self.conv2b, self.conv2c, self.conv2d)
        summed = torch.stack([self.gate(stream(reduced)) for stream in streams]).sum(dim=0)
        return torch.relu(self.conv3(summed) + self.downsample(features))
