"""OSNet (Zhou et al., ICCV 2019) at width 1.0, with its tensors named as its authors name them."""

import torch
from torch import Tensor, nn


class OSNet(nn.Module):
    """The layers conv1 to conv5, without classifier: `(N, 3, H, W)` -> `(N, 512, H/16, W/16)`."""

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


class _Convolution(nn.Module):
    """Convolution, batch norm and, unless it is linear, ReLU."""

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
    """Section 3.2, equation 3: weights each channel of a scale by what the scale sees; shared by all scales."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        seen = features.mean(dim=(2, 3), keepdim=True)
        return features * torch.sigmoid(self.fc2(torch.relu(self.fc1(seen))))


class _OmniScaleBlock(nn.Module):
    """Section 3.2, figure 4: streams of one to four light convolutions, gated and added, beside the identity."""

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
        gathered = torch.stack([self.gate(stream(reduced)) for stream in streams]).sum(dim=0)
        return torch.relu(self.conv3(gathered) + self.downsample(features))
