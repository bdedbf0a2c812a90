"""Adaptation of a checkpoint to a site's cameras with few crops."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from model.adaptation import adaptation_recipe, usable_crops
from model.architecture import MGNConfig
from model.checkpoint import Checkpoint, CheckpointMetadata, TrainingData, load_checkpoint
from model.datasets.base import NO_CAMERA, Sample
from model.datasets.synthetic import Synthetic
from model.errors import DataError, RecipeError, TrainingError
from model.loading import inference_of, load_for_inference
from model.pictures import read_inputs
from model.recipe import Distillation
from model.train import train
from model.training.teacher import mirrored_embeddings
from model.training.train_state import initial_state
from tests.model.evaluation_factories import CommandResult, run_model
from tests.model.model_factories import metadata
from tests.model.sites import TINY, TRAINED, first_checkpoint, site
from tests.model.training_factories import ALONE, quick_recipe, run_of


class Adapting:
    """The command with a first checkpoint and a tiny schedule."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.first = first_checkpoint(folder)
        self._tools = monkeypatch, capsys

    def run(self, out: str, *options: object, data: str = "", settings: tuple[str, ...] = ()) -> CommandResult:
        line: list[object] = ["adapt", "--from", self.folder / "first.safetensors", "--out", self.folder / out]
        line += ["--data", data or f"synthetic:{site()}", "--cache", self.folder / "cache", "--save-every", 2]
        for setting in (*TINY, *settings):
            line += ["--set", setting]
        return run_model(*self._tools, *line, *options)

    def result(self, out: str) -> Checkpoint:
        return load_checkpoint(self.folder / out / "checkpoint.safetensors")


@pytest.fixture
def adapting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Adapting:
    return Adapting(tmp_path, monkeypatch, capsys)


def test_the_result_records_its_training_data_and_its_start(adapting: Adapting) -> None:
    ended = adapting.run("out")
    assert ended.code == 0, ended.err
    assert "12 of 12 persons are used" in ended.out
    adapted = adapting.result("out").metadata
    first = adapting.first.metadata
    assert adapted.name == "test-adapted"
    assert (adapted.architecture, adapted.input) == (first.architecture, first.input)
    assert adapted.training_data == TrainingData(
        name="synthetic",
        terms="drawn by Passerby, shows nobody, free to use",
        identities=12,
        crops=len(Synthetic(site()).train()),
        teacher=first.model_id,
        started_from=first.model_id,
        started_from_data=TRAINED,
    )
    assert adapted.recipe["batch"]["identities"] == 12, "there are fewer persons than the recipe's batch has"
    loaded = load_for_inference(adapting.folder / "out" / "checkpoint.safetensors")
    assert loaded.embed(np.zeros((1, *first.input.size, 3), dtype=np.uint8)).shape == (1, 8, 256)


def test_the_result_averages_initial_and_adapted_weights(adapting: Adapting) -> None:
    for share in (0.5, 1.0):
        assert adapting.run(f"share{share}", settings=(f"average_with_first.share={share}",)).code == 0
    half, whole = adapting.result("share0.5").weights, adapting.result("share1.0").weights
    for name, first in adapting.first.weights.items():
        np.testing.assert_allclose(half[name], (first + whole[name]) / 2, atol=1e-6, err_msg=name)
    moved = [name for name, first in adapting.first.weights.items() if not np.array_equal(first, whole[name])]
    assert {name.split(".")[0] for name in moved} == {"trunk", "branches", "reductions"}, "all layers learn"
    assert not [name for name in moved if "running_" in name], "batch norm statistics are frozen"


def test_a_resumed_run_ends_with_the_same_weights(adapting: Adapting) -> None:
    assert adapting.run("uninterrupted").code == 0
    shutil.copytree(adapting.folder / "uninterrupted", adapting.folder / "interrupted")
    for name in ("state-00000004.pt", "checkpoint.safetensors"):
        (adapting.folder / "interrupted" / name).unlink()
    ended = adapting.run("interrupted", "--resume")
    assert ended.code == 0, ended.err
    assert adapting.result("interrupted").metadata == adapting.result("uninterrupted").metadata


def test_the_checkpoint_is_evaluated_on_held_out_persons_before_and_after(adapting: Adapting) -> None:
    ended = adapting.run("out", "--hold-out", 3)
    assert ended.code == 0, ended.err
    output = " ".join(ended.out.split())
    assert re.search(r"before adaptation, test-\w+ reaches rank-1 [\d.]+ %, mAP \(step\) [\d.]+ %", output)
    adapted = adapting.result("out").metadata
    assert (adapted.training_data.identities, adapted.training_data.held_out_identities) == (9, 3)
    assert adapted.results[0].data == "synthetic"
    assert (adapting.folder / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("options", "data", "words"),
    [
        (
            ("--hold-out", 5),
            "",
            "7 of 7 persons of synthetic are seen by two cameras or more; adapting needs at least 8",
        ),
        ((), "folder:/nowhere", "/nowhere is missing"),
        (("--resume",), "", "there is nothing to resume"),
        (("--identities", 40), "", "cannot train on 40 identities: the data has 12"),
        (("--set", "loss.margni=1"), "", "there is no loss.margni: did you mean margin?"),
        (("--set", "architecture.pooling='gem'"), "", "has another architecture than the recipe"),
        (("--from", "bundled.onnx"), "", "--from is bundled.onnx; training starts from a .safetensors checkpoint"),
        (("--from", "nowhere.safetensors"), "", "there is no checkpoint at nowhere.safetensors"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_2(
    adapting: Adapting, options: tuple[object, ...], data: str, words: str
) -> None:
    ended = adapting.run("out", *options, data=data)
    assert ended.code == 2
    assert words in ended.err
    assert "Traceback" not in ended.err


def test_only_persons_seen_by_two_cameras_are_used() -> None:
    seen = [(pid, camera) for pid in range(1, 9) for camera in (1, 2)] + [(9, 1), (9, 1), (10, 2)]
    samples = [Sample(Path(f"{number}.jpg"), *labels) for number, labels in enumerate(seen)]
    assert {sample.pid for sample in usable_crops(samples, "site")} == set(range(1, 9))
    with pytest.raises(DataError, match="7 of 9 persons of site"):
        usable_crops(samples[2:], "site")
    without_cameras = [Sample(sample.path, sample.pid, NO_CAMERA) for sample in samples]
    assert {sample.pid for sample in usable_crops(without_cameras, "site")} == set(range(1, 10))


def described(**choices: object) -> CheckpointMetadata:
    return metadata(MGNConfig("osnet_x1_0", **choices))  # type: ignore[arg-type]


def test_the_recipe_takes_network_and_input_from_the_checkpoint() -> None:
    first = described(pooling="gem", global_stride=1)
    recipe = adaptation_recipe(first, 200, {})
    assert (recipe.architecture, recipe.input) == (first.architecture, first.input)
    assert (recipe.batch.identities, recipe.initialisation.frozen_trunk_blocks) == (16, 0)
    assert adaptation_recipe(first, 9, {}).batch.identities == 9
    again = first.model_copy(update={"name": recipe.name})
    assert adaptation_recipe(again, 9, {}).name == "test-adapted", "adapting again adds nothing to the name"


def test_a_network_with_cosine_classifiers_learns_by_the_circle_loss() -> None:
    recipe = adaptation_recipe(described(classifier="cosine"), 200, {})
    assert (recipe.loss.softmax, recipe.loss.label_smoothing) == ("circle", 0)


def test_the_checkpoint_teaches_with_its_features_of_crops_and_mirror_images(tmp_path: Path) -> None:
    first = first_checkpoint(tmp_path)
    crops = read_inputs([sample.path for sample in Synthetic(site()).train()[:5]], first.metadata.input)
    features = mirrored_embeddings(inference_of(first).embed, crops)
    assert features.shape == (2, 5, 2048)
    np.testing.assert_allclose(np.linalg.norm(features, axis=2), 1, atol=1e-5)
    assert not np.allclose(features[0], features[1], atol=1e-4)
    assert adaptation_recipe(first.metadata, 9, {}).distillation == Distillation(weight=40, teacher="initial")


def test_classifiers_may_have_a_separate_rate() -> None:
    changes: dict[str, object] = {"optimizer.head_learning_rate": 0.5, "optimizer.classifier_learning_rate": 0.25}
    state = initial_state(quick_recipe(changes), 6, ALONE)
    heads, classifiers = state.optimizer.param_groups[2:]
    assert (heads["peak"], classifiers["peak"]) == (0.5, 0.25)
    assert [id(p) for p in classifiers["params"]] == [id(p) for p in state.mgn.classifiers.parameters()]
    assert not {id(p) for p in heads["params"]} & {id(p) for p in classifiers["params"]}


def test_a_recipe_that_needs_a_checkpoint_is_refused_without_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[average_with_first\] needs a checkpoint"):
        train(run_of(tmp_path, quick_recipe({"average_with_first.share": 0.5})), ALONE)
    with pytest.raises(TrainingError, match='weights = "checkpoint" needs a checkpoint'):
        train(run_of(tmp_path, quick_recipe({"initialisation.weights": "checkpoint"})), ALONE)
