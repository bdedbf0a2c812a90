"""Augmentation changes pictures as its parameters say, and depends on its generator only."""

import pytest
import torch

from model.augmentation import Augmentation, AugmentationParams, augment_colours, augment_geometry, sample_params


def drawn(count: int, config: Augmentation, seed: int = 5) -> AugmentationParams:
    return sample_params(count, config, torch.Generator().manual_seed(seed))


def test_parameters_depend_only_on_the_generator() -> None:
    images = torch.rand(8, 3, 64, 32)
    config = Augmentation(flip=0.5, pad=4, erase=0.5)
    first, second = (augment_geometry(images, config, drawn(8, config)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, images)


def test_rows_of_a_batch_are_augmented_as_in_the_whole_batch() -> None:
    """Several processes augment their rows like one process."""
    crops = torch.randint(0, 256, (8, 64, 32, 3), dtype=torch.uint8)
    images = torch.rand(8, 3, 64, 32)
    config = Augmentation(flip=0.5, pad=4, erase=0.5, jitter=0.3, auto="trivial")
    params, rows = drawn(8, config), slice(4, 8)
    assert torch.equal(
        augment_geometry(images, config, params)[rows], augment_geometry(images[rows], config, params.select(rows))
    )
    assert torch.equal(
        augment_colours(crops, config, params)[rows], augment_colours(crops[rows], config, params.select(rows))
    )


def test_each_geometric_augmentation_has_its_effect() -> None:
    images = torch.rand(16, 3, 64, 32) + 1
    for probability, expected in ((1.0, images.flip(3)), (0.0, images)):
        config = Augmentation(flip=probability)
        assert torch.equal(augment_geometry(images, config, drawn(16, config)), expected)
    config = Augmentation(flip=0.0, pad=4)
    cropped = augment_geometry(images, config, drawn(16, config))
    assert all(((crop == 0).any() or torch.equal(crop, image)) for crop, image in zip(cropped, images, strict=True))
    assert cropped[:, :, 8:-8, 8:-8].min() >= 1
    config = Augmentation(flip=0.0, erase=1.0)
    erased = (augment_geometry(images, config, drawn(16, config)) == 0).float().mean(dim=(1, 2, 3))
    assert erased.min() > 0.005
    assert erased.max() < 0.45


def test_a_shift_moves_the_picture_by_its_offsets() -> None:
    images = torch.arange(64 * 32, dtype=torch.float32).view(1, 1, 64, 32).expand(1, 3, 64, 32) + 1
    config = Augmentation(flip=0.0, pad=3)
    params = drawn(1, config)
    top, left = (int(offset) for offset in params.offsets[:, 0])
    shifted = augment_geometry(images, config, params)
    assert shifted[0, 0, 10, 10] == images[0, 0, 10 + top - 3, 10 + left - 3]


@pytest.mark.parametrize("config", [Augmentation(jitter=0.4), Augmentation(auto="auto"), Augmentation(auto="random")])
def test_colours_change_picture_by_picture(config: Augmentation) -> None:
    crops = torch.randint(0, 256, (1, 64, 32, 3), dtype=torch.uint8).expand(6, -1, -1, -1)
    transformed = augment_colours(crops, config, drawn(6, config))
    assert transformed.shape == crops.shape
    assert transformed.dtype == torch.uint8
    assert len({picture.numpy().tobytes() for picture in transformed}) > 3


def test_without_colour_augmentation_crops_are_not_copied() -> None:
    crops = torch.zeros(2, 64, 32, 3, dtype=torch.uint8)
    config = Augmentation()
    assert augment_colours(crops, config, drawn(2, config)) is crops
