"""Reindexing: the old model stays active until all crops are embedded with the next one."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.app.embedding.scripted_engine import ScriptedEngine, flat
from tests.app.faults import background, busy_with, scripted_service
from tests.app.reindexing import (
    active_model,
    embedding_processes,
    other_checkpoint,
    progress,
    reindex,
    wait_for,
    wait_until_blocked,
)
from tests.app.running import embed, found, jpeg, running_service, search, stored
from tests.app.waiting import until

Run = Callable[[Settings], httpx.Client]


def test_another_model_becomes_active_and_finds_every_crop(client: httpx.Client, tmp_path: Path) -> None:
    crops = stored(client, *range(50))
    (deleted, *kept) = crops
    assert client.delete(f"/crops/{deleted['id']}").status_code == 204
    answer = reindex(client, other_checkpoint(tmp_path))
    assert answer.status_code == 202, answer.text
    assert answer.json()["next_model_id"].startswith("other-")
    wait_for(client, "other")
    state = progress(client)
    assert (state["state"], state["embedded"], state["total"], state["unreadable"]) == ("idle", 49, 49, 0)
    for seed in (1, 20, 49):
        best = search(client, jpeg(seed), top_k=1).json()
        assert best["model_id"].startswith("other-")
        assert best["matches"][0]["crop"]["id"] == kept[seed - 1]["id"]
        assert best["matches"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert deleted["id"] not in found(client, 0, top_k=1000)
    (again,) = embed(client, jpeg(7)).json()["items"]
    assert (again["status"], again["crop"]["id"]) == ("existing", kept[6]["id"])
    assert embed(client, jpeg(100)).json()["model_id"].startswith("other-")


def test_the_database_and_not_the_setting_names_the_active_model(run: Run, settings: Settings, tmp_path: Path) -> None:
    with running_service(settings) as client:
        (crop,) = stored(client, 1)
    other = settings.model_copy(update={"checkpoint": other_checkpoint(tmp_path)})
    with running_service(other) as client:
        assert active_model(client) == "tiny"
        assert found(client, 1) == [crop["id"]]
        reindex(client, other_checkpoint(tmp_path))
        wait_for(client, "other")
    client = run(settings)
    assert active_model(client) == "other"
    assert found(client, 1) == [crop["id"]]


def test_switching_back_embeds_only_crops_that_the_old_model_lacks(client: httpx.Client, tmp_path: Path) -> None:
    crops = stored(client, *range(20))
    old = progress(client)["active_model_id"]
    reindex(client, other_checkpoint(tmp_path))
    wait_for(client, "other")
    (new,) = stored(client, 100)
    assert {model["model_id"].split("-")[0]: model["crops"] for model in client.get("/models").json()} == {
        "other": 21,
        "tiny": 20,
    }
    assert client.post("/reindex", data={"model_id": old}).status_code == 202
    wait_for(client, "tiny")
    assert found(client, 100, top_k=1) == [new["id"]], "the old model embedded the newer crop"
    assert found(client, 3, top_k=1) == [crops[3]["id"]]


def test_an_earlier_search_keeps_its_model_and_similarities(client: httpx.Client, tmp_path: Path) -> None:
    stored(client, *range(5))
    before = search(client, jpeg(9)).json()
    reindex(client, other_checkpoint(tmp_path))
    wait_for(client, "other")
    assert client.get(f"/searches/{before['search_id']}").json() == before
    after = search(client, jpeg(9)).json()
    assert [one["similarity"] for one in after["matches"]] != [one["similarity"] for one in before["matches"]]


def test_query_crops_are_compared_by_the_active_model(client: httpx.Client, tmp_path: Path) -> None:
    crops = stored(client, *range(5))
    reindex(client, other_checkpoint(tmp_path))
    wait_for(client, "other")
    by_crop = client.post("/search", data={"crop_ids": crops[0]["id"]}).json()
    by_picture = search(client, jpeg(0)).json()
    assert by_crop["model_id"] == by_picture["model_id"]
    expected = {one["crop"]["id"]: one["similarity"] for one in by_picture["matches"][1:]}
    assert {one["crop"]["id"]: one["similarity"] for one in by_crop["matches"]} == pytest.approx(expected, abs=1e-3)


def test_a_model_with_another_input_size_becomes_active(client: httpx.Client, tmp_path: Path) -> None:
    crops = stored(client, *range(10))
    reindex(client, other_checkpoint(tmp_path, "large", 384, 128))
    wait_for(client, "large")
    assert client.get("/models").json()[0]["input_size"] == [384, 128]
    assert found(client, 4, top_k=1) == [crops[4]["id"]]


# requests across the switch


def test_a_crop_embedded_before_the_switch_is_embedded_again_after_it(settings: Settings, tmp_path: Path) -> None:
    engine = ScriptedEngine()
    with scripted_service(settings, engine) as client, background() as threads:
        request = busy_with(engine, client, threads)
        reindex(client, other_checkpoint(tmp_path))
        wait_for(client, "other")
        engine.go.set()
        answer = request.result()
        assert answer.status_code == 201
        assert answer.json()["model_id"].startswith("other-")
        (item,) = answer.json()["items"]
        assert item["status"] == "created"
        best = search(client, flat(0)).json()["matches"][0]
        assert (best["crop"]["id"], best["similarity"]) == (item["crop"]["id"], pytest.approx(1, abs=1e-3))
        assert client.get("/models").json()[0]["crops"] == 1
        assert len(client.get("/models").json()) == 1, "the old model has embedded nothing"


def test_a_search_begun_before_the_switch_uses_only_the_old_model(settings: Settings, tmp_path: Path) -> None:
    engine = ScriptedEngine()
    with scripted_service(settings, engine) as client, background() as threads:
        assert embed(client, *map(flat, range(1, 10))).status_code == 201
        before = search(client, flat(9)).json()
        engine.busy.clear()
        engine.go.clear()
        request = threads.submit(search, client, flat(9))
        assert engine.busy.wait(10)
        reindex(client, other_checkpoint(tmp_path))
        wait_for(client, "other")
        engine.go.set()
        answer = request.result().json()
        assert answer["model_id"].startswith("tiny-")
        assert answer["matches"] == before["matches"]


def test_consistent_searches_and_stores_poll_for_the_switch(run: Run, settings: Settings, tmp_path: Path) -> None:
    shared = settings.model_copy(update={"images_url": (tmp_path / "images").as_uri()})
    one = run(shared.model_copy(update={"data_dir": tmp_path / "one"}))
    never = {"index_poll_seconds": 600.0}  # seconds between polls: none happens during the test
    searcher = run(shared.model_copy(update={"data_dir": tmp_path / "two", **never}))
    poster = run(shared.model_copy(update={"data_dir": tmp_path / "three", **never}))
    crops = stored(one, *range(5))
    search(searcher, jpeg(1), consistency="session")
    reindex(one, other_checkpoint(tmp_path))
    wait_for(one, "other")
    (new,) = stored(one, 100)
    assert active_model(searcher) == active_model(poster) == "tiny"
    late = search(searcher, jpeg(1)).json()
    assert late["model_id"].startswith("tiny-")
    assert late["matches"][0]["crop"]["id"] == crops[1]["id"]
    assert found(searcher, 100, top_k=1, consistency="session") == [new["id"]]
    assert active_model(searcher) == "other"
    assert embed(poster, jpeg(200)).json()["model_id"].startswith("other-")
    assert active_model(poster) == "other"


def test_a_service_that_cannot_load_the_active_model_is_red_and_stores_nothing(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    shared = settings.model_copy(update={"images_url": (tmp_path / "images").as_uri()})
    one = run(shared.model_copy(update={"data_dir": tmp_path / "one"}))
    two = run(shared.model_copy(update={"data_dir": tmp_path / "two", "index_poll_seconds": 600.0}))
    stored(one, 1)
    reindex(one, other_checkpoint(tmp_path))
    wait_for(one, "other")
    kept = tmp_path / "images" / "checkpoints" / f"{progress(one)['active_checkpoint']}.onnx"
    content = kept.read_bytes()
    kept.unlink()
    refused = embed(two, jpeg(2))
    assert refused.status_code == 503
    assert "is gone" in refused.json()["detail"]
    ready = two.get("/health/ready")
    assert ready.status_code == 503
    assert "other-0123456789ab is the active model, but cannot be loaded here" in ready.json()["detail"]
    assert len(found(one, 2, top_k=10)) == 1
    kept.write_bytes(content)
    assert embed(two, jpeg(2)).status_code == 201
    assert active_model(two) == "other"
    assert len(found(one, 2, top_k=10, consistency="session")) == 2


# what is refused


def test_the_active_model_is_refused_as_the_next_one(client: httpx.Client, tiny_checkpoint: Path) -> None:
    answer = reindex(client, tiny_checkpoint)
    assert answer.status_code == 409
    assert "is already the active model" in answer.json()["detail"]
    assert progress(client)["state"] == "idle"


@pytest.mark.parametrize("kind", ["cut", pytest.param("no-checkpoint", marks=pytest.mark.slow), "no-suffix", "empty"])
def test_an_invalid_checkpoint_is_refused(client: httpx.Client, tmp_path: Path, kind: str) -> None:
    stored(client, 1)
    content = other_checkpoint(tmp_path).read_bytes()
    name, content = {
        "cut": ("cut.onnx", content[: len(content) // 2]),
        "no-checkpoint": ("photo.safetensors", jpeg(1)),
        "no-suffix": ("weights", content),
        "empty": ("empty.onnx", b""),
    }[kind]
    answer = client.post("/reindex", files={"checkpoint": (name, content)})
    assert answer.status_code == 422, answer.text
    assert "checkpoint" in answer.json()["detail"]
    assert name in answer.json()["detail"]
    assert "arriving" not in answer.json()["detail"], "the message has the name of the posted file"
    assert progress(client)["state"] == "idle"
    assert len(found(client, 1)) == 1


def test_a_checkpoint_that_crashes_its_process_is_refused(client: httpx.Client, tmp_path: Path) -> None:
    stored(client, 1)
    with background() as threads:
        posted = threads.submit(reindex, client, other_checkpoint(tmp_path))
        until(lambda: bool(embedding_processes()), 60)
        (process,) = embedding_processes()
        process.kill()
        answer = posted.result()
    assert answer.status_code == 422, answer.text
    assert "ended" in answer.json()["detail"]
    assert progress(client)["state"] == "idle"
    assert len(found(client, 1)) == 1


@pytest.mark.slow
def test_a_killed_reindex_process_is_started_again(client: httpx.Client, tmp_path: Path) -> None:
    stored(client, *range(20))
    reindex(client, other_checkpoint(tmp_path))
    until(lambda: bool(embedding_processes()), 60)
    (process,) = embedding_processes()
    process.kill()
    wait_for(client, "other", 120)
    assert progress(client)["embedded"] == 20


@pytest.mark.slow
def test_a_second_next_model_is_refused(client: httpx.Client, tmp_path: Path) -> None:
    # Missing pictures block the first reindex.
    lose_pictures(client, stored(client, *range(20)), tmp_path)
    reindex(client, other_checkpoint(tmp_path))
    wait_until_blocked(client)
    answer = reindex(client, other_checkpoint(tmp_path, "third"))
    assert answer.status_code == 409
    assert "other-" in answer.json()["detail"]


def test_unknown_models_are_refused(client: httpx.Client) -> None:
    assert client.post("/reindex", data={"model_id": "nobody"}).status_code == 404
    assert client.post("/reindex").status_code == 422
    assert client.delete("/reindex").status_code == 404


# pictures that cannot be read


def test_a_few_missing_pictures_are_listed_and_do_not_block(client: httpx.Client, tmp_path: Path) -> None:
    crops = stored(client, *range(20))
    lose_pictures(client, crops[:2], tmp_path)
    reindex(client, other_checkpoint(tmp_path))
    wait_for(client, "other")
    state = progress(client)
    assert (state["embedded"], state["total"], state["unreadable"]) == (18, 20, 2)
    assert {one["crop_id"] for one in state["unreadable_crops"]} == {crop["id"] for crop in crops[:2]}
    assert crops[0]["id"] not in found(client, 0)
    (again,) = embed(client, jpeg(0)).json()["items"]
    assert (again["status"], again["crop"]["id"]) == ("existing", crops[0]["id"])
    assert found(client, 0, top_k=1) == [crops[0]["id"]], "a crop that is posted again is found again"
    assert progress(client)["unreadable"] == 1


def test_many_missing_pictures_block_the_switch_until_it_is_allowed(client: httpx.Client, tmp_path: Path) -> None:
    crops = stored(client, *range(20))
    pictures = lose_pictures(client, crops[:15], tmp_path)
    reindex(client, other_checkpoint(tmp_path))
    assert "15 of 20" in wait_until_blocked(client)["trouble"]
    assert active_model(client) == "tiny"
    for path, content in list(pictures.items())[:3]:
        path.write_bytes(content)
    reindex(client, other_checkpoint(tmp_path))  # the three are tried again
    until(lambda: progress(client)["unreadable"] == 12 and progress(client)["embedded"] == 8)
    assert active_model(client) == "tiny"
    assert reindex(client, other_checkpoint(tmp_path), allow_missing="true").status_code == 202
    wait_for(client, "other")
    assert progress(client)["unreadable"] == 12


@pytest.mark.slow
def test_missing_pictures_allowed_while_crops_are_embedded_do_not_block(
    client: httpx.Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crops = stored(client, *range(20))
    lose_pictures(client, crops[:15], tmp_path)
    reindex(client, other_checkpoint(tmp_path))
    until(lambda: len(embedding_processes()) == 1, 60)
    (embedder,) = embedding_processes()
    embedder.suspend()
    assert reindex(client, other_checkpoint(tmp_path), allow_missing="true").status_code == 202
    assert progress(client)["unreadable"] == 0, "the embedder was suspended too late for this test"
    embedder.resume()
    wait_for(client, "other")
    assert "reindexing is blocked" not in caplog.text


# cancelling


@pytest.mark.slow
def test_a_cancelled_reindex_leaves_nothing_behind(client: httpx.Client, settings: Settings, tmp_path: Path) -> None:
    crops = stored(client, *range(40))
    lose_pictures(client, crops[:15], tmp_path)
    reindex(client, other_checkpoint(tmp_path))
    wait_until_blocked(client)
    assert progress(client)["embedded"] > 0
    assert client.delete("/reindex").status_code == 204
    until(lambda: not progress(client)["dropping"])
    state = progress(client)
    assert (state["state"], state["next_model_id"], state["unreadable"]) == ("idle", None, 0)
    assert [model["model_id"].split("-")[0] for model in client.get("/models").json()] == ["tiny"]
    assert found(client, 30, top_k=1) == [crops[30]["id"]]
    assert reindex(client, other_checkpoint(tmp_path), allow_missing="true").status_code == 202
    wait_for(client, "other")
    assert len(found(client, 30, top_k=1000)) == 25, "the index of the cancelled reindex is not used again"


def test_the_embeddings_of_an_inactive_model_can_be_dropped(client: httpx.Client, tmp_path: Path) -> None:
    stored(client, *range(10))
    old = progress(client)["active_model_id"]
    assert client.delete(f"/models/{old}").status_code == 409
    reindex(client, other_checkpoint(tmp_path))
    wait_for(client, "other")
    assert client.delete(f"/models/{old}").status_code == 204
    until(lambda: not progress(client)["dropping"])
    assert len(client.get("/models").json()) == 1
    assert len(list((tmp_path / "data" / "checkpoints").iterdir())) == 1
    assert client.post("/reindex", data={"model_id": old}).status_code == 404


def lose_pictures(client: httpx.Client, crops: list[dict[str, Any]], tmp_path: Path) -> dict[Path, bytes]:
    """Delete the files of crops, as a broken disk does; returns their contents by path."""
    lost = {}
    for crop in crops:
        sha256 = hashlib.sha256(client.get(f"/crops/{crop['id']}/image").content).hexdigest()
        (path,) = (tmp_path / "data" / "images").rglob(sha256)
        lost[path] = path.read_bytes()
        path.unlink()
    return lost
