"""Posted checkpoints that never end, take all memory, or claim to be another model: refused, and nobody waits."""

import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app.models import service
from app.settings import Settings
from model.checkpoint import BUNDLED
from model.loading import read_metadata
from tests.app.reindexing import other_checkpoint, reindex, wait_for
from tests.app.running import found, jpeg, search, stored
from tests.app.serving import ServiceProcess
from tests.app.tiny_checkpoint import tiny_metadata, write_tiny_checkpoint

Run = Callable[[Settings], httpx.Client]

CASES = Path(__file__).parents[2] / "cases"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite is enough here."""
    return f"sqlite:///{tmp_path / 'test.sqlite3'}"


def post(client: httpx.Client, path: Path) -> httpx.Response:
    """Post a checkpoint."""
    with path.open("rb") as file:
        return client.post("/reindex", files={"checkpoint": (path.name, file)}, timeout=120)


def refused(client: httpx.Client, path: Path) -> str:
    """Post a checkpoint that must be refused; the reason."""
    answer = post(client, path)
    assert answer.status_code == 422, answer.text
    assert client.get("/reindex").json()["state"] == "idle"
    detail: str = answer.json()["detail"]
    return detail


def test_one_that_never_ends_is_refused_and_others_are_answered(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_CHECK_SECONDS", 4.0)
    (crop,) = stored(client, 1)
    with ThreadPoolExecutor(1) as threads:
        posted = threads.submit(refused, client, CASES / "loop.onnx")
        answers = 0
        while not posted.done():
            assert client.get("/health/live").status_code == 200
            assert found(client, 1) == [crop["id"]]
            answers += 1
        assert "has not embedded one crop within 4 s" in posted.result()
    assert answers > 3


@pytest.mark.slow
def test_one_that_never_ends_does_not_keep_the_service_from_ending(settings: Settings) -> None:
    running = ServiceProcess(settings)
    running.wait_until_ready()
    with ThreadPoolExecutor(1) as threads, running.new_client() as client:
        posted = threads.submit(post, client, CASES / "loop.onnx")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=60) == 0
        posted.exception()
    running.client.close()


def test_one_without_reference_embeddings_is_refused(client: httpx.Client) -> None:
    assert "no reference embeddings" in refused(client, CASES / "meta_name_same.onnx")


@pytest.mark.parametrize("whose", ["the active model's", "a bundled model's"])
def test_one_with_another_models_id_is_refused(client: httpx.Client, tmp_path: Path, whose: str) -> None:
    (crop,) = stored(client, 1)
    claimed = tiny_metadata()
    if whose == "a bundled model's":
        bundled = read_metadata(BUNDLED.with_suffix(".safetensors"))
        claimed = claimed.model_copy(update={"name": bundled.name, "sha256": bundled.sha256})
    impostor = write_tiny_checkpoint(tmp_path / "impostor.onnx", claimed, seed=7)
    assert f"it claims to be {claimed.model_id}, and embeds otherwise" in refused(client, impostor)
    assert found(client, 1) == [crop["id"]]


def test_one_with_the_id_of_a_former_model_is_refused(client: httpx.Client, tmp_path: Path) -> None:
    stored(client, 1)
    reindex(client, other_checkpoint(tmp_path))
    wait_for(client, "other")
    impostor = write_tiny_checkpoint(tmp_path / "impostor.onnx", tiny_metadata(), seed=7)
    assert "it claims to be tiny-" in refused(client, impostor)


@pytest.mark.parametrize("name", ["../../up", "a b", "", "x" * 200, "ünïcode", "-dash"])
def test_an_id_has_few_letters(client: httpx.Client, tmp_path: Path, name: str) -> None:
    path = write_tiny_checkpoint(tmp_path / "named.onnx", tiny_metadata(name=name))
    assert "is no id of a model" in refused(client, path)


def test_one_that_takes_gigabytes_is_refused(client: httpx.Client, tmp_path: Path) -> None:
    """A graph that sums up 2^30 numbers of single precision, 4 GiB, for each crop."""
    path = write_tiny_checkpoint(tmp_path / "greedy.onnx", tiny_metadata(name="greedy"))
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "before"
    constants = {"count": np.array([2**30], dtype=np.int64), "axis": np.array(0, dtype=np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["count"], ["zeros"]),
            helper.make_node("CumSum", ["zeros", "axis"], ["sums"]),
            helper.make_node("ReduceMax", ["sums"], ["zero"], keepdims=0),
            helper.make_node("Add", ["before", "zero"], ["parts"]),
        ]
    )
    onnx.save(model, path)
    assert "this checkpoint cannot be used" in refused(client, path)


def test_another_form_of_the_active_model_is_no_impostor(client: httpx.Client, tmp_path: Path) -> None:
    shutil.copy(write_tiny_checkpoint(tmp_path / "same.onnx"), tmp_path / "again.onnx")
    answer = post(client, tmp_path / "again.onnx")
    assert answer.status_code == 409
    assert "already the active model" in answer.json()["detail"]
    assert search(client, jpeg(1)).status_code == 200
