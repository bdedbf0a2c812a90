"""Training follows its recipe and refuses contradicting inputs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from model.errors import CheckpointError, RecipeError, TrainingError
from model.train import BAD_BATCH_FILE, Run, train, training_batches
from model.training.states import saved_states
from model.training.step import Step
from model.training.train_state import initial_state
from tests.model.training_factories import ALONE, logged, quick_recipe, run_of, write_teacher


def changed(first: Checkpoint, second: Checkpoint) -> set[str]:
    """The names of the weights that differ."""
    return {name for name in first.weights if not np.array_equal(first.weights[name], second.weights[name])}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Checkpoint]:
    """A quick run and its checkpoint."""
    run = run_of(tmp_path_factory.mktemp("finished"), quick_recipe())
    return run, train(run, ALONE)


def test_a_run_writes_a_checkpoint_without_classifiers(finished: tuple[Run, Checkpoint]) -> None:
    _, checkpoint = finished
    assert not [name for name in checkpoint.weights if name.startswith("classifiers")]
    assert checkpoint.metadata.training_data.name == "miniature"
    assert checkpoint.metadata.recipe["schedule"]["iterations"] == 4


def test_training_learns(tmp_path: Path) -> None:
    changes: dict[str, object] = {"schedule.iterations": 30, "loss.label_smoothing": 0.0, "augmentation.erase": 0.0}
    changes |= {"optimizer.learning_rate": 2e-3, "optimizer.head_learning_rate": 2e-3}
    train(run_of(tmp_path, quick_recipe(changes), log_every=5), ALONE)
    losses = [line["loss"] for line in logged(tmp_path / "run")]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"loss.softmax": "circle", "architecture.classifier": "cosine", "loss.label_smoothing": 0.0},
        {"loss.triplet": "soft"},
        {"architecture.softmax_on": "pooled", "architecture.reduction_relu": True, "architecture.pooling": "gem"},
        {"augmentation.jitter": 0.2, "augmentation.auto": "random"},
        {"optimizer.kind": "sgd", "optimizer.gradient_clip": 1.0, "schedule.kind": "step", "schedule.steps": [2, 3]},
        {"precision": "bfloat16"},
        pytest.param({"precision": "float16"}, marks=pytest.mark.slow),  # slow on CPUs without its arithmetic
        {"batch.accumulation": 2},
        {"average.decay": 0.5},
        {"small_start.height": 48, "small_start.width": 32, "small_start.share": 0.5},
    ],
    ids=lambda changes: next(iter(changes)) + "=" + str(next(iter(changes.values()))),
)
def test_every_choice_of_a_recipe_trains(tmp_path: Path, changes: dict[str, object]) -> None:
    checkpoint = train(run_of(tmp_path, quick_recipe(changes | {"schedule.iterations": 2}), log_every=1), ALONE)
    assert all(np.isfinite(weights).all() for weights in checkpoint.weights.values())
    assert logged(tmp_path / "run")[-1]["iteration"] == 2


def test_frozen_blocks_stay_as_they_were(tmp_path: Path) -> None:
    first, second = (
        train(run_of(tmp_path, quick_recipe({"schedule.iterations": n, "schedule.warm_up": 0}), f"run{n}"), ALONE)
        for n in (1, 3)
    )
    frozen = {name for name in first.weights if name.startswith(("trunk.0.", "trunk.1."))}
    assert changed(first, second) == set(first.weights) - frozen


def test_only_the_reductions_train_while_the_backbone_is_frozen(tmp_path: Path) -> None:
    changes: dict[str, object] = {"initialisation.frozen_iterations": 9, "batch_norm": "frozen"}
    first, second = (
        train(run_of(tmp_path, quick_recipe(changes | {"schedule.iterations": n}), f"run{n}"), ALONE) for n in (2, 3)
    )
    assert changed(first, second)
    assert all(name.startswith("reductions.") for name in changed(first, second))


def test_the_checkpoint_holds_the_moving_average(tmp_path: Path) -> None:
    changes: dict[str, object] = {"batch_norm": "frozen", "schedule.warm_up": 0}
    weights = []
    for n in (1, 2, 3):
        recipe = quick_recipe(changes | {"schedule.iterations": n, "schedule.kind": "step", "schedule.steps": [99]})
        weights.append(train(run_of(tmp_path, recipe, f"plain{n}"), ALONE).weights)
    recipe = quick_recipe(
        changes | {"schedule.iterations": 3, "schedule.kind": "step", "schedule.steps": [99], "average.decay": 0.75}
    )
    averaged = train(run_of(tmp_path, recipe, "averaged"), ALONE).weights
    for name, value in averaged.items():
        expected = 0.75 * (0.75 * weights[0][name] + 0.25 * weights[1][name]) + 0.25 * weights[2][name]
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_gradients_of_several_batches_are_averaged(tmp_path: Path) -> None:
    """One SGD step on two batches gives the mean of the weights after a step on each batch alone."""
    recipe = quick_recipe(
        {"batch_norm": "frozen", "schedule.warm_up": 0, "optimizer.kind": "sgd", "optimizer.weight_decay": 0.0}
    )
    run = run_of(tmp_path, recipe)
    labels = np.array([sample.pid - 1 for sample in run.samples])
    batches = training_batches(run, labels, ALONE, initial_state(recipe, 6, ALONE))

    def after(*numbers: int) -> torch.Tensor:
        torch.manual_seed(0)
        state = initial_state(recipe, 6, ALONE)
        Step(recipe, ALONE, state)([batches.batch(number) for number in numbers])
        return torch.cat([parameter.detach().flatten() for parameter in state.mgn.parameters()])

    first, second = after(0), after(1)
    assert not torch.allclose(first, second, atol=1e-5)
    torch.testing.assert_close(after(0, 1), (first + second) / 2, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
def test_distillation_pulls_the_similarities_towards_the_teachers(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path)
    ends = []
    for weight in (5.0, 0.1):
        # The teacher's features are mean colours, which erased boxes would change.
        changes: dict[str, object] = {"augmentation.erase": 0.0, "augmentation.pad": 0, "distillation.weight": weight}
        recipe = quick_recipe(changes | {"schedule.iterations": 60})
        run = run_of(tmp_path, recipe, f"run{weight}", teachers=(teacher,), log_every=20)
        train(run, ALONE)
        ends.append(logged(run.folder)[-1]["distillation"] / weight)
    assert ends[0] < 0.7 * ends[1]


def test_a_teacher_and_its_section_need_each_other(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path)
    with pytest.raises(RecipeError, match="need each other"):
        train(run_of(tmp_path, quick_recipe(), teachers=(teacher,)), ALONE)
    with pytest.raises(RecipeError, match="need each other"):
        train(run_of(tmp_path, quick_recipe({"distillation.weight": 1.0})), ALONE)


def test_a_run_starts_from_a_checkpoint(tmp_path: Path, finished: tuple[Run, Checkpoint]) -> None:
    _, first = finished
    frozen: dict[str, object] = {"initialisation.frozen_iterations": 9, "optimizer.head_learning_rate": 1e-9}
    after = train(run_of(tmp_path, quick_recipe(frozen | {"batch_norm": "frozen"}), "after", initial=first), ALONE)
    assert first.weights.keys() == after.weights.keys()
    for name, weights in first.weights.items():
        np.testing.assert_allclose(after.weights[name], weights, atol=1e-6, err_msg=name)


def test_a_run_cannot_start_from_a_checkpoint_of_another_architecture(
    tmp_path: Path, finished: tuple[Run, Checkpoint]
) -> None:
    _, first = finished
    with pytest.raises(CheckpointError, match="another architecture than the recipe"):
        train(run_of(tmp_path, quick_recipe({"architecture.pooling": "average"}), "after", initial=first), ALONE)


def test_a_folder_with_a_run_is_neither_overwritten_nor_mixed(tmp_path: Path, finished: tuple[Run, Checkpoint]) -> None:
    run, _ = finished
    with pytest.raises(TrainingError, match="already holds a run"):
        train(run, ALONE)
    with pytest.raises(TrainingError, match="another recipe"):
        train(replace(run, recipe=quick_recipe({"seed": 1})), ALONE, resume=True)
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(replace(run, folder=tmp_path / "elsewhere"), ALONE, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(tmp_path: Path) -> None:
    changes: dict[str, object] = {"optimizer.kind": "sgd", "optimizer.learning_rate": 1e30}
    changes |= {"optimizer.head_learning_rate": 1e30, "schedule.iterations": 12}
    run = run_of(tmp_path, quick_recipe(changes), log_every=5)
    with pytest.raises(TrainingError, match=r"iteration \d+ is not a finite number"):
        train(run, ALONE)
    named = (run.folder / BAD_BATCH_FILE).read_text().splitlines()
    assert len(named) == 8
    assert all(Path(name).exists() for name in named)
    assert not saved_states(run.folder), "no state is saved after the bad iteration"


def test_a_run_is_validated_while_it_trains(tmp_path: Path) -> None:
    run = run_of(tmp_path, quick_recipe(), log_every=2, validate_every=2)
    train(run, ALONE, validate=lambda checkpoint: {"tensors": float(len(checkpoint.weights))})
    validated = [line["iteration"] for line in logged(run.folder) if "validation" in line]
    assert validated == [2, 4]
    assert list((run.folder / "tensorboard").iterdir())


def test_training_does_not_change_the_global_random_state(tmp_path: Path) -> None:
    """torchvision's colour transforms draw from the global generator."""
    recipe = quick_recipe({"augmentation.jitter": 0.3, "schedule.iterations": 2})
    train(run_of(tmp_path, recipe), ALONE)
    after = torch.rand(1)
    train(run_of(tmp_path, recipe, "again"), ALONE)
    assert torch.equal(torch.rand(1), after)
