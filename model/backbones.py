"""The networks that MGN stands on, each cut into a shared trunk and a tail of which every branch has its own copy."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torchvision.models import MobileNetV2, ResNet, mobilenet_v2, resnet50

from model.architecture import BackboneName


@dataclass(frozen=True)
class Backbone:
    """A network cut in two.

    trunk: `(N, 3, H, W)` -> the map that the branches share, at 1/16 of the input's height and width.
    new_tail: gives a fresh copy, with the initial weights, of what follows: to `(N, channels, H/32, W/32)`, or, asked
        not to down-sample, to `(N, channels, H/16, W/16)`.
    """

    name: BackboneName
    channels: int
    trunk: nn.Sequential
    new_tail: Callable[[bool], nn.Module]


def build_backbone(name: BackboneName) -> Backbone:
    """A backbone by name, with random weights."""
    return cut_resnet50(resnet50(weights=None)) if name == "resnet50" else cut_mobilenet_v2(mobilenet_v2(weights=None))


def cut_resnet50(net: ResNet) -> Backbone:
    """Paper, section 3.1: shared up to res_conv4_1, then conv4_2 ... conv5_3 once a branch."""
    conv4_1, *conv4 = net.layer3.children()
    trunk = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, conv4_1)
    tail = nn.Sequential(nn.Sequential(*conv4), net.layer4)

    def new_tail(downsample: bool) -> nn.Module:
        branch: nn.Module = copy.deepcopy(tail)
        if not downsample:
            conv5_1: Any = branch.get_submodule("1.0")  # a Bottleneck
            conv5_1.conv2.stride = (1, 1)
            conv5_1.downsample[0].stride = (1, 1)
        return branch

    return Backbone("resnet50", 2048, trunk, new_tail)


def cut_mobilenet_v2(net: MobileNetV2) -> Backbone:
    """Blocks 0-13 of `features` are shared; 14-18 are copied, block 14 being the one with the last stride."""
    trunk, tail = net.features[:14], net.features[14:]

    def new_tail(downsample: bool) -> nn.Module:
        branch: nn.Module = copy.deepcopy(tail)
        if not downsample:
            block: Any = branch.get_submodule("14")  # an InvertedResidual: expand, depthwise, project
            block.conv[1][0].stride = (1, 1)
        return branch

    return Backbone("mobilenet_v2", 1280, trunk, new_tail)
