"""Random changes of training batches: drawn for the whole batch at once, then made by vectorised operations."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

AutoAugmentation = Literal["none", "auto", "random", "trivial"]


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training picture.

    flip, erase: probabilities. pad: pixels of padding before a random crop back to size. The erased box covers 2 % to
    `erase_largest` of the picture at an aspect ratio of 0.3 to 3.3 (Zhong et al., arXiv 1708.04896) and becomes the
    data's mean, which is 0 in a normalised picture. jitter: brightness, contrast and saturation change by up to this
    share, the hue by a tenth of it. auto: torchvision's AutoAugment (ImageNet policy), RandAugment or TrivialAugment.
    """

    flip: float = 0.5
    pad: int = 0
    erase: float = 0.0
    erase_largest: float = 0.4
    jitter: float = 0.0
    auto: AutoAugmentation = "none"


@dataclass(frozen=True)
class Changes:
    """What happens to each of N pictures; on the CPU, so that they are the same whatever the device.

    flipped: `(N,)` bool. offsets: `(2, N)`, pixels from the padded picture's top and left. boxes: `(4, N)` fractions of
    1 that decide the erased box's area, aspect ratio, and place; erased: `(N,)` bool. seeds: `(N,)`, of the changes
    that torchvision draws itself.
    """

    flipped: Tensor
    offsets: Tensor
    boxes: Tensor
    erased: Tensor
    seeds: Tensor

    def part(self, rows: slice) -> "Changes":
        """Those of some of the pictures."""
        return Changes(
            self.flipped[rows], self.offsets[:, rows], self.boxes[:, rows], self.erased[rows], self.seeds[rows]
        )


def draw_changes(count: int, how: Augmentation, generator: torch.Generator) -> Changes:
    """Draw what happens to `count` pictures."""
    return Changes(
        flipped=torch.rand(count, generator=generator) < how.flip,
        offsets=torch.randint(0, 2 * how.pad + 1, (2, count), generator=generator),
        boxes=torch.rand(4, count, generator=generator),
        erased=torch.rand(count, generator=generator) < how.erase,
        seeds=torch.randint(0, 2**31, (count,), generator=generator),
    )


def change_colours(crops: Tensor, how: Augmentation, changes: Changes) -> Tensor:
    """`(N, H, W, 3)` uint8 RGB -> the same with torchvision's changes made, picture by picture."""
    if how.jitter == 0 and how.auto == "none":
        return crops
    transform = _torchvision_changes(how.jitter, how.auto)
    pictures = crops.permute(0, 3, 1, 2)
    changed = []
    with torch.random.fork_rng(devices=[]):
        for picture, seed in zip(pictures, changes.seeds.tolist(), strict=True):
            torch.manual_seed(seed)
            changed.append(transform(picture))
    return torch.stack(changed).permute(0, 2, 3, 1)


def change_shapes(images: Tensor, how: Augmentation, changes: Changes) -> Tensor:
    """`(N, 3, H, W)` normalised pictures -> flipped, shifted and with boxes erased."""
    images = torch.where(changes.flipped.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
    images = _shift(images, how.pad, changes.offsets.to(images.device))
    return erase(images, how, changes)


@cache
def _torchvision_changes(jitter: float, auto: AutoAugmentation) -> torch.nn.Module:
    from torchvision.transforms import v2

    transforms: list[torch.nn.Module] = []
    if auto != "none":
        kind = {"auto": v2.AutoAugment, "random": v2.RandAugment, "trivial": v2.TrivialAugmentWide}[auto]
        transforms.append(kind())
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


def erase(images: Tensor, how: Augmentation, changes: Changes) -> Tensor:
    """`(N, C, H, W)` pictures or maps with the drawn boxes set to 0."""
    if how.erase == 0:
        return images
    _, _, height, width = images.shape
    area, ratio, y, x = changes.boxes.unbind()
    area = (0.02 + area * (how.erase_largest - 0.02)) * height * width
    ratio = torch.exp((ratio * 2 - 1) * torch.log(torch.tensor(3.3)))
    box_height = (area * ratio).sqrt().clamp(max=height - 1)
    box_width = (area / ratio).sqrt().clamp(max=width - 1)
    top, left = y * (height - box_height), x * (width - box_width)
    rows, columns = torch.arange(height), torch.arange(width)
    in_rows = (rows >= top[:, None]) & (rows < (top + box_height)[:, None]) & changes.erased[:, None]
    in_columns = (columns >= left[:, None]) & (columns < (left + box_width)[:, None])
    box = in_rows.to(images.device)[:, None, :, None] & in_columns.to(images.device)[:, None, None, :]
    return images.masked_fill(box, 0.0)
