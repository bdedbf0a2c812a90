"""Training learns, resumes where it was, and refuses what makes no sense."""

from pathlib import Path

import numpy as np
import pytest
import torch
from model_factories import write_market

from model.augmentation import Augmentation, augment
from model.checkpoint import TrainingData
from model.datasets import open_data_set
from model.errors import RecipeError, TrainingError
from model.recipe import Recipe, Schedule, read_recipe
from model.train import Run, rate, train

RECIPES = Path(__file__).parents[2] / "model" / "recipes"


def quick_recipe(**changes: object) -> Recipe:
    """The bundled recipe, shrunk to seconds."""
    recipe = read_recipe(RECIPES / "mobile.toml").model_dump()
    recipe |= {
        "precision": "float32",
        "initialisation": {"weights": "random", "frozen_trunk_blocks": 2},
        "input": {"height": 64, "width": 32},
        "batch": {"identities": 3, "crops": 2},
        "schedule": {"iterations": 4, "warm_up": 1},
    }
    return Recipe.model_validate(recipe | changes)


def run_of(tmp_path: Path, recipe: Recipe, out: str = "run") -> Run:
    """A run on a miniature of Market-1501."""
    if not (tmp_path / "market").exists():
        write_market(tmp_path / "market")
    samples = open_data_set(f"market1501:{tmp_path / 'market'}").train()
    data = TrainingData(name="miniature", terms="ours", identities=6, crops=len(samples))
    return Run(recipe, samples, data, tmp_path / out)


def test_a_run_writes_a_checkpoint_without_classifiers(tmp_path: Path) -> None:
    checkpoint = train(run_of(tmp_path, quick_recipe()))
    assert not [name for name in checkpoint.weights if name.startswith("classifiers")]
    assert checkpoint.metadata.training_data.name == "miniature"
    assert checkpoint.metadata.recipe["schedule"]["iterations"] == 4


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.train.ITERATIONS_BETWEEN_STATES", 2)
    straight = train(run_of(tmp_path, quick_recipe(), "straight"))
    step = __import__("model.train", fromlist=["_step"])._step

    def interrupted(progress: object, *rest: object) -> object:
        if progress.iteration == 3:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return step(progress, *rest)

    monkeypatch.setattr("model.train._step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(run_of(tmp_path, quick_recipe(), "resumed"))
    monkeypatch.setattr("model.train._step", step)
    resumed = train(run_of(tmp_path, quick_recipe(), "resumed"), resume=True)
    for name, tensor in straight.weights.items():
        assert np.array_equal(tensor, resumed.weights[name]), name


def test_frozen_blocks_stay_as_they_were(tmp_path: Path) -> None:
    one, two = (train(run_of(tmp_path, quick_recipe(schedule={"iterations": n}), f"run{n}")) for n in (1, 3))
    for name, tensor in one.weights.items():
        frozen = name.startswith(("trunk.0.", "trunk.1."))
        assert np.array_equal(tensor, two.weights[name]) == frozen, name


def test_a_folder_with_a_run_is_neither_overwritten_nor_mixed(tmp_path: Path) -> None:
    train(run_of(tmp_path, quick_recipe()))
    with pytest.raises(TrainingError, match="already holds a run"):
        train(run_of(tmp_path, quick_recipe()))
    with pytest.raises(TrainingError, match="another recipe"):
        train(run_of(tmp_path, quick_recipe(seed=1)), resume=True)
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(run_of(tmp_path, quick_recipe(), "elsewhere"), resume=True)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    wild = quick_recipe(
        optimizer={"kind": "sgd", "learning_rate": 1e30, "head_learning_rate": 1e30, "weight_decay": 0},
        schedule={"iterations": 4},
    )
    with pytest.raises(TrainingError, match="no finite number at iteration"):
        train(run_of(tmp_path, wild))


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    schedule = Schedule(iterations=110, warm_up=10)
    assert rate(0, schedule) == pytest.approx(0.01)
    assert rate(10, schedule) == 1
    assert rate(60, schedule) == pytest.approx(0.5)
    assert rate(109, schedule) < 0.001


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = ", "no TOML"),
        ("[batch]\nidentities = 1", r"batch\.identities: Input should be greater"),
        ("y = 1", "y: Extra"),
    ],
)
def test_a_wrong_recipe_says_where(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(RecipeError, match=words):
        read_recipe(tmp_path / "r.toml")


def test_augmentation_follows_from_its_generator() -> None:
    images = torch.rand(8, 3, 64, 32)
    how = Augmentation(flip=0.5, pad=4, erase=0.5)
    one, two = (augment(images, how, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, images)


def test_each_augmentation_does_what_it_says() -> None:
    images = torch.rand(16, 3, 64, 32) + 1
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(augment(images, Augmentation(flip=1.0), generator), images.flip(3))
    assert torch.equal(augment(images, Augmentation(flip=0.0), generator), images)
    cropped = augment(images, Augmentation(flip=0.0, pad=4), generator)
    assert all(((crop == 0).any() or torch.equal(crop, image)) for crop, image in zip(cropped, images, strict=True))
    assert cropped[:, :, 8:-8, 8:-8].min() >= 1
    erased = (augment(images, Augmentation(flip=0.0, erase=1.0), generator) == 0).float().mean(dim=(1, 2, 3))
    assert erased.min() > 0.005
    assert erased.max() < 0.45
