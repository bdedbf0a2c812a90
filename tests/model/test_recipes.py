"""`python -m model recipes`, misspelt recipes, weights without network, and `--threads`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.export import export_onnx
from model.recipe import SHIPPED, recipe_path, recipe_summary, shipped_recipes
from tests.model.evaluation_factories import RunModel
from tests.model.model_factories import write_checkpoint, write_market


def test_recipes_are_listed_with_a_line_each(run: RunModel) -> None:
    ended = run("recipes")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in SHIPPED.glob("*.toml"))
    assert "paper        Exactly the paper (arXiv 1804.01438, sections 3 and 4), for one GPU" in ended.out


@pytest.mark.parametrize("path", shipped_recipes().values(), ids=lambda path: path.stem)
def test_a_recipe_opens_with_what_it_is_for(path: Path) -> None:
    assert 30 < len(recipe_summary(path)) < 120


def test_a_recipe_is_printed_as_it_is(run: RunModel) -> None:
    assert run("recipes", "osnet").out == (SHIPPED / "osnet.toml").read_text()


@pytest.mark.parametrize("arguments", [("recipes", "papr"), ("train", "papr", "--data", "folder:x", "--out", "y")])
def test_a_misspelt_recipe_gets_the_names_there_are(run: RunModel, arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert ended.err == (
        "error: cannot read the recipe papr: there is no such file, and no shipped recipe has this name: did you mean "
        "paper? There are adapt, mobile, osnet, osnet-small, paper, practical"
    )


def test_a_shipped_recipe_goes_before_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper").mkdir()
    assert recipe_path(Path("paper")) == SHIPPED / "paper.toml"


def test_a_misspelt_value_gets_the_right_name(run: RunModel, tmp_path: Path) -> None:
    data = write_market(tmp_path / "market")
    train = ("train", "mobile", "--data", f"market1501:{data}", "--out", tmp_path / "run")
    ended = run(*train, "--set", "schedule.iteration=1")
    assert ended.code == 2
    assert "there is no schedule.iteration: did you mean iterations? There are factor, " in ended.err


def test_the_recipe_of_adapt_is_not_for_train(run: RunModel, tmp_path: Path) -> None:
    ended = run("train", "adapt", "--data", "folder:x", "--out", tmp_path / "run")
    assert (ended.code, "is the recipe of `python -m model adapt`" in ended.err) == (2, True)


def test_weights_that_cannot_be_downloaded_are_named_before_anything_runs(run: RunModel, tmp_path: Path) -> None:
    data = write_market(tmp_path / "market")
    ended = run(
        "train", "paper", "--data", f"market1501:{data}", "--out", tmp_path / "run",
        TORCH_HOME=str(tmp_path / "torch"), https_proxy="http://127.0.0.1:9", no_proxy="",
    )  # fmt: skip
    assert ended.code == 2
    assert "error: the recipe starts from ImageNet weights that torchvision downloads, and this failed" in ended.err
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth" in ended.err
    assert str(tmp_path / "torch") in ended.err
    assert not (tmp_path / "run").exists()


def test_damaged_weights_are_named(run: RunModel, tmp_path: Path) -> None:
    data = write_market(tmp_path / "market")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet50-0676ba61.pth").write_bytes(b"damaged")
    ended = run(
        "train", "paper", "--data", f"market1501:{data}", "--out", tmp_path / "run", TORCH_HOME=str(tmp_path / "torch")
    )
    assert ended.code == 2
    assert "resnet50-0676ba61.pth" in ended.err


SHOW_THREADS = """
import sys
from model.__main__ import commands
sys.argv = ["model", *sys.argv[1:]]
try:
    commands()
except SystemExit as end:
    assert not end.code, end.code
import torch
print("threads", torch.get_num_threads())
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the exporter of torch warns of itself
@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_threads_are_those_that_are_asked_for(tmp_path: Path, suffix: str) -> None:
    checkpoint = write_checkpoint(tmp_path / "c.safetensors")
    data = write_market(tmp_path / "market")
    if suffix == ".onnx":
        export_onnx(checkpoint, tmp_path / "c.onnx")
    threads = (os.cpu_count() or 1) + 1  # not what torch chooses itself
    arguments = ["evaluate", "--checkpoint", tmp_path / f"c{suffix}", "--data", f"market1501:{data}"]
    ended = subprocess.run(
        [sys.executable, "-c", SHOW_THREADS, *map(str, arguments), "--threads", str(threads)],
        capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith(f"threads {threads}\n")


def test_an_onnx_session_takes_the_threads_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from model.checkpoint import BUNDLED
    from model.onnx_session import session_of

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    session = session_of(BUNDLED.with_suffix(".onnx"))
    assert session.get_session_options().intra_op_num_threads == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert session_of(BUNDLED.with_suffix(".onnx")).get_session_options().intra_op_num_threads == 0


def test_commands_that_compute_take_threads(run: RunModel) -> None:
    for command in ("train", "adapt", "evaluate", "calibrate", "visualize", "export", "teach"):
        assert "--threads" in run(command, "--help", COLUMNS="200").out, command
