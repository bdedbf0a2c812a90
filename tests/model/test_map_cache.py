"""Training on cached maps of a frozen trunk equals training on pictures; stale maps are never used."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.datasets import open_data_set
from model.errors import CheckpointError, DataError, RecipeError
from model.loading import inference_of
from model.mgn import Normalise
from model.pictures import read_inputs
from model.recipe import Recipe
from model.train import train
from model.training import map_cache
from model.training.map_cache import FrozenTrunk, TrunkMaps, trunk_maps
from model.training.states import saved_states
from model.training.train_state import initial_state
from tests.model.training_factories import ALONE, environment, logged, market, omz_changes, omz_recipe, run_of

pytestmark = pytest.mark.usefixtures("exported_once")


def pictures(folder: Path) -> list[Path]:
    return [sample.path for sample in open_data_set(f"market1501:{market(folder)}").train()]


def maps_of(folder: Path, recipe: Recipe) -> TrunkMaps:
    return trunk_maps(initial_state(recipe, 6, ALONE).mgn, recipe.input, pictures(folder), folder / "cache")


def refuse_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("no maps should be computed")

    monkeypatch.setattr(map_cache, "fastest_runtime", refuse)


def test_maps_and_features_equal_the_networks(tmp_path: Path) -> None:
    recipe = omz_recipe(tmp_path)
    maps, mgn = maps_of(tmp_path, recipe), initial_state(recipe, 6, ALONE).mgn.eval()
    crops = torch.from_numpy(read_inputs(pictures(tmp_path), recipe.input))
    with torch.inference_mode():
        for mirrored in (False, True):
            images = Normalise(recipe.input)(crops.flip(2) if mirrored else crops)
            chosen, flipped = torch.tensor([5, 0, 17]), torch.full((3,), mirrored)
            torch.testing.assert_close(
                maps.select(chosen, flipped).float(), mgn.trunk(images)[chosen], atol=2e-3, rtol=2e-3
            )
            assert maps.features is not None
            own = mgn(images).parts[:, 0].numpy()
            np.testing.assert_allclose(maps.features[int(mirrored)], own, atol=1e-3)


def test_a_frozen_trunk_is_on_the_device_of_its_network(tmp_path: Path) -> None:
    recipe = omz_recipe(tmp_path)
    network = FrozenTrunk(initial_state(recipe, 6, ALONE).mgn.to("meta"), recipe.input)
    tensors = [*network.parameters(), *network.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_cached_maps_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_cache, "CHUNK_SIZE", 7)
    recipe = omz_recipe(tmp_path)
    first = maps_of(tmp_path, recipe)
    refuse_to_compute(monkeypatch)
    again = maps_of(tmp_path, recipe)
    all_pictures, flipped = torch.arange(36), torch.arange(36) % 2 == 0
    assert torch.equal(first.select(all_pictures, flipped), again.select(all_pictures, flipped))


def test_a_chunk_that_was_not_finished_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_cache, "CHUNK_SIZE", 7)
    recipe = omz_recipe(tmp_path)
    first = maps_of(tmp_path, recipe)
    listing = next((tmp_path / "cache").glob("maps-*/*.json"))
    listing.unlink()
    again = maps_of(tmp_path, recipe)
    all_pictures, flipped = torch.arange(36), torch.zeros(36, dtype=torch.bool)
    assert listing.exists()
    torch.testing.assert_close(
        first.select(all_pictures, flipped), again.select(all_pictures, flipped), atol=1e-3, rtol=1e-3
    )


def test_maps_of_another_trunk_or_a_changed_picture_are_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = omz_recipe(tmp_path)
    maps_of(tmp_path, recipe)
    touched = pictures(tmp_path)[3]
    os.utime(touched, ns=(1, 1))
    with monkeypatch.context() as context:
        refuse_to_compute(context)
        with pytest.raises(AssertionError):
            maps_of(tmp_path, recipe)
    maps_of(tmp_path, recipe)
    refuse_to_compute(monkeypatch)
    changed_mgn = initial_state(recipe, 6, ALONE).mgn
    with torch.no_grad():
        changed_mgn.trunk[1].weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(AssertionError):
        trunk_maps(changed_mgn, recipe.input, pictures(tmp_path), tmp_path / "cache")


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    recipe = omz_recipe(tmp_path)
    pictures(tmp_path)[2].write_bytes(b"no picture")
    with pytest.raises(DataError, match=pictures(tmp_path)[2].name):
        maps_of(tmp_path, recipe)


def test_training_on_maps_equals_training_on_pictures(tmp_path: Path) -> None:
    """Losses differ only by half precision and the order of sums."""
    changes: dict[str, object] = {"augmentation.erase": 0.0, "schedule.iterations": 4, "distillation.weight": 1.0}
    losses = []
    for out, frozen in (("maps", {"initialisation.frozen_trunk_iterations": 4}), ("pictures", {})):
        unfrozen = {"initialisation.frozen_trunk_blocks": 7, "initialisation.frozen_trunk_iterations": 0}
        run = run_of(tmp_path, omz_recipe(tmp_path, changes | unfrozen | frozen), out, log_every=1)
        train(run, ALONE)
        losses.append([line["loss"] for line in logged(run.folder)])
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_the_trunk_keeps_its_weights_while_it_is_frozen(tmp_path: Path) -> None:
    def trunk(recipe: Recipe, out: str) -> dict[str, np.ndarray]:
        weights = train(run_of(tmp_path, recipe, out), ALONE).weights
        return {name: tensor for name, tensor in weights.items() if name.startswith("trunk.")}

    first = initial_state(omz_recipe(tmp_path), 6, ALONE).mgn.state_dict()
    never = trunk(omz_recipe(tmp_path, {"initialisation.frozen_trunk_iterations": 6}), "never")
    later = trunk(omz_recipe(tmp_path, {"initialisation.frozen_trunk_iterations": 3}), "later")
    assert all(np.array_equal(tensor, first[name].numpy()) for name, tensor in never.items())
    unmoved = [name for name, tensor in later.items() if np.array_equal(tensor, first[name].numpy())]
    assert unmoved == [], "all layers are trained in the last stage"


@pytest.mark.slow
def test_a_run_on_maps_that_was_killed_ends_with_identical_weights(tmp_path: Path) -> None:
    """The run is killed once while it trains on maps, and once while it trains on pictures."""
    changes: dict[str, object] = {"schedule.iterations": 10, "initialisation.frozen_trunk_iterations": 6}
    maps_of(tmp_path, omz_recipe(tmp_path, changes))  # which all runs find in the cache
    uninterrupted = finished(tmp_path, "uninterrupted", changes)
    for iteration in (3, 8):
        line = command(tmp_path, "interrupted", changes, *(["--resume"] if iteration > 3 else []))
        with subprocess.Popen(line, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as run:
            while run.poll() is None and not any(int(path.stem[-8:]) >= iteration for path in states(tmp_path)):
                time.sleep(0.02)
            run.send_signal(signal.SIGKILL)
        assert int(saved_states(tmp_path / "interrupted")[-1].stem[-8:]) < 10, "the run was interrupted"
    resumed = finished(tmp_path, "interrupted", changes, "--resume")
    assert uninterrupted.metadata == resumed.metadata
    assert all(np.array_equal(uninterrupted.weights[name], resumed.weights[name]) for name in uninterrupted.weights)


def states(folder: Path) -> list[Path]:
    return saved_states(folder / "interrupted") if (folder / "interrupted").exists() else []


def command(folder: Path, out: str, changes: dict[str, object], *options: str) -> list[str]:
    line = [sys.executable, "-m", "model", "train", "osnet", "--data", f"market1501:{market(folder)}"]
    line += ["--out", str(folder / out), "--cache", str(folder / "cache"), "--log-every", "1", "--save-every", "1"]
    for name, value in (omz_changes(folder) | changes).items():
        line += ["--set", f"{name}={json.dumps(value)}"]
    return [*line, *options]


def finished(folder: Path, out: str, changes: dict[str, object], *options: str) -> Checkpoint:
    done = subprocess.run(
        command(folder, out, changes, *options), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return load_checkpoint(folder / out / "checkpoint.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation.pad": 4, "initialisation.frozen_trunk_iterations": 6}, "pad, jitter and auto need pictures"),
        ({"small_start.height": 64, "small_start.width": 32, "small_start.share": 0.5}, "small_start needs pictures"),
        ({"input.height": 384}, "an input of 256 x 128 pixels"),
        ({"architecture.softmax_on": "pooled"}, 'needs softmax_on = "reduced"'),
        ({"batch.sources": [2, 1]}, "add up to 3, not to identities = 4"),
        ({"part_weights": [1, 1, 1, 1, 1, 1, 1, 0]}, "finite numbers above 0"),
    ],
)
def test_contradicting_values_of_a_recipe_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        omz_recipe(tmp_path, changes)


def test_a_network_that_does_not_fit_the_recipe_is_refused(tmp_path: Path) -> None:
    recipe = omz_recipe(tmp_path, {"architecture.omz_channels": [64, 256, 384, 512]})
    with pytest.raises(CheckpointError, match=r"has channels \(16, 64, 128, 192\), the recipe's"):
        initial_state(recipe, 6, ALONE)


def test_parts_have_the_weights_of_the_recipe(tmp_path: Path) -> None:
    weights = [2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25]
    checkpoint = train(run_of(tmp_path, omz_recipe(tmp_path, {"part_weights": weights})), ALONE)
    equal = train(run_of(tmp_path, omz_recipe(tmp_path), "equal"), ALONE)
    crops = read_inputs(pictures(tmp_path)[:3], checkpoint.metadata.input)
    lengths = np.linalg.norm(inference_of(checkpoint).embed(crops), axis=2)
    expected = np.array(weights) / np.linalg.norm(weights)
    np.testing.assert_allclose(lengths, np.tile(expected, (3, 1)), rtol=1e-4)
    same = equal.metadata.model_copy(update={"part_weights": tuple(weights)})
    assert checkpoint.metadata.model_id != equal.metadata.model_id
    reweighted = save_checkpoint(tmp_path / "w.safetensors", equal.weights, same)
    assert reweighted.metadata.model_id != equal.metadata.model_id, "other part weights give another model id"
