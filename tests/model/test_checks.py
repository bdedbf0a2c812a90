"""Commands check pictures, folders, disk and memory first, and say in one sentence what is missing."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from model import checks
from model.checkpoint import load_checkpoint
from model.checks import (
    available_memory,
    require_disk,
    require_memory,
    require_output_file,
    require_output_folder,
    require_pictures,
)
from model.datasets.base import Sample
from model.errors import DataError, ModelError, ResourceError, TrainingError
from model.evaluate import memory_needed
from model.recipe import Recipe
from model.train import CHECKPOINT_FILE, check_run, train
from model.training.inputs import cached_inputs, missing_bytes
from model.training.map_cache import missing_bytes as missing_map_bytes
from model.training.map_cache import trunk_maps
from model.training.states import saved_states
from model.training.train_state import initial_state, states_bytes
from tests.model.evaluation_factories import run_model
from tests.model.model_factories import write_checkpoint
from tests.model.small_sites import one_crop_a_camera, write_site
from tests.model.training_factories import ALONE, market, omz_recipe, quick_recipe, run_of, write_teacher


def crops(folder: Path) -> list[Sample]:
    paths = [folder / f"{number}.jpg" for number in range(4)]
    for path in paths:
        path.write_text("not decoded here")
    return [Sample(path, 1, 1) for path in paths]


def test_pictures_that_are_there_pass(tmp_path: Path) -> None:
    require_pictures(crops(tmp_path))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.unlink, "it is missing"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: (path.unlink(), path.mkdir()), "it is no file"),
        (lambda path: (path.unlink(), path.symlink_to("nowhere.jpg")), "it is missing"),
        (lambda path: (path.unlink(), path.symlink_to(path)), "symbolic links"),
    ],
)
def test_the_first_unusable_picture_and_their_number_are_named(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    samples = crops(tmp_path)
    for sample in samples[1:3]:
        spoil(sample.path)
    with pytest.raises(DataError, match=rf"2 of 4 pictures cannot be used, the first is .*1\.jpg: .*{words}"):
        require_pictures((*samples, *samples))


def test_an_output_needs_a_folder_that_is_there(tmp_path: Path) -> None:
    require_output_file("--out", tmp_path / "new.onnx")
    require_output_folder("--out", tmp_path / "a" / "b")
    (tmp_path / "file").write_text("x")
    for path, words in (
        (tmp_path, "which is a folder"),
        (tmp_path / "a" / "new.onnx", "create it first"),
        (tmp_path / "file" / "new.onnx", "create it first"),
    ):
        with pytest.raises(ResourceError, match=f"--out is .*{words}"):
            require_output_file("--out", path)
    for path in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ResourceError, match=r"--out is .*file is a file: give a folder"):
            require_output_folder("--out", path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.os, "access", lambda *_: False)  # for root, all folders can be written
    with pytest.raises(ResourceError, match="cannot be written"):
        require_output_folder("--out", tmp_path / "new")


def test_disk_and_memory_are_compared_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000_000))
    require_disk(tmp_path / "new" / "folder", 999_999_999, "the run", "choose another --out")
    words = r"the run needs about 2\.5 GB in .*new, where 1\.0 GB are free: free some space or choose another --out"
    with pytest.raises(ResourceError, match=words):
        require_disk(tmp_path / "new", 2_500_000_000, "the run", "choose another --out")
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:  1000000 kB\n")
    monkeypatch.setattr(checks, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(checks, "_CONTAINER_LIMIT", tmp_path / "nowhere")
    assert available_memory() == 1_024_000_000
    require_memory(1_000_000_000, "evaluating", "use less")
    with pytest.raises(
        ResourceError, match=r"evaluating needs about 2\.0 GB of memory, and 1\.0 GB are available: use"
    ):
        require_memory(2_000_000_000, "evaluating", "use less")
    (tmp_path / "limit").write_text("5000000\n")
    monkeypatch.setattr(checks, "_CONTAINER_LIMIT", tmp_path / "limit")
    assert available_memory() == 5_000_000
    monkeypatch.setattr(checks, "_MEMINFO", tmp_path / "nowhere")
    assert available_memory() is None
    require_memory(10**18, "evaluating", "use less")


def test_re_ranking_needs_more_memory() -> None:
    plain = memory_needed(3_368, 15_913)
    assert 2 * 4 * (3_368 + 15_913) * 2048 < plain < 500_000_000
    assert plain < memory_needed(3_368, 15_913, rerank=True) < 2 * plain


@pytest.mark.slow
def test_the_sizes_of_caches_are_those_of_their_files(tmp_path: Path) -> None:
    recipe = omz_recipe(tmp_path)
    run = run_of(tmp_path, recipe)
    paths = [sample.path for sample in run.samples]
    assert missing_bytes(paths, recipe.input, run.cache) == len(paths) * 256 * 128 * 3
    cached_inputs(paths, recipe.input, run.cache)
    assert missing_bytes(paths, recipe.input, run.cache) == 0
    mgn = initial_state(recipe, 6, ALONE).mgn
    expected = missing_map_bytes(mgn, recipe.input, paths, run.cache)
    maps = trunk_maps(mgn, recipe.input, paths, run.cache)
    assert expected == sum(chunk.nbytes for chunk in maps.chunks)
    assert missing_map_bytes(mgn, recipe.input, paths, run.cache) == 0


@pytest.mark.parametrize("changes", [{"average.decay": 0.9}, {"optimizer.kind": "sgd"}], ids=["adamw", "sgd"])
def test_the_size_of_a_run_is_that_of_its_files(tmp_path: Path, changes: dict[str, object]) -> None:
    changes = changes | {"initialisation.frozen_trunk_blocks": 0, "schedule.iterations": 1, "schedule.warm_up": 0}
    recipe = quick_recipe(changes)
    train(run_of(tmp_path, recipe), ALONE)
    (state,) = saved_states(tmp_path / "run")
    size = 3 * state.stat().st_size + 2 * (tmp_path / "run" / CHECKPOINT_FILE).stat().st_size
    assert states_bytes(recipe, 6) == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize("backbone", ["resnet50", "osnet_x1_0", "mobilenet_v2"])
def test_every_backbone_has_a_size(backbone: str) -> None:
    changes: dict[str, object] = {"architecture.backbone": backbone}
    assert states_bytes(quick_recipe(changes), 100) > 10_000_000


def refused(folder: Path, recipe: Recipe, resume: bool = False) -> str:
    with pytest.raises(ModelError) as raised:
        check_run(run_of(folder, recipe), ALONE, resume)
    assert not (folder / "cache").exists()
    return str(raised.value)


def test_a_run_is_refused_before_its_cache_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a batch needs 7 identities, but the data has only 6" in refused(
        tmp_path, quick_recipe({"batch.identities": 7})
    )
    assert "nothing to resume" in refused(tmp_path, quick_recipe(), resume=True)
    (tmp_path / "run").mkdir()
    write_checkpoint(tmp_path / "run" / CHECKPOINT_FILE)
    assert "already holds a checkpoint, which would be lost" in refused(tmp_path, quick_recipe())
    (tmp_path / "run" / CHECKPOINT_FILE).unlink()
    next((market(tmp_path) / "bounding_box_train").iterdir()).write_bytes(b"")
    assert "1 of 36 pictures cannot be used" in refused(tmp_path, quick_recipe())
    shutil.rmtree(tmp_path / "market")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    assert "the run needs about" in refused(tmp_path, quick_recipe())


def test_a_teacher_that_does_not_fit_is_refused_first(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path)
    run = run_of(tmp_path, quick_recipe({"distillation.weight": 1.0}), teachers=(teacher,))
    check_run(run, ALONE, resume=False)
    teacher.write_bytes(teacher.read_bytes()[:200])
    with pytest.raises(DataError, match="not an NPZ file of a teacher's features"):
        check_run(run, ALONE, resume=False)


@pytest.mark.parametrize("content", [torch.zeros(3), {"iteration": 1}, {"run": 3}])
def test_a_state_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / "run").mkdir()
    torch.save(content, tmp_path / "run" / "state-00000001.pt")
    with pytest.raises(TrainingError, match=r"is damaged|another recipe"):
        check_run(run_of(tmp_path, quick_recipe()), ALONE, resume=True)


def test_a_state_that_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path, quick_recipe({"schedule.iterations": 1, "schedule.warm_up": 0}))
    train(run, ALONE)
    (path,) = saved_states(run.folder)
    state = torch.load(path, weights_only=True)
    del state["mgn"]["trunk.0.0.weight"]
    torch.save(state, path)
    with pytest.raises(TrainingError, match="does not fit the network"):
        train(run, ALONE, resume=True)


@pytest.mark.parametrize(
    "line",
    [
        ("evaluate", "--checkpoint", "c.safetensors", "--data", "manifest:crops.csv"),
        ("evaluate", "--checkpoint", "c.safetensors", "--data", "manifest:crops.csv", "--all"),
        ("calibrate", "--checkpoint", "c.safetensors", "--data", "manifest:crops.csv", "--out", "k.safetensors"),
        ("visualize", "--checkpoint", "c.safetensors", "--data", "manifest:crops.csv", "--out", "pages"),
        ("train", "mobile", "--data", "manifest:crops.csv", "--out", "run", "--set", "batch.identities=2"),
        ("train", "mobile", "--data", "manifest:crops.csv", "--out", "run", "--hold-out", 4),
        ("adapt", "--from", "c.safetensors", "--data", "manifest:crops.csv", "--out", "run"),
        ("teach", "--network", "c.safetensors", "--data", "manifest:crops.csv", "--out", "t.npz"),
        ("export", "--checkpoint", "c.safetensors", "--data", "manifest:crops.csv", "--out", "e.onnx", "--precision",
         "int8"),
        ("report", ".", "--data", "manifest:crops.csv"),
    ],
    ids=lambda line: " ".join(map(str, (line[0], *line[-2:]))),
)  # fmt: skip
def test_every_command_names_missing_pictures_before_it_reads_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: tuple[object, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "c.safetensors")
    shutil.copy(tmp_path / "c.safetensors", tmp_path / "checkpoint.safetensors")
    site = write_site(tmp_path / "site", one_crop_a_camera(12, (1, 2, 3)), pictures=False)
    rows = [f"{path.relative_to(tmp_path)},{int(path.parent.name)},{path.stem[6]}" for path in site.rglob("*.jpg")]
    (tmp_path / "crops.csv").write_text("file,pid,camera\n" + "\n".join(rows) + "\n")
    for path in site.rglob("*_c2_*.jpg"):
        path.unlink()
    ended = run_model(monkeypatch, capsys, *line)
    assert ended.code == 2
    assert "pictures cannot be used, the first is site/" in ended.err
    assert ended.err.endswith("it is missing; correct the data, or leave these pictures out of it")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("calibrate", "--checkpoint", "c.safetensors", "--data", "folder:x", "--out", "no/k.safetensors"),
         "--out is no/"),
        (("evaluate", "--checkpoint", "c.safetensors", "--data", "folder:site", "--export", "no/f.npz"),
         "--export is no/"),
        (("visualize", "--checkpoint", "c.safetensors", "--data", "folder:x", "--out", "c.safetensors"), "is a file"),
        (("train", "mobile", "--data", "folder:site", "--out", "c.safetensors", "--set", "batch.identities=2"),
         "is a file"),
        (("train", "mobile", "--data", "folder:site", "--out", "run", "--cache", "c.safetensors", "--set",
          "batch.identities=2"), "--cache is c.safetensors"),
        (("adapt", "--from", "c.safetensors", "--data", "folder:site", "--out", "c.safetensors"), "is a file"),
        (("teach", "--network", "c.safetensors", "--data", "folder:x", "--out", "no/t.npz"), "--out is no/"),
        (("export", "--checkpoint", "c.safetensors", "--out", "no/e.onnx"), "--out is no/"),
        (("convert", "c.pt", "--out", "no/e.safetensors"), "--out is no/"),
        (("report", "c.safetensors"), "RUN is c.safetensors"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_every_command_names_an_output_that_cannot_be_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: tuple[object, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = write_checkpoint(tmp_path / "c.safetensors")
    write_site(tmp_path / "site", one_crop_a_camera(8), pictures=False)
    ended = run_model(monkeypatch, capsys, *line)
    assert ended.code == 2
    assert words in ended.err
    assert load_checkpoint(tmp_path / "c.safetensors").metadata == before.metadata
