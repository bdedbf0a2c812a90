"""Random changes of training batches, vectorised over the batch, drawn from a generator that is given."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training picture.

    flip, erase: probabilities. pad: pixels of padding before a random crop back to size. The erased box covers 2 % to
    `erase_largest` of the picture at an aspect ratio of 0.3 to 3.3 (Zhong et al., arXiv 1708.04896) and becomes the
    data's mean, which is 0 in a normalised picture.
    """

    flip: float = 0.5
    pad: int = 0
    erase: float = 0.0
    erase_largest: float = 0.4


def augment(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """`(N, 3, H, W)` normalised pictures -> the same shape, changed at random."""
    images = _flip(images, how.flip, generator)
    images = _pad_crop(images, how.pad, generator)
    return _erase(images, how, generator)


def _flip(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    flipped = torch.rand(len(images), generator=generator) < probability
    return torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)


def _pad_crop(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    if pad == 0:
        return images
    count, _, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad))
    top, left = torch.randint(0, 2 * pad + 1, (2, count), generator=generator).unbind()
    rows = (top[:, None] + torch.arange(height)).view(count, 1, height, 1)
    columns = (left[:, None] + torch.arange(width)).view(count, 1, 1, width)
    pictures = torch.arange(count).view(count, 1, 1, 1)
    channels = torch.arange(3).view(1, 3, 1, 1)
    return padded[pictures, channels, rows, columns]


def _erase(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    if how.erase == 0:
        return images
    count, _, height, width = images.shape
    chosen, area, ratio, y, x = torch.rand(5, count, generator=generator).unbind()
    area = (0.02 + area * (how.erase_largest - 0.02)) * height * width
    ratio = torch.exp((ratio * 2 - 1) * torch.log(torch.tensor(3.3)))
    box_height = (area * ratio).sqrt().clamp(max=height - 1)
    box_width = (area / ratio).sqrt().clamp(max=width - 1)
    top = (y * (height - box_height)).view(-1, 1, 1)
    left = (x * (width - box_width)).view(-1, 1, 1)
    rows = torch.arange(height).view(1, -1, 1)
    columns = torch.arange(width).view(1, 1, -1)
    in_rows = (rows >= top) & (rows < top + box_height.view(-1, 1, 1))
    in_columns = (columns >= left) & (columns < left + box_width.view(-1, 1, 1))
    erased = in_rows & in_columns & (chosen < how.erase).view(-1, 1, 1)
    return images.masked_fill(erased[:, None], 0.0)
