"""Random augmentation of training batches: parameters are sampled for the whole batch, then applied."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

AutoAugmentation = Literal["none", "auto", "random", "trivial"]


@dataclass(frozen=True)
class Augmentation:
    """The augmentation section of a recipe.

    flip, erase: probabilities. pad: pixels of padding before a random crop back to size. The erased box covers 2 % to
    `erase_largest` of the picture at an aspect ratio of 0.3 to 3.3 (Zhong et al., arXiv 1708.04896) and becomes the
    data's mean, which is 0 in a normalised picture. jitter: the largest relative change of brightness, contrast and
    saturation; the hue changes by at most a tenth of it. auto: torchvision's AutoAugment (ImageNet policy), RandAugment
    or TrivialAugment.
    """

    flip: float = 0.5
    pad: int = 0
    erase: float = 0.0
    erase_largest: float = 0.4
    jitter: float = 0.0
    auto: AutoAugmentation = "none"


@dataclass(frozen=True)
class AugmentationParams:
    """The sampled augmentation parameters of N pictures.

    Sampled on the CPU, so that they do not depend on the device.
    flipped: `(N,)` bool. offsets: `(2, N)`, pixels from the padded picture's top and left. boxes: `(4, N)` in 0..1:
    area, aspect ratio, y and x of the erased box; erased: `(N,)` bool. seeds: `(N,)`, the seeds of torchvision's own
    transforms.
    """

    flipped: Tensor
    offsets: Tensor
    boxes: Tensor
    erased: Tensor
    seeds: Tensor

    def select(self, rows: slice) -> "AugmentationParams":
        """The parameters of the pictures `rows`."""
        return AugmentationParams(
            self.flipped[rows], self.offsets[:, rows], self.boxes[:, rows], self.erased[rows], self.seeds[rows]
        )


def sample_params(count: int, config: Augmentation, generator: torch.Generator) -> AugmentationParams:
    """Sample the parameters of `count` pictures."""
    return AugmentationParams(
        flipped=torch.rand(count, generator=generator) < config.flip,
        offsets=torch.randint(0, 2 * config.pad + 1, (2, count), generator=generator),
        boxes=torch.rand(4, count, generator=generator),
        erased=torch.rand(count, generator=generator) < config.erase,
        seeds=torch.randint(0, 2**31, (count,), generator=generator),
    )


def augment_colours(crops: Tensor, config: Augmentation, params: AugmentationParams) -> Tensor:
    """Apply torchvision's transforms to each picture: `(N, H, W, 3)` uint8 RGB -> the same shape."""
    if config.jitter == 0 and config.auto == "none":
        return crops
    transform = _torchvision_transforms(config.jitter, config.auto)
    pictures = crops.permute(0, 3, 1, 2)
    transformed = []
    with torch.random.fork_rng(devices=[]):
        for picture, seed in zip(pictures, params.seeds.tolist(), strict=True):
            torch.manual_seed(seed)
            transformed.append(transform(picture))
    return torch.stack(transformed).permute(0, 2, 3, 1)


def augment_geometry(images: Tensor, config: Augmentation, params: AugmentationParams) -> Tensor:
    """Flip, shift and erase: normalised pictures `(N, 3, H, W)` -> the same shape."""
    images = torch.where(params.flipped.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
    images = _shift(images, config.pad, params.offsets.to(images.device))
    return erase(images, config, params)


@cache
def _torchvision_transforms(jitter: float, auto: AutoAugmentation) -> torch.nn.Module:
    from torchvision.transforms import v2

    transforms: list[torch.nn.Module] = []
    if auto != "none":
        transform = {"auto": v2.AutoAugment, "random": v2.RandAugment, "trivial": v2.TrivialAugmentWide}[auto]
        transforms.append(transform())
    if jitter:
        transforms.append(v2.ColorJitter(jitter, jitter, jitter, jitter / 10))
    return torch.nn.Sequential(*transforms)


def _shift(images: Tensor, pad: int, offsets: Tensor) -> Tensor:
    if pad == 0:
        return images
    count, _, height, width = images.shape
    device = images.device
    padded = F.pad(images, (pad, pad, pad, pad))
    top, left = offsets.unbind()
    rows = (top[:, None] + torch.arange(height, device=device)).view(count, 1, height, 1)
    columns = (left[:, None] + torch.arange(width, device=device)).view(count, 1, 1, width)
    pictures = torch.arange(count, device=device).view(count, 1, 1, 1)
    channels = torch.arange(3, device=device).view(1, 3, 1, 1)
    return padded[pictures, channels, rows, columns]


def erase(images: Tensor, config: Augmentation, params: AugmentationParams) -> Tensor:
    """Set the sampled boxes to 0: pictures or maps `(N, C, H, W)` -> the same shape."""
    if config.erase == 0:
        return images
    _, _, height, width = images.shape
    area, ratio, y, x = params.boxes.unbind()
    area = (0.02 + area * (config.erase_largest - 0.02)) * height * width
    ratio = torch.exp((ratio * 2 - 1) * torch.log(torch.tensor(3.3)))
    box_height = (area * ratio).sqrt().clamp(max=height - 1)
    box_width = (area / ratio).sqrt().clamp(max=width - 1)
    top, left = y * (height - box_height), x * (width - box_width)
    rows, columns = torch.arange(height), torch.arange(width)
    in_rows = (rows >= top[:, None]) & (rows < (top + box_height)[:, None]) & params.erased[:, None]
    in_columns = (columns >= left[:, None]) & (columns < (left + box_width)[:, None])
    box = in_rows.to(images.device)[:, None, :, None] & in_columns.to(images.device)[:, None, None, :]
    return images.masked_fill(box, 0.0)
