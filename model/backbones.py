"""The networks that MGN stands on, each cut into a shared trunk and a tail of which every branch has its own copy."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torchvision.models import mobilenet_v2, resnet50

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


def build_backbone(name: BackboneName, network: nn.Module | None = None) -> Backbone:
    """Cut `network` (torchvision's, with whatever weights it has; by default with random ones) for MGN."""
    return _CUTS[name](network)


def _cut_resnet50(network: nn.Module | None) -> Backbone:
    """Paper, section 3.1: shared up to res_conv4_1, then conv4_2 ... conv5_3 once a branch."""
    net = network or resnet50(weights=None)
    trunk = nn.Sequential(
        net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3[0]
    )
    tail = nn.Sequential(net.layer3[1:], net.layer4)

    def new_tail(downsample: bool) -> nn.Module:
        branch = copy.deepcopy(tail)
        if not downsample:
            conv5_1 = branch[1][0]
            conv5_1.conv2.stride = (1, 1)
            conv5_1.downsample[0].stride = (1, 1)
        return branch

    return Backbone("resnet50", 2048, trunk, new_tail)


def _cut_mobilenet_v2(network: nn.Module | None) -> Backbone:
    """Blocks 0-13 of `features` are shared; 14-18 are copied, block 14 being the one with the last stride."""
    features = (network or mobilenet_v2(weights=None)).features
    trunk, tail = features[:14], features[14:]

    def new_tail(downsample: bool) -> nn.Module:
        branch = copy.deepcopy(tail)
        if not downsample:
            depthwise = branch[0].conv[1][0]
            depthwise.stride = (1, 1)
        return branch

    return Backbone("mobilenet_v2", 1280, trunk, new_tail)


_CUTS: dict[BackboneName, Callable[[nn.Module | None], Backbone]] = {
    "resnet50": _cut_resnet50,
    "mobilenet_v2": _cut_mobilenet_v2,
}
