"""The parts of a training run: cached inputs, teachers, schedules, recipes, the log."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.architecture import MGNConfig
from model.backbones import build_backbone
from model.checkpoint import InputFormat
from model.datasets import open_data_set
from model.datasets.base import Sample
from model.datasets.selection import select_identities
from model.errors import DataError, RecipeError
from model.pictures import read_inputs
from model.recipe import SHIPPED, Schedule, parse_overrides, read_recipe, recipe_path
from model.training.inputs import cached_inputs
from model.training.machine import strided_depthwise_in_float32
from model.training.run_log import LOG_FILE, open_run_log
from model.training.schedule import delayed_rate, rate
from model.training.teacher import read_teacher
from tests.model.training_factories import market, quick_recipe, write_teacher

SMALL = InputFormat(height=64, width=32)


def samples(folder: Path) -> tuple[Sample, ...]:
    return open_data_set(f"market1501:{market(folder)}").train()


def test_inputs_are_decoded_once(tmp_path: Path) -> None:
    paths = [sample.path for sample in samples(tmp_path)]
    first = cached_inputs(paths, SMALL, tmp_path / "cache")
    assert np.array_equal(first, read_inputs(paths, SMALL))
    written = [(path, path.stat().st_mtime_ns) for path in (tmp_path / "cache").iterdir()]
    again = cached_inputs(paths, SMALL, tmp_path / "cache")
    assert isinstance(again, np.memmap)
    assert [(path, path.stat().st_mtime_ns) for path in (tmp_path / "cache").iterdir()] == written


def test_a_picture_that_changed_is_read_again(tmp_path: Path) -> None:
    paths = [sample.path for sample in samples(tmp_path)]
    cached_inputs(paths, SMALL, tmp_path / "cache")
    Image.new("RGB", (20, 40), "red").save(paths[3])
    assert cached_inputs(paths, SMALL, tmp_path / "cache")[3, 0, 0, 0] > 200
    assert cached_inputs(paths, InputFormat(height=96, width=32), tmp_path / "cache").shape[1] == 96


def test_a_picture_that_cannot_be_read_leaves_no_cache_behind(tmp_path: Path) -> None:
    paths = [sample.path for sample in samples(tmp_path)]
    paths[2].write_bytes(b"no picture")
    with pytest.raises(DataError, match=paths[2].name):
        cached_inputs(paths, SMALL, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_teacher_has_other_features_for_a_mirrored_crop(tmp_path: Path) -> None:
    crops = samples(tmp_path)
    teacher = read_teacher([write_teacher(tmp_path)], crops)
    chosen = torch.tensor([4, 4, 2])
    plain, mirrored, other_crop = teacher.select(chosen, torch.tensor([False, True, False]))
    assert torch.equal(plain, teacher.features[0, 4])
    assert torch.equal(mirrored, teacher.features[1, 4])
    assert torch.equal(other_crop, teacher.features[0, 2])
    assert plain.norm().item() == pytest.approx(1)
    assert not torch.equal(plain, mirrored)


def test_a_teachers_file_is_matched_by_file_name(tmp_path: Path) -> None:
    crops = samples(tmp_path)
    path = write_teacher(tmp_path)
    forwards, backwards = read_teacher([path], crops), read_teacher([path], crops[::-1])
    assert torch.equal(forwards.features, backwards.features.flip(1))


def test_a_teacher_without_features_of_a_crop_is_an_error(tmp_path: Path) -> None:
    stranger = Sample(Path("nowhere/0099_c1s1_000000_00.jpg"), 99, 1)
    with pytest.raises(DataError, match=r"no features of 1 training crops, for instance 0099_c1s1_000000_00\.jpg"):
        read_teacher([write_teacher(tmp_path)], (*samples(tmp_path), stranger))


def test_training_crops_of_the_same_file_name_are_an_error(tmp_path: Path) -> None:
    crops = samples(tmp_path)
    renamed = Sample(tmp_path / "other person" / crops[0].path.name, 99, 1)
    words = f"the training data: several crops have the same file name.*: {crops[0].path.name}; rename them"
    with pytest.raises(DataError, match=words):
        read_teacher([write_teacher(tmp_path)], (*crops, renamed))
    read_teacher([write_teacher(tmp_path)], (*crops, crops[0]))


def test_a_teacher_with_two_entries_for_a_training_crop_is_an_error(tmp_path: Path) -> None:
    crops, path = samples(tmp_path), write_teacher(tmp_path)
    repeated = rf"teacher\.npz and .*teacher\.npz: several crops.*: {crops[0].path.name}, .* and {len(crops) - 4} more;"
    with pytest.raises(DataError, match=repeated):
        read_teacher([path, path], crops)
    features = np.ones((2, 3), dtype=np.float32)
    np.savez(tmp_path / "unused.npz", names=np.array(["a/unused.jpg", "b/unused.jpg"]), features=features)
    read_teacher([path, tmp_path / "unused.npz"], crops)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really"])
def test_a_file_that_is_not_a_teachers_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(DataError, match="not an NPZ file of a teacher's features"):
        read_teacher([tmp_path / "t.npz"], ())


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    schedule = Schedule(iterations=110, warm_up=10)
    assert rate(0, schedule) == pytest.approx(0.01)
    assert rate(10, schedule) == 1
    assert rate(60, schedule) == pytest.approx(0.5)
    assert rate(109, schedule) < 0.001


def test_delayed_layers_go_through_the_whole_schedule() -> None:
    schedule = Schedule(iterations=110, warm_up=10)
    assert [delayed_rate(i, schedule, 55) for i in (0, 54)] == [0.0, 0.0]
    assert delayed_rate(55, schedule, 55) == pytest.approx(0.01)
    assert delayed_rate(60, schedule, 55) == 1
    assert delayed_rate(85, schedule, 55) == pytest.approx(0.5)
    assert delayed_rate(109, schedule, 55) < 0.001
    assert [delayed_rate(i, schedule, 0) for i in range(110)] == [rate(i, schedule) for i in range(110)]


def test_the_rate_falls_in_steps() -> None:
    schedule = Schedule(kind="step", iterations=30, steps=(10, 20))
    assert [rate(i, schedule) for i in (0, 9, 10, 19, 20, 29)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


WHOLE = sorted(path for path in SHIPPED.glob("*.toml") if path.stem != "adapt")  # `adapt` needs a checkpoint


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_shipped_recipes_can_be_read(path: Path) -> None:
    assert read_recipe(recipe_path(Path(path.stem))) == read_recipe(path)


def test_the_paper_recipe_is_the_paper() -> None:
    recipe = read_recipe(recipe_path(Path("paper")))
    assert recipe.architecture == MGNConfig()
    assert (recipe.input.height, recipe.input.width) == (384, 128)
    assert (recipe.batch.identities, recipe.batch.crops) == (16, 4)
    assert recipe.loss.margin == 1.2
    assert (recipe.augmentation.pad, recipe.augmentation.erase, recipe.augmentation.flip) == (0, 0, 0.5)
    assert [rate(i, recipe.schedule) for i in (0, 8080, 12120)] == pytest.approx([1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = ", "no TOML"),
        ("[batch]\nidentities = 1", r"batch\.identities: Input should be greater"),
        ("y = 1", "there is no y; there are architecture, augmentation, "),
    ],
)
def test_an_error_in_a_recipe_names_its_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(RecipeError, match=words):
        read_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss.softmax": "circle"}, "needs architecture.classifier"),
        ({"schedule.kind": "step"}, "needs steps"),
        ({"schedule.warm_up": 99}, r"warm_up \(99\) must be less than iterations \(4\)"),
        ({"name.inner": 1}, "name is a value of the recipe, not a section"),
        ({"loss.margni": 1}, r"there is no loss\.margni: did you mean margin\? There are circle_margin, .*, triplet"),
        ({"schedul.iterations": 1}, r"there is no schedul: did you mean schedule\? There are architecture, "),
        ({"average.dekay": 1}, r"there is no average\.dekay: did you mean decay\?"),
    ],
)
def test_contradicting_values_of_a_recipe_are_an_error(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        quick_recipe(changes)


def test_settings_on_the_command_line_are_toml() -> None:
    assert parse_overrides(["a.b=2", "c = 'text'", "d=[1, 2]"]) == {"a.b": 2, "c": "text", "d": [1, 2]}
    for wrong in ("a", "a=text", "=1"):
        with pytest.raises(RecipeError, match="write NAME=VALUE"):
            parse_overrides([wrong])


def test_a_resumed_log_drops_repeated_iterations_and_a_truncated_line(tmp_path: Path) -> None:
    lines = [json.dumps({"iteration": i, "loss": 0.5}) for i in (1, 2, 3)]
    (tmp_path / LOG_FILE).write_text("\n".join(lines) + '\n{"iterat')
    with open_run_log(tmp_path, iterations=5, done=2) as run_log:
        run_log.count_crops(8)
        run_log.log_training(3, {"loss": 0.25})
    logged_lines = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert [(line["iteration"], line["loss"]) for line in logged_lines] == [(1, 0.5), (2, 0.5), (3, 0.25)]


def test_strided_depthwise_convolutions_compute_in_single_precision_under_bfloat16() -> None:
    torch.manual_seed(0)
    trunk = build_backbone(MGNConfig(backbone="mobilenet_v2")).trunk
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        exact = trunk.train()(images)
    strided_depthwise_in_float32(trunk)
    given: dict[tuple[int, ...], torch.dtype] = {}
    for module in trunk.modules():
        if isinstance(module, torch.nn.Conv2d) and module.groups > 1:
            module.register_forward_hook(lambda layer, _, out: given.update({layer.stride: out.dtype}))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rough = trunk(images)
    assert given == {(1, 1): torch.bfloat16, (2, 2): torch.float32}
    assert trunk.state_dict().keys() == before.keys()
    assert torch.nn.functional.cosine_similarity(rough.float().flatten(1), exact.flatten(1)).min() > 0.98


def test_selected_identities_keep_all_crops_and_depend_on_the_seed(tmp_path: Path) -> None:
    crops = samples(tmp_path)
    selected = select_identities(crops, 2)
    assert len({sample.pid for sample in selected}) == 2
    assert len(selected) == 2 * len(crops) // 6
    assert selected == select_identities(crops, 2)
    with pytest.raises(DataError, match="cannot train on 7 identities: the data has 6"):
        select_identities(crops, 7)
