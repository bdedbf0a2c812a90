"""Whatever a user gives the commands, the error is one sentence; a figure that is not defined is no number."""

import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.calibrate import ADVISED_IDENTITIES, check_pairs
from model.checkpoint import load_checkpoint, save_checkpoint
from model.conversion.files import read_state
from model.datasets.base import EvaluationSplit, Sample, evaluation_split
from model.errors import CheckpointError, DataError, ModelError
from model.evaluate import embed_samples, read_features
from model.figures import DASH
from model.loading import inference_of
from model.recipe import read_recipe
from model.training.run_log import open_run_log
from model.training.teacher import read_teacher
from tests.model.evaluation_factories import run_model, write_log
from tests.model.model_factories import write_checkpoint
from tests.model.small_sites import one_crop_a_camera, write_site
from tests.mutating import mutated

Arrays = dict[str, Any]


def few_features(path: Path, **changes: Any) -> Path:
    """Two persons by two cameras: too few pairs for the usual error rates."""
    arrays: Arrays = {
        "fq": np.eye(2, dtype=np.float32), "qp": np.array([1, 2]), "qc": np.array([1, 1]),
        "fg": np.eye(2, dtype=np.float32), "gp": np.array([1, 2]), "gc": np.array([2, 2]),
    }  # fmt: skip
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


def test_a_rate_that_is_not_defined_is_a_dash_and_null_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    path = few_features(tmp_path / "f.npz")
    ended = run_model(monkeypatch, capsys, "evaluate", "--features", path)
    output = " ".join(ended.out.split())
    assert f"verification: FNMR {DASH} at FMR 0.1 %, {DASH} at FMR 0.01 %" in output
    assert "the FNMR at FMR 0.1 % is not defined: it needs 1,000 different-person pairs, and there are 2" in output
    assert "nan" not in output
    for options in ((), ("--rerank",), ("--bootstrap", 5), ("--multi-query", "--query-expansion", 3)):
        result = run_model(monkeypatch, capsys, "evaluate", "--features", path, "--json", *options)
        figures = json.loads(result.out, parse_constant=refuse)
        assert figures["verification"]["fnmr"] == {"0.001": None, "0.0001": None}
        assert figures["rank1"] == 1


def test_the_same_crop_everywhere_gives_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    same = np.ones((2, 4), np.float32)
    path = few_features(tmp_path / "f.npz", fq=same, fg=same)
    for options in ((), ("--rerank",)):
        ended = run_model(monkeypatch, capsys, "evaluate", "--features", path, "--json", *options)
        assert ended.code == 0, ended.err
        assert 0 < json.loads(ended.out, parse_constant=refuse)["map_step"] <= 1


def test_features_without_right_answers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = few_features(tmp_path / "f.npz", gc=np.array([1, 1]))
    ended = run_model(monkeypatch, capsys, "evaluate", "--features", path)
    assert ended.code == 2
    assert "no query has a right answer in the gallery, as its crops of each query's person are by" in ended.err
    assert "evaluate --same-camera" in ended.err
    assert run_model(monkeypatch, capsys, "evaluate", "--features", path, "--same-camera").code == 0


def test_a_log_has_null_for_an_undefined_figure_and_the_report_leaves_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_run_log(write_log(tmp_path, []), 2, 0) as log:
        log.log_validation(1, {"rank1": float("nan"), "map_step": 0.5})
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["validation"] == {"rank1": None, "map_step": 0.5}
    ended = run_model(monkeypatch, capsys, "report", tmp_path)
    assert ended.code == 0, ended.err


def split_of(persons: int) -> EvaluationSplit:
    seen = [(pid, camera, number) for pid in range(1, persons + 1) for camera in (1, 2) for number in (0, 1)]
    return evaluation_split([Sample(Path(f"{p:04}_c{c}_{n}.jpg"), p, c) for p, c, n in seen])


def test_a_calibration_on_few_persons_is_noted_and_on_too_few_refused() -> None:
    assert check_pairs(split_of(ADVISED_IDENTITIES), "site") == ()
    (note,) = check_pairs(split_of(4), "site")
    assert note.startswith("4 identities are few")
    assert str(ADVISED_IDENTITIES) in note
    with pytest.raises(
        DataError, match=f"too few persons to calibrate on: .* {ADVISED_IDENTITIES} persons are advised"
    ):
        check_pairs(split_of(3), "site")


def test_calibrating_on_four_persons_warns_before_it_embeds_and_on_three_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    write_checkpoint(tmp_path / "c.safetensors")
    line = ("calibrate", "--checkpoint", tmp_path / "c.safetensors", "--out", tmp_path / "k.safetensors", "--data")
    site = write_site(tmp_path / "four", [(pid, camera, 2) for pid in range(1, 5) for camera in (1, 2)])
    ended = run_model(monkeypatch, capsys, *line, f"folder:{site}")
    assert ended.code == 0, ended.err
    output = " ".join(ended.out.split())
    assert "note: 4 identities are few" in output
    assert output.index("are few") < output.index("fitted on")
    assert "nan" not in output
    site = write_site(tmp_path / "three", [(p, c, 2) for p in range(1, 4) for c in (1, 2)], pictures=False)
    ended = run_model(monkeypatch, capsys, *line, f"folder:{site}")
    assert ended.code == 2
    assert "too few persons to calibrate on" in ended.err


@pytest.mark.parametrize(
    "changes",
    [
        {"qp": np.array(["a", "b"])},
        {"qp": np.array([1.5, 2.0])},
        {"qp": np.array(3)},
        {"qp": np.array([[1, 2]])},
        {"fq": np.array(3.0)},
        {"fq": np.array([["a", "b"], ["c", "d"]])},
        {"fq": np.empty((0, 2)), "qp": np.empty(0, int), "qc": np.empty(0, int)},
        {"fq": np.empty((2, 0)), "fg": np.empty((2, 0))},
        {"fq": np.array([None, None])},
        {"fq": np.eye(2) * 1j},
        {"gp": None},
    ],
    ids=str,
)  # fmt: skip
def test_features_of_other_types_are_one_sentence(tmp_path: Path, changes: Arrays) -> None:
    with pytest.raises(DataError, match=r"f\.npz"):
        read_features(few_features(tmp_path / "f.npz", **changes))


def teacher_file(path: Path) -> Path:
    np.savez(path, names=np.array(["a.jpg"]), features=np.ones((1, 3)))
    return path


def read_a_teacher(path: Path) -> None:
    read_teacher([path], [Sample(Path("a.jpg"), 1, 1)])


@pytest.mark.parametrize(
    ("write", "read"),
    [(few_features, read_features), (teacher_file, read_a_teacher)],
    ids=["features", "teacher"],
)
def test_a_damaged_npz_file_is_one_sentence_or_can_be_read(
    tmp_path: Path, write: Callable[[Path], Path], read: Callable[[Path], object], seed: int
) -> None:
    whole, rng = write(tmp_path / "f.npz").read_bytes(), random.Random(seed)
    for content in (b"", b"text", *(mutated(whole, rng) for _ in range(300))):
        (tmp_path / "f.npz").write_bytes(content)
        with suppress(ModelError):
            read(tmp_path / "f.npz")
    for array in (np.ones(3), np.array(["x"])):
        with (tmp_path / "f.npz").open("wb") as file:
            np.save(file, array)
        with pytest.raises(DataError, match=r"f\.npz is no.* NPZ file of .*a single array"):
            read(tmp_path / "f.npz")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": np.array([1])}, "a list of texts"),
        ({"names": np.array("a.jpg")}, "a list of texts"),
        ({"features": np.ones(3)}, "a row of numbers for each crop"),
        ({"features_mirrored": np.ones((1, 4))}, "mirrored ones of shape"),
    ],
)
def test_a_teachers_file_of_other_types_is_one_sentence(tmp_path: Path, changes: Arrays, words: str) -> None:
    np.savez(tmp_path / "t.npz", **({"names": np.array(["a.jpg"]), "features": np.ones((1, 3))} | changes))
    with pytest.raises(DataError, match=words):
        read_a_teacher(tmp_path / "t.npz")


def test_a_damaged_checkpoint_of_other_code_is_one_sentence(tmp_path: Path, seed: int) -> None:
    torch.save({"a": torch.ones(40), "b": torch.zeros(3)}, tmp_path / "s.pt")
    whole, rng = (tmp_path / "s.pt").read_bytes(), random.Random(seed)
    for _ in range(200):
        (tmp_path / "s.pt").write_bytes(mutated(whole, rng))
        with suppress(CheckpointError):
            read_state(tmp_path / "s.pt")


@pytest.mark.parametrize(
    "state",
    [
        {"backone.0.weight": torch.ones(1), "p1.0.0.conv1.weight": torch.ones(1), "fc_id_2048_0.weight": torch.ones(1)},
        {"backbone.0.weight": torch.ones(1), "b1.0.0.conv1.weight": torch.ones(1), "b1_pool.1.weight": torch.ones(2),
         "b1_pool.0.p": torch.ones(2)},
    ],
)  # fmt: skip
def test_tensors_of_other_shapes_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: dict[str, Any]
) -> None:
    torch.save(state, tmp_path / "s.pt")
    for line in (("info", tmp_path / "s.pt"), ("convert", tmp_path / "s.pt", "--out", tmp_path / "c.safetensors")):
        ended = run_model(monkeypatch, capsys, *line)
        assert ended.code in (0, 2)
        assert ended.code or line[0] == "info"


def test_safetensors_of_a_type_that_numpy_lacks_are_one_sentence(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "b.safetensors")
    for path in (tmp_path / "b.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            load_checkpoint(path)


def test_weights_that_are_not_finite_are_one_sentence(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c.safetensors")
    weights = {name: np.full_like(tensor, np.nan) for name, tensor in checkpoint.weights.items()}
    broken = inference_of(save_checkpoint(tmp_path / "c.safetensors", weights, checkpoint.metadata))
    site = write_site(tmp_path / "site", [(1, 1, 1)])
    (path,) = site.rglob("*.jpg")
    with pytest.raises(CheckpointError, match=f"not finite numbers for crops such as {re.escape(str(path))}"):
        embed_samples([Sample(path, 1, 1)], broken)


def test_the_metadata_of_a_checkpoint_that_cannot_be_used_is_described_in_one_line(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c.safetensors")
    metadata = checkpoint.metadata.model_copy(update={"parts": 3, "precision": "int9"})
    with pytest.warns(UserWarning, match="serial"):
        save_checkpoint(tmp_path / "c.safetensors", checkpoint.weights, metadata)
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(tmp_path / "c.safetensors")
    assert "\n" not in str(raised.value)
    assert "parts: " in str(raised.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bootstrap", 10**13), "the memory does not suffice"),
        (("--seed", -1), "greater than or equal to 0"),
        (("--seed", 2**32), "less than or equal to 4294967295"),
    ],
)
def test_values_that_no_machine_can_use_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: Any, words: str
) -> None:
    path = few_features(tmp_path / "f.npz")
    ended = run_model(monkeypatch, capsys, "evaluate", "--features", path, *options)
    assert ended.code == 2
    assert words in ended.err.replace("│ ", "")


def test_a_file_that_cannot_be_written_in_the_end_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.jsonl").write_text("")
    (tmp_path / "report.html").mkdir()
    ended = run_model(monkeypatch, capsys, "report", tmp_path)
    assert ended.code == 2
    assert re.fullmatch(r"error: .*report\.html.*: Is a directory", ended.err)


def test_a_name_with_brackets_is_printed_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write_checkpoint(tmp_path / "c.safetensors")
    site = write_site(tmp_path / "[red] [b] :dog:", one_crop_a_camera(3))
    line = ("evaluate", "--checkpoint", tmp_path / "c.safetensors", "--data")
    ended = run_model(monkeypatch, capsys, *line, f"folder:{site}")
    assert ended.code == 0, ended.err
    assert "[red] [b] :dog:, all 3 persons" in ended.out
    ended = run_model(monkeypatch, capsys, *line, f"folder:{tmp_path}/[/b]")
    assert ended.code == 2
    assert "[/b] is missing" in ended.err


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "is no TOML"), (b"name = 3\n[batch]\nidentities = 'x'", "cannot be used")],
)
def test_a_recipe_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(ModelError, match=words) as raised:
        read_recipe(tmp_path / "r.toml")
    assert "\n" not in str(raised.value)


def test_a_log_with_another_validation_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.jsonl").write_text('{"iteration": 1, "validation": 3}\n')
    ended = run_model(monkeypatch, capsys, "report", tmp_path)
    assert ended.code == 2
    assert "is not a line of a training log" in ended.err
