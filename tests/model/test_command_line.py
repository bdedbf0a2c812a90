"""`python -m model`: metrics on success, one sentence and exit code 2 for user errors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.model.evaluation_factories import RunModel
from tests.model.model_factories import RESULT, write_checkpoint, write_market


def write_features(path: Path) -> Path:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 8))
    pids, cameras = np.repeat(np.arange(5), 4), np.tile(np.arange(4), 5)
    features = (centres[pids] + 0.1 * rng.normal(size=(20, 8))).astype(np.float16)
    query = cameras == 0
    np.savez(path, fq=features[query], qp=pids[query], qc=cameras[query], fg=features[~query], gp=pids[~query],
             gc=cameras[~query])  # fmt: skip
    return path


@pytest.mark.parametrize("options", [[], ["--rerank"]])
def test_features_are_evaluated(run: RunModel, tmp_path: Path, options: list[str]) -> None:
    ended = run("evaluate", "--features", write_features(tmp_path / "f.npz"), "--json", *options)
    assert ended.code == 0, ended.err
    figures = json.loads(ended.out)
    assert {"queries", "rank1", "rank5", "rank10", "map_step", "map_trapezoid", "minp"} <= figures.keys()
    assert figures["queries"] == 5
    assert figures["rank1"] == 1


def test_a_checkpoint_is_evaluated_on_the_test_part_or_on_held_out_identities(run: RunModel, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.safetensors")
    market = write_market(tmp_path / "market")
    options = ("evaluate", "--checkpoint", tmp_path / "c.safetensors", "--data", f"market1501:{market}", "--json")
    ended = run(*options)
    assert json.loads(ended.out)["queries"] == 18, ended.err
    assert json.loads(run(*options, "--hold-out", 2).out)["queries"] == 6


def test_a_mistake_ends_the_process_with_exit_code_2_and_without_a_traceback() -> None:
    ended = subprocess.run([sys.executable, "-m", "model", "evaluate"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: give either --features")
    assert ended.stderr.count("\n") == 1, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "--features", "nowhere.npz"), "no NPZ file"),
        (("info", "nowhere.safetensors"), "there is no checkpoint at nowhere.safetensors"),
        (("info", __file__), "is no file of torch.save"),
        (("export", "--checkpoint", "nowhere.safetensors", "--out", "x.onnx"), "there is no checkpoint"),
        (("train", "nowhere.toml", "--data", "market1501:/x", "--out", "y"), "cannot read the recipe"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_2(run: RunModel, arguments: tuple[str, ...], words: str) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert words in ended.err


def test_info_tells_what_a_checkpoint_is(run: RunModel, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c.safetensors")
    ended = run("info", tmp_path / "c.safetensors")
    assert checkpoint.metadata.model_id in ended.out
    assert "64 x 32 pixels" in ended.out


def test_results_are_copied_from_a_checkpoint_of_the_same_recipe_only(run: RunModel, tmp_path: Path) -> None:
    from model.checkpoint import load_checkpoint, save_checkpoint

    plain = write_checkpoint(tmp_path / "all.safetensors")
    evaluated = plain.metadata.model_copy(update={"results": (RESULT,)})
    save_checkpoint(tmp_path / "evaluated.safetensors", plain.weights, evaluated)
    other_recipe = evaluated.model_copy(update={"recipe": {"seed": 1}})
    save_checkpoint(tmp_path / "other.safetensors", plain.weights, other_recipe)
    out = tmp_path / "out.safetensors"
    options = ("export", "--checkpoint", tmp_path / "all.safetensors", "--out", out, "--results-of")
    assert run(*options, tmp_path / "evaluated.safetensors").code == 0
    (result,) = load_checkpoint(out).metadata.results
    assert result.rank1 == RESULT.rank1
    assert result.protocol == f"the same recipe trained on the others; {RESULT.protocol}"
    refused = run(*options, tmp_path / "other.safetensors")
    assert refused.code == 2
    assert "another recipe" in refused.err
