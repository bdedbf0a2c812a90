"""MGN's backbones, each split into a shared trunk and a tail that is copied for every branch."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2, ResNet, mobilenet_v2, resnet50

from model.architecture import BackboneName, MGNConfig, Stem
from model.osnet import OMZOSNet, OSNet


@dataclass(frozen=True)
class Backbone:
    """A network split into trunk and tail.

    trunk: `(N, 3, H, W)` -> the map that the branches share, at 1/16 of the input's height and width.
    new_tail: returns a new copy of the layers after the trunk, with the initial weights; its output is
        `(N, channels, H/32, W/32)` with down-sampling, `(N, channels, H/16, W/16)` without.
    new_head: returns a new copy of the network's pretrained pooling and linear layer, with the initial weights,
        `(N, channels, H/16, W/16)` -> `(N, 256, 1, 1)`; None for a network without a 256-d head.
    """

    name: BackboneName
    channels: int
    trunk: nn.Sequential
    new_tail: Callable[[bool], nn.Module]
    new_head: Callable[[], nn.Module] | None = None


def build_backbone(config: MGNConfig) -> Backbone:
    """The backbone of an MGN, with random weights."""
    match config.backbone:
        case "resnet50":
            return cut_resnet50(resnet50(weights=None), "resnet50", config.stem)
        case "resnet50_ibn":
            net = resnet50(weights=None)
            add_instance_norms(net)
            return cut_resnet50(net, "resnet50_ibn", config.stem)
        case "mobilenet_v2":
            return cut_mobilenet_v2(mobilenet_v2(weights=None))
        case "osnet_x1_0":
            return cut_osnet(OSNet())
        case "osnet_omz":
            return cut_omz_osnet(OMZOSNet(config.omz_channels))
        case unknown:
            assert_never(unknown)


def cut_resnet50(net: ResNet, name: BackboneName = "resnet50", stem: Stem = "padded") -> Backbone:
    """Split as in the paper, section 3.1: the trunk ends with res_conv4_1; conv4_2 ... conv5_3 are the tail."""
    pool = nn.MaxPool2d(3, stride=2, ceil_mode=True) if stem == "ceil" else net.maxpool
    conv4_1, *conv4 = net.layer3.children()
    trunk = nn.Sequential(net.conv1, net.bn1, net.relu, pool, net.layer1, net.layer2, conv4_1)
    tail = nn.Sequential(nn.Sequential(*conv4), net.layer4)

    def new_tail(downsample: bool) -> nn.Module:
        branch: nn.Module = copy.deepcopy(tail)
        if not downsample:
            conv5_1: Any = branch.get_submodule("1.0")  # a Bottleneck
            conv5_1.conv2.stride = (1, 1)
            conv5_1.downsample[0].stride = (1, 1)
        return branch

    return Backbone(name, 2048, trunk, new_tail)


def cut_mobilenet_v2(net: MobileNetV2) -> Backbone:
    """Split before the block with the last stride: blocks 0-13 of `features` are the trunk, 14-18 the tail."""
    trunk, tail = net.features[:14], net.features[14:]

    def new_tail(downsample: bool) -> nn.Module:
        branch: nn.Module = copy.deepcopy(tail)
        if not downsample:
            block: Any = branch.get_submodule("14")  # an InvertedResidual: expand, depthwise, project
            block.conv[1][0].stride = (1, 1)
        return branch

    return Backbone("mobilenet_v2", 1280, trunk, new_tail)


def cut_osnet(net: OSNet) -> Backbone:
    """Split after conv3: conv4 and conv5 are the tail.

    OSNet has no stride in the tail, so the global branch pools before it.
    """
    trunk = nn.Sequential(net.conv1, net.maxpool, net.conv2, net.conv3)
    tail = nn.Sequential(net.conv4, net.conv5)

    def new_tail(downsample: bool) -> nn.Module:
        branch = copy.deepcopy(tail)
        return nn.Sequential(nn.AvgPool2d(2, ceil_mode=True) if downsample else nn.Identity(), *branch.children())

    return Backbone("osnet_x1_0", 512, trunk, new_tail)


def cut_omz_osnet(net: OMZOSNet) -> Backbone:
    """Split like `cut_osnet`, with the pretrained head."""
    tail = nn.Sequential(net.conv4, net.conv5)

    def new_tail(downsample: bool) -> nn.Module:
        branch = copy.deepcopy(tail)
        return nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), *branch.children()) if downsample else branch

    return Backbone("osnet_omz", net.channels, net.trunk(), new_tail, lambda: copy.deepcopy(net.head))


def add_instance_norms(net: ResNet) -> None:
    """Make a ResNet an IBN-Net-a (Pan et al., ECCV 2018): half of the first norm of each block in layers 1 to 3.

    That half becomes an instance norm; the ResNet changes in place.
    """
    for layer in (net.layer1, net.layer2, net.layer3):
        block: Any  # a Bottleneck
        for block in layer.children():
            block.bn1 = InstanceBatchNorm(block.bn1.num_features)


class InstanceBatchNorm(nn.Module):
    """Instance norm of the first half of the channels, batch norm of the rest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._half = channels // 2
        self.IN = nn.InstanceNorm2d(self._half, affine=True)
        self.BN = nn.BatchNorm2d(channels - self._half)

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, H, W)` -> the same shape."""
        first, rest = features[:, : self._half], features[:, self._half :]
        return torch.cat([self.IN(first.contiguous()), self.BN(rest.contiguous())], dim=1)
