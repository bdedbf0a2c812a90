"""Training runs on a GPU as it does on the CPU, where this test shows that it can pass."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.loading import load_any_network
from model.pictures import read_inputs
from model.plain_network import load_network
from model.train import train
from model.training.world import World
from tests.model.training_factories import logged, market, omz_recipe, run_of

DEVICES = [pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_training_on_maps_and_then_of_all_layers_with_the_initial_network_as_teacher(
    tmp_path: Path, device: str
) -> None:
    run = run_of(tmp_path, omz_recipe(tmp_path, {"precision": "bfloat16"}), log_every=1)
    checkpoint = train(run, World(0, 1, torch.device(device)))
    assert len(logged(run.folder)) == 6
    assert all(np.isfinite(weights).all() for weights in checkpoint.weights.values())


@pytest.mark.gpu
def test_a_converted_network_has_the_same_features_on_a_gpu(tmp_path: Path) -> None:
    recipe = omz_recipe(tmp_path)
    path = Path(recipe.initialisation.weights.removeprefix("file:"))
    crops = read_inputs(sorted((market(tmp_path) / "bounding_box_train").iterdir()), recipe.input)
    on_gpu = load_any_network(path).embed(crops)
    np.testing.assert_allclose(on_gpu, load_network(path).embed(crops), atol=1e-2)
