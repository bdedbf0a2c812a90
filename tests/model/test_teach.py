"""A network's features of training crops, as the teacher of a run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from model.__main__ import commands
from model.conversion.networks import convert_network
from model.datasets import open_data_set
from model.errors import ModelError
from model.pictures import read_inputs
from model.plain_network import load_network, save_network
from model.train import train
from model.training.teacher import read_teacher
from tests.model.ir_factories import random_network, write_ir
from tests.model.model_factories import write_checkpoint
from tests.model.training_factories import ALONE, market, quick_recipe, run_of


def teach(folder: Path, network: Path, out: str = "teacher.npz") -> Path:
    arguments = ["teach", "--network", str(network), "--data", f"market1501:{market(folder)}"]
    done = CliRunner().invoke(commands, [*arguments, "--out", str(folder / out)])
    if done.exception is not None:
        raise done.exception
    return folder / out


def converted(folder: Path) -> Path:
    network = convert_network(write_ir(folder / "tiny.xml", random_network()), "tiny")
    save_network(folder / "tiny.safetensors", network.weights, network.metadata)
    return folder / "tiny.safetensors"


def test_a_converted_network_writes_its_own_features(tmp_path: Path) -> None:
    samples = open_data_set(f"market1501:{market(tmp_path)}").train()
    teacher = read_teacher([teach(tmp_path, converted(tmp_path))], samples)
    network = load_network(tmp_path / "tiny.safetensors")
    crops = read_inputs([sample.path for sample in samples[:4]], network.metadata.input)
    for mirrored, pictures in ((False, crops), (True, np.ascontiguousarray(crops[:, :, ::-1]))):
        features = teacher.select(torch.arange(4), torch.full((4,), mirrored)).numpy()
        np.testing.assert_allclose(features, network.embed(pictures), atol=2e-3)


def test_a_checkpoint_teaches_too_and_a_run_learns_from_it(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "teacher.safetensors")
    features = teach(tmp_path, tmp_path / "teacher.safetensors")
    recipe = quick_recipe({"distillation.weight": 1.0, "schedule.iterations": 2})
    checkpoint = train(run_of(tmp_path, recipe, teachers=(features,)), ALONE)
    assert all(np.isfinite(weights).all() for weights in checkpoint.weights.values())


def test_a_wrong_output_or_a_repeated_file_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"must end in \.npz"):
        teach(tmp_path, converted(tmp_path), "teacher.txt")
    first = next((market(tmp_path) / "bounding_box_train").iterdir())
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / first.name).write_bytes(first.read_bytes())
    listed = f"file,pid\n{first},1\n{tmp_path / 'more' / first.name},2\n"
    (tmp_path / "twice.csv").write_text(listed)
    arguments = ["--data", f"manifest:{tmp_path / 'twice.csv'}", "--out", str(tmp_path / "t.npz")]
    done = CliRunner().invoke(commands, ["teach", "--network", str(tmp_path / "tiny.safetensors"), *arguments])
    assert isinstance(done.exception, ModelError)
    assert "the same file name" in str(done.exception)
