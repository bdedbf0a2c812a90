"""Augmentation does what it says, and follows from its generator alone."""

import pytest
import torch

from model.augmentation import Augmentation, change_colours, change_shapes, draw_changes


def drawn(count: int, how: Augmentation, seed: int = 5):  # type: ignore[no-untyped-def]
    return draw_changes(count, how, torch.Generator().manual_seed(seed))


def test_changes_follow_from_the_generator() -> None:
    images = torch.rand(8, 3, 64, 32)
    how = Augmentation(flip=0.5, pad=4, erase=0.5)
    one, two = (change_shapes(images, how, drawn(8, how)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, images)


def test_a_share_of_a_batch_is_changed_as_in_the_whole() -> None:
    """So several processes see what one would have seen."""
    crops = torch.randint(0, 256, (8, 64, 32, 3), dtype=torch.uint8)
    images = torch.rand(8, 3, 64, 32)
    how = Augmentation(flip=0.5, pad=4, erase=0.5, jitter=0.3, auto="trivial")
    changes, rows = drawn(8, how), slice(4, 8)
    assert torch.equal(change_shapes(images, how, changes)[rows], change_shapes(images[rows], how, changes.part(rows)))
    assert torch.equal(change_colours(crops, how, changes)[rows], change_colours(crops[rows], how, changes.part(rows)))


def test_each_change_of_shape_does_what_it_says() -> None:
    images = torch.rand(16, 3, 64, 32) + 1
    for probability, expected in ((1.0, images.flip(3)), (0.0, images)):
        how = Augmentation(flip=probability)
        assert torch.equal(change_shapes(images, how, drawn(16, how)), expected)
    how = Augmentation(flip=0.0, pad=4)
    cropped = change_shapes(images, how, drawn(16, how))
    assert all(((crop == 0).any() or torch.equal(crop, image)) for crop, image in zip(cropped, images, strict=True))
    assert cropped[:, :, 8:-8, 8:-8].min() >= 1
    how = Augmentation(flip=0.0, erase=1.0)
    erased = (change_shapes(images, how, drawn(16, how)) == 0).float().mean(dim=(1, 2, 3))
    assert erased.min() > 0.005
    assert erased.max() < 0.45


def test_a_shift_moves_the_picture_by_its_offsets() -> None:
    images = torch.arange(64 * 32, dtype=torch.float32).view(1, 1, 64, 32).expand(1, 3, 64, 32) + 1
    how = Augmentation(flip=0.0, pad=3)
    changes = drawn(1, how)
    top, left = (int(offset) for offset in changes.offsets[:, 0])
    shifted = change_shapes(images, how, changes)
    assert shifted[0, 0, 10, 10] == images[0, 0, 10 + top - 3, 10 + left - 3]


@pytest.mark.parametrize("how", [Augmentation(jitter=0.4), Augmentation(auto="auto"), Augmentation(auto="random")])
def test_colours_change_picture_by_picture(how: Augmentation) -> None:
    crops = torch.randint(0, 256, (1, 64, 32, 3), dtype=torch.uint8).expand(6, -1, -1, -1)
    changed = change_colours(crops, how, drawn(6, how))
    assert changed.shape == crops.shape
    assert changed.dtype == torch.uint8
    assert len({picture.numpy().tobytes() for picture in changed}) > 3


def test_without_colours_to_change_the_crops_are_not_copied() -> None:
    crops = torch.zeros(2, 64, 32, 3, dtype=torch.uint8)
    how = Augmentation()
    assert change_colours(crops, how, drawn(2, how)) is crops
