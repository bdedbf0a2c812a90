"""Networks of public MGN code in plain torch, as sources of conversions."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Randomise norm weights and, where there are any, running statistics."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d):
            module.weight.data = torch.rand(module.weight.shape, generator=generator) + 0.5
            module.bias.data = torch.randn(module.bias.shape, generator=generator) * 0.1
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.1)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return network.eval()


def _part_conv5() -> nn.Sequential:
    """conv5 without its stride."""
    shortcut = nn.Sequential(nn.Conv2d(1024, 2048, 1, bias=False), nn.BatchNorm2d(2048))
    return nn.Sequential(Bottleneck(1024, 512, downsample=shortcut), Bottleneck(2048, 512), Bottleneck(2048, 512))


def pooling_windows(pool: type[nn.Module]) -> list[nn.Module]:
    """The windows of `PaperStyle`: g1, g2, g3, the halves, the thirds."""
    return [pool(kernel_size=size) for size in ((12, 4), (24, 8), (24, 8), (12, 8), (8, 8))]


class PaperStyle(nn.Module):
    """seathiefwang/MGN-pytorch (`backone`) and related projects: fixed pooling windows for 384 x 128."""

    def __init__(self, trunk: str, shared_reduction: bool, pooled_softmax: bool, pool: type[nn.Module]) -> None:
        super().__init__()
        net = resnet50(weights=None)
        self.trunk_name = trunk
        stages = (net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3[0])
        setattr(self, trunk, nn.Sequential(*stages))
        conv4 = nn.Sequential(*list(net.layer3)[1:])
        for number, conv5 in enumerate((net.layer4, _part_conv5(), _part_conv5()), start=1):
            setattr(self, f"p{number}", nn.Sequential(copy.deepcopy(conv4), conv5))
        self.windows = pooling_windows(pool)
        for number in range(1 if shared_reduction else 8):
            name = "reduction" if shared_reduction else f"reduction_{number}"
            setattr(self, name, nn.Sequential(nn.Conv2d(2048, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()))
        width = 2048 if pooled_softmax else 256
        for number in range(3):
            setattr(self, f"fc_id_2048_{number}", nn.Linear(width, 5))
        for name in ("1_0", "1_1", "2_0", "2_1", "2_2"):
            setattr(self, f"fc_id_256_{name}", nn.Linear(256, 5))

    def forward(self, images: Tensor) -> Tensor:
        """`(N, 8, 256)`: g1, g2, g3, the two of p2, the three of p3."""
        network: Any = self
        shared = getattr(self, self.trunk_name)(images)
        maps = [network.p1(shared), network.p2(shared), network.p3(shared)]
        globals_ = [window(part) for window, part in zip(self.windows[:3], maps, strict=True)]
        halves, thirds = self.windows[3](maps[1]), self.windows[4](maps[2])
        pooled = [*globals_, *halves.split(1, dim=2), *thirds.split(1, dim=2)]
        single = getattr(self, "reduction", None)
        reductions = [single or getattr(self, f"reduction_{i}") for i in range(8)]
        return torch.stack([reduce(part).flatten(1) for reduce, part in zip(reductions, pooled, strict=True)], dim=1)


class _IBN(nn.Module):
    def __init__(self, planes: int) -> None:
        super().__init__()
        self.half = planes // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(planes - self.half)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = torch.split(x, self.half, dim=1)
        return torch.cat((self.IN(first.contiguous()), self.BN(rest.contiguous())), dim=1)


class _GeM(nn.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([start]))

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x.clamp(min=1e-6).pow(self.p), 1).pow(1 / self.p)


class FastReid(nn.Module):
    """fast-reid: b1 to b33, all branches at stride 1, GeM; `old` is release 0.1.1, with ReLU and batch-norm necks."""

    NAMES = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")

    def __init__(self, old: bool, ibn: bool) -> None:
        super().__init__()
        net: Any = resnet50(weights=None)
        if ibn:
            for block in (*net.layer1, *net.layer2, *net.layer3):
                block.bn1 = _IBN(block.bn1.num_features)
        pool = nn.MaxPool2d(3, stride=2, padding=1) if old else nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.register_buffer("pixel_mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255)
        self.register_buffer("pixel_std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255)
        self.backbone = nn.Sequential(net.conv1, net.bn1, net.relu, pool, net.layer1, net.layer2, net.layer3[0])
        conv4 = nn.Sequential(*list(net.layer3)[1:])
        for name in ("b1", "b2", "b3"):
            setattr(self, name, nn.Sequential(copy.deepcopy(conv4), _part_conv5()))
        for number, name in enumerate(self.NAMES):
            gem, reduce, norm = _GeM(2.5 + 0.1 * number), nn.Conv2d(2048, 256, 1, bias=False), nn.BatchNorm2d(256)
            if old:
                setattr(self, f"{name}_pool", nn.Sequential(gem, reduce, norm, nn.ReLU(True)))
                setattr(self, f"{name}_head", nn.ModuleDict({"bnneck": nn.BatchNorm2d(256)}))
            else:
                head = nn.ModuleDict({"pool_layer": gem, "bottleneck": nn.Sequential(reduce, norm)})
                head.register_parameter("weight", nn.Parameter(torch.randn(5, 256)))
                setattr(self, f"{name}_head", head)
        self.old = old

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self
        shared = self.backbone(images)
        b1, b2, b3 = network.b1(shared), network.b2(shared), network.b3(shared)
        maps = (b1, b2, b3, *b2.chunk(2, dim=2), *b3.chunk(3, dim=2))
        return torch.stack([self._head(name, part) for name, part in zip(self.NAMES, maps, strict=True)], dim=1)

    def _head(self, name: str, features: Tensor) -> Tensor:
        head: Any = getattr(self, f"{name}_head")
        if self.old:
            return head["bnneck"](getattr(self, f"{name}_pool")(features)).flatten(1)
        return head["bottleneck"](head["pool_layer"](features)).flatten(1)
