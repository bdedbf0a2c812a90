"""MGN is the network of the paper, on all backbones."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from model.architecture import EMBEDDING_DIM, PART_DIM, PARTS, BackboneName, MGNConfig, Pooling
from model.backbones import build_backbone
from model.checkpoint import InputFormat
from model.mgn import MGN, Embedder, horizontal_stripes

OwnHeads = Literal[0, 1, 2, 3]

OWN_HEADS = MGNConfig(
    backbone="osnet_omz", softmax_on="reduced", global_stride=1, omz_channels=(32, 128, 192, 256), own_heads=1
)


def build(config: MGNConfig, classes: int = 0) -> MGN:
    torch.manual_seed(0)
    return MGN(build_backbone(config), config, classes)


def test_only_the_default_config_is_called_paper() -> None:
    assert MGNConfig().name == "paper"
    assert MGNConfig(backbone="mobilenet_v2").name == "paper"
    assert MGNConfig(pooling="gem").name == "practical"


def test_paper_mgn_has_the_published_number_of_parameters() -> None:
    count = sum(parameter.numel() for parameter in build(MGNConfig()).parameters())
    assert round(count / 1e6, 1) == 68.8


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v2"])
@pytest.mark.parametrize("size", [(96, 48), (112, 64), (100, 50)])
def test_any_input_size_gives_eight_parts_of_256(backbone: BackboneName, size: tuple[int, int]) -> None:
    output = build(MGNConfig(backbone=backbone)).eval()(torch.rand(2, 3, *size))
    assert output.parts.shape == (2, len(PARTS), PART_DIM)
    assert output.concatenation.shape == (2, EMBEDDING_DIM)
    assert output.logits == []


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v2"])
def test_only_the_global_branch_halves_its_map(backbone: BackboneName) -> None:
    mgn = build(MGNConfig(backbone=backbone)).eval()
    shared = mgn.trunk(torch.rand(1, 3, 192, 64))
    heights = [branch(shared).shape[2] for branch in mgn.branches]
    assert shared.shape[2] == 12
    assert heights == [6, 12, 12]


def test_paper_softmax_sees_pooled_features_of_globals_and_reduced_ones_of_stripes() -> None:
    mgn = build(MGNConfig(), classes=5)
    assert [classifier.in_features for classifier in mgn.classifiers] == [2048] * 3 + [256] * 5
    assert all(classifier.bias is None for classifier in mgn.classifiers)
    assert [logits.shape for logits in mgn(torch.rand(2, 3, 96, 48)).logits] == [(2, 5)] * 8


def test_reduced_softmax_and_bias_are_options() -> None:
    mgn = build(MGNConfig(backbone="mobilenet_v2", softmax_on="reduced", classifier_bias=True), classes=5)
    assert {classifier.in_features for classifier in mgn.classifiers} == {256}
    assert all(classifier.bias is not None for classifier in mgn.classifiers)


def test_paper_parts_are_not_negative_and_those_without_relu_are() -> None:
    crops = torch.rand(2, 3, 96, 48)
    assert build(MGNConfig(backbone="mobilenet_v2")).eval()(crops).parts.min() >= 0
    assert build(MGNConfig(backbone="mobilenet_v2", reduction_relu=False)).eval()(crops).parts.min() < 0


@pytest.mark.parametrize("pooling", ["max", "average", "gem"])
def test_a_part_sees_only_its_stripe(pooling: str) -> None:
    """In a map whose values are the row numbers, each part pools the rows of its stripe."""
    mgn = build(MGNConfig(backbone="mobilenet_v2", pooling=pooling))  # type: ignore[arg-type]
    rows = torch.arange(1.0, 13.0).view(1, 1, 12, 1).expand(1, 1, 12, 4)
    stripes = [rows[:, :, :6], rows[:, :, 6:], rows[:, :, :4], rows[:, :, 4:8], rows[:, :, 8:]]
    seen = [mgn.pools[3 + i](stripe).item() for i, stripe in enumerate(stripes)]
    expected = {"max": [6, 12, 4, 8, 12], "average": [3.5, 9.5, 2.5, 6.5, 10.5]}.get(pooling)
    if expected is None:  # a generalised mean lies between mean and maximum
        assert all(low < value < high for low, value, high in zip([3.5, 9.5], seen, [6, 12], strict=False))
    else:
        assert seen == pytest.approx(expected)


@pytest.mark.parametrize("own_heads", [1, 3])
@pytest.mark.parametrize("pooling", ["max", "average", "gem"])
def test_pretrained_heads_see_the_whole_map_whatever_pools_the_stripes(pooling: Pooling, own_heads: OwnHeads) -> None:
    config = replace(OWN_HEADS, pooling=pooling, own_heads=own_heads)
    mgn = build(config).eval()
    crops = torch.rand(2, 3, 256, 128)
    parts = mgn(crops).parts
    assert parts.shape == (2, len(PARTS), PART_DIM)
    shared = mgn.trunk(crops)
    for part in range(own_heads):
        own = mgn.reductions[part](mgn.branches[part](shared)).flatten(1)
        assert torch.allclose(parts[:, part], own, atol=1e-5)


def test_stripes_cover_heights_that_their_number_does_not_divide() -> None:
    rows = torch.arange(16.0).view(1, 1, 16, 1)
    bands = [band.flatten().tolist() for band in horizontal_stripes(rows, 3)]
    assert [(band[0], band[-1]) for band in bands] == [(0, 5), (5, 10), (10, 15)]
    adaptive = torch.nn.functional.adaptive_max_pool2d(rows, (3, 1)).flatten().tolist()
    assert [max(band) for band in bands] == adaptive


def test_changing_the_feet_changes_no_part_of_the_head() -> None:
    """The trunk's receptive field is local, so with a large input the top third cannot see the bottom."""
    mgn = build(MGNConfig(backbone="mobilenet_v2")).eval()
    crop = torch.rand(1, 3, 768, 64)
    changed = crop.clone()
    changed[:, :, 736:] = 0
    with torch.inference_mode():
        difference = (mgn(crop).parts - mgn(changed).parts).abs().amax(dim=(0, 2))
    assert difference[PARTS.index("top_third")] == 0
    assert difference[PARTS.index("bottom_third")] > 0


@pytest.mark.parametrize("flip", [False, True])
def test_embeddings_have_norm_one_and_equal_parts(flip: bool) -> None:
    embedder = Embedder(build(MGNConfig(backbone="mobilenet_v2")), InputFormat(height=96, width=48, flip=flip)).eval()
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 96, 48, 3), dtype=np.uint8))
    with torch.inference_mode():
        parts = embedder(crops)
    assert parts.flatten(1).norm(dim=1).numpy() == pytest.approx(np.ones(3), abs=1e-5)
    assert parts.norm(dim=2).numpy() == pytest.approx(np.full((3, 8), 8**-0.5), abs=1e-5)


def test_flip_averaging_makes_a_picture_and_its_mirror_the_same() -> None:
    embedder = Embedder(build(MGNConfig(backbone="mobilenet_v2")), InputFormat(height=96, width=48, flip=True)).eval()
    crops = torch.randint(0, 256, (2, 96, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(embedder(crops), embedder(crops.flip(2)), atol=1e-6)
