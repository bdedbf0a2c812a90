"""A gallery of an earlier version is embedded again automatically; the service is red until it can be searched."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.models.rollout import CROPS_AT_ONCE, LAST_CROPS
from app.settings import Settings
from model.checkpoint import SUPERSEDED
from tests.app.old_galleries import (
    FIRST,
    LAST,
    OLD_MODEL,
    add_old_search,
    delete_crop_as_before,
    embedded_crops,
    forget_embeddings,
    lose_pictures,
    picture_path,
    unread,
    write_old_gallery,
)
from tests.app.reindexing import other_checkpoint, progress, reindex, wait_until_blocked
from tests.app.running import embed, found, jpeg, running_service, search, stored
from tests.app.serving import ServiceProcess
from tests.app.tiny_checkpoint import tiny_metadata, write_tiny_checkpoint
from tests.app.waiting import until

Run = Callable[[Settings], httpx.Client]
TINY = "tiny-0123456789ab"
SUPERSEDED_MODEL = "mgn-mobilenet_v2-faf777c51541"

CROPS = CROPS_AT_ONCE + LAST_CROPS + 1
"""Enough that a first batch is embedded while the last crop cannot be read, and that the last batch is not reached."""

both_versions = pytest.mark.parametrize("tables", [pytest.param(FIRST, marks=pytest.mark.slow), LAST])


def health(client: httpx.Client) -> tuple[int, dict[str, Any]]:
    answer = client.get("/health/ready")
    return answer.status_code, answer.json()


def wait_until_ready(client: httpx.Client) -> list[tuple[int, dict[str, Any]]]:
    """All responses of readiness until it is green and there is no next model."""
    seen = [health(client)]

    def done() -> bool:
        answer = progress(client)
        seen.append(health(client))
        status, body = seen[-1]
        return answer["state"] == "idle" and status == 200 and body["model_id"] == answer["active_model_id"]

    until(done, 120)
    return seen


@contextmanager
def killed(service: ServiceProcess) -> Iterator[ServiceProcess]:
    """A service that is killed at the end of the block."""
    try:
        yield service
    finally:
        service.kill()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """The log entries of services in the test's process."""
    caplog.set_level("INFO")
    return lambda: [record.msg for record in caplog.records if isinstance(record.msg, dict)]


@both_versions
def test_an_old_gallery_is_embedded_again_and_the_progress_is_reported(
    run: Run, settings: Settings, tables: str, log: Callable[[], list[dict[str, Any]]]
) -> None:
    ids = write_old_gallery(settings, tables, range(CROPS))
    with unread(settings, CROPS - 1):
        client = run(settings)
        assert (health(client)[0], search(client, jpeg(1)).status_code) == (503, 503)
        until(lambda: progress(client)["embedded"] == CROPS_AT_ONCE, 60)
        during = progress(client)
        assert (during["state"], during["next_model_id"], during["total"]) == ("embedding", TINY, CROPS)
        until(lambda: health(client)[1]["embedded"] == CROPS_AT_ONCE)
        refused = search(client, jpeg(1))
        assert (health(client), refused.status_code) == ((503, refused.json()), 503)
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert int(refused.headers["Retry-After"]) > 0
        body = refused.json()
        assert (body["type"], body["model_id"]) == ("urn:passerby:problem:not-ready", TINY)
        assert (body["embedded"], body["total"]) == (CROPS_AT_ONCE, CROPS)
        assert f"{TINY} becomes active once it has embedded all crops, and has embedded 32 of 41" in body["detail"]
    seen = wait_until_ready(client)
    for status, body in seen:
        assert (body["gallery_size"] if status == 200 else body["total"]) == CROPS
    assert seen[-1][1]["model_id"] == TINY
    assert set(found(client, 0, top_k=1000)) == set(ids)
    assert [found(client, seed, top_k=1) for seed in (0, 17, 39)] == [[ids[0]], [ids[17]], [ids[39]]]
    after = progress(client)
    assert (after["state"], after["active_model_id"], after["embedded"]) == ("idle", TINY, CROPS)
    (warning,) = [
        entry for entry in log() if entry["event"] == "the stored pictures are embedded again, in the background"
    ]
    assert (warning["level"], warning["model_id"], warning["embedded"], warning["total"]) == ("warning", TINY, 0, CROPS)
    assert any(entry["event"] == "crops are being embedded" and entry["total"] == CROPS for entry in log())
    assert any(entry["event"] == "all crops are embedded" for entry in log())


@pytest.mark.slow
@both_versions
def test_a_killed_upgrade_resumes_and_embeds_nothing_twice(settings: Settings, tables: str) -> None:
    ids = write_old_gallery(settings, tables, range(CROPS))
    with unread(settings, CROPS - 1), killed(ServiceProcess(settings)) as service:
        service.wait_until_alive()
        until(lambda: progress(service.client)["embedded"] == CROPS_AT_ONCE, 60)
        assert health(service.client)[0] == 503
    assert len(embedded_crops(settings, TINY)) == CROPS_AT_ONCE
    with killed(ServiceProcess(settings)) as service:
        service.wait_until_alive()
        assert progress(service.client)["embedded"] >= CROPS_AT_ONCE
        seen = wait_until_ready(service.client)
        assert {body["gallery_size"] for status, body in seen if status == 200} == {CROPS}
        assert embedded_crops(settings, TINY) == list(range(1, CROPS + 1))
        assert set(found(service.client, 0, top_k=1000)) == set(ids)
        assert found(service.client, 39, top_k=1) == [ids[39]]


def test_crops_stored_during_the_first_upgrade_are_found_after_it(run: Run, settings: Settings) -> None:
    write_old_gallery(settings, FIRST, range(20))
    lost = lose_pictures(settings, range(15))  # they block the upgrade
    with running_service(settings) as client:
        wait_until_blocked(client)
        (crop,) = stored(client, 100)
        assert search(client, jpeg(100)).status_code == 503
    for path, content in lost.items():
        path.write_bytes(content)
    client = run(settings)
    wait_until_ready(client)
    assert found(client, 100, top_k=1) == [crop["id"]]
    assert len(found(client, 100, top_k=1000)) == 21


def test_no_crop_is_stored_while_the_active_model_cannot_be_loaded(run: Run, settings: Settings) -> None:
    write_old_gallery(settings, LAST, range(20))
    lose_pictures(settings, range(15))
    client = run(settings)
    wait_until_blocked(client)
    assert embed(client, jpeg(100)).status_code == 503

    def counts() -> tuple[int, int]:
        body = embed(client, jpeg(100)).json()
        return body["embedded"], body["total"]

    until(lambda: counts() == (5, 20), 60)  # the counts of a refusal are from the last poll


# pictures that cannot be read


@both_versions
def test_many_missing_pictures_block_readiness_with_the_command_to_run(
    run: Run, settings: Settings, tables: str
) -> None:
    write_old_gallery(settings, tables, range(20))
    lose_pictures(settings, range(15))
    client = run(settings)
    wait_until_blocked(client)
    until(lambda: "15 of 20" in health(client)[1]["detail"], 60)
    status, body = health(client)
    assert (status, body["embedded"], body["total"]) == (503, 5, 20)
    assert f"passerby reindex --model {TINY} --allow-missing" in body["detail"]
    refused = search(client, jpeg(16))
    assert refused.status_code == 503
    assert "Retry-After" not in refused.headers, "an operator must act first"
    assert client.post("/reindex", data={"model_id": TINY, "allow_missing": "true"}).status_code == 202
    assert wait_until_ready(client)[-1][1]["gallery_size"] == 5
    assert progress(client)["unreadable"] == 15


@both_versions
def test_restored_pictures_are_embedded_after_a_restart(run: Run, settings: Settings, tables: str) -> None:
    ids = write_old_gallery(settings, tables, range(20))
    lost = lose_pictures(settings, range(15))
    with running_service(settings) as client:
        wait_until_blocked(client)
    with running_service(settings) as client:
        wait_until_blocked(client)  # a restart alone does not unblock it
        assert health(client)[0] == 503
    for path, content in lost.items():
        path.write_bytes(content)
    client = run(settings)
    wait_until_ready(client)
    assert set(found(client, 0, top_k=1000)) == set(ids)


@both_versions
def test_a_small_gallery_without_any_picture_is_not_green_and_empty(run: Run, settings: Settings, tables: str) -> None:
    write_old_gallery(settings, tables, range(3))
    lose_pictures(settings, range(3))
    client = run(settings)
    wait_until_blocked(client)
    assert health(client)[0] == 503


# a model of an earlier version whose checkpoint is stored


def superseded_checkpoint(folder: Path) -> bytes:
    """A checkpoint with the model id of one that shipped with an earlier version."""
    metadata = tiny_metadata(name="mgn-mobilenet_v2").model_copy(update={"sha256": "faf777c51541" + "0" * 52})
    assert metadata.model_id == SUPERSEDED_MODEL
    assert SUPERSEDED_MODEL in SUPERSEDED
    return write_tiny_checkpoint(folder / "superseded.onnx", metadata, seed=3).read_bytes()


def test_a_superseded_model_stays_active_until_the_bundled_one_has_embedded_all_crops(
    run: Run, settings: Settings, tmp_path: Path, log: Callable[[], list[dict[str, Any]]]
) -> None:
    checkpoint = superseded_checkpoint(tmp_path)
    ids = write_old_gallery(settings, LAST, range(CROPS), SUPERSEDED_MODEL, checkpoint)
    with unread(settings, CROPS - 1):
        client = run(settings)
        until(lambda: health(client)[1]["embedded"] == CROPS_AT_ONCE, 60)
        status, body = health(client)
        assert (status, body["model_id"], body["gallery_size"]) == (200, SUPERSEDED_MODEL, CROPS)
        assert (body["next_model_id"], body["total"]) == (TINY, CROPS)
        assert set(found(client, 1, top_k=1000)) == set(ids)
    seen = wait_until_ready(client)
    assert {(status, body["gallery_size"]) for status, body in seen} == {(200, CROPS)}
    assert seen[-1][1]["model_id"] == TINY
    assert found(client, 7, top_k=1) == [ids[7]]
    (warning,) = [
        entry for entry in log() if entry["event"] == "the stored pictures are embedded again, in the background"
    ]
    assert (warning["reason"], warning["total"]) == (f"{SUPERSEDED_MODEL} shipped with an earlier version", CROPS)


def test_a_superseded_model_that_an_operator_switched_back_to_stays_active(settings: Settings, tmp_path: Path) -> None:
    write_old_gallery(settings, LAST, range(3), SUPERSEDED_MODEL, superseded_checkpoint(tmp_path))
    with running_service(settings) as client:
        wait_until_ready(client)
        assert client.post("/reindex", data={"model_id": SUPERSEDED_MODEL}).status_code == 202
        assert wait_until_ready(client)[-1][1]["model_id"] == SUPERSEDED_MODEL
    with running_service(settings) as client:
        assert (progress(client)["state"], health(client)[1]["model_id"]) == ("idle", SUPERSEDED_MODEL)


def test_a_superseded_model_stays_active_where_no_picture_is_left(run: Run, settings: Settings, tmp_path: Path) -> None:
    write_old_gallery(settings, LAST, range(3), SUPERSEDED_MODEL, superseded_checkpoint(tmp_path))
    lose_pictures(settings, range(3))
    client = run(settings)
    wait_until_blocked(client)
    assert (health(client)[0], health(client)[1]["gallery_size"]) == (200, 3)


# crops that lack an embedding of the active model


@pytest.mark.parametrize("kept", [pytest.param(0, marks=pytest.mark.slow), 7])
def test_crops_without_an_embedding_are_embedded_before_the_service_is_ready(
    run: Run, settings: Settings, kept: int
) -> None:
    with running_service(settings) as client:
        crops = stored(client, *range(20))
    forget_embeddings(settings, TINY, kept)
    with unread(settings, 19):
        client = run(settings)
        status, body = health(client)
        assert (status, body["embedded"], body["total"]) == (503, kept, 20)
    seen = wait_until_ready(client)
    assert {body["gallery_size"] for status, body in seen if status == 200} == {20}
    assert [found(client, seed, top_k=1) for seed in range(20)] == [[crop["id"]] for crop in crops]


def test_missing_pictures_that_were_allowed_do_not_block_readiness(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    with running_service(settings) as client:
        stored(client, *range(20))
        lose_pictures(settings, range(15))
        reindex(client, other_checkpoint(tmp_path), allow_missing="true")
        assert wait_until_ready(client)[-1][1]["gallery_size"] == 5
    assert health(run(settings))[0] == 200


# what an operator can do until then


def test_a_lost_checkpoint_runs_again_when_it_is_posted(run: Run, settings: Settings, tmp_path: Path) -> None:
    old = other_checkpoint(tmp_path)
    write_old_gallery(settings, LAST, range(20), "other-0123456789ab")
    lose_pictures(settings, range(15))
    client = run(settings)
    wait_until_blocked(client)
    assert "other-0123456789ab is the active model, but cannot be loaded here" in health(client)[1]["detail"]
    assert reindex(client, old).status_code == 202
    status, body = health(client)
    assert (status, body["model_id"], body["gallery_size"]) == (200, "other-0123456789ab", 20)
    assert len(found(client, 1, top_k=1000)) == 20
    assert client.delete("/reindex").status_code == 204


@pytest.mark.slow
def test_another_model_can_replace_the_next_one(run: Run, settings: Settings, tmp_path: Path) -> None:
    write_old_gallery(settings, FIRST, range(20))
    lost = lose_pictures(settings, range(15))
    client = run(settings)
    wait_until_blocked(client)
    assert client.delete("/reindex").status_code == client.delete(f"/models/{TINY}").status_code == 409
    for path, content in lost.items():
        path.write_bytes(content)
    assert reindex(client, other_checkpoint(tmp_path)).status_code == 202
    assert wait_until_ready(client)[-1][1]["model_id"] == "other-0123456789ab"
    assert len(found(client, 1, top_k=1000)) == 20


def test_the_embeddings_of_an_unregistered_model_can_be_dropped(run: Run, settings: Settings) -> None:
    write_old_gallery(settings, FIRST, range(5))
    client = run(settings)
    wait_until_ready(client)
    assert {model["model_id"] for model in client.get("/models").json()} == {TINY, OLD_MODEL}
    assert client.delete(f"/models/{OLD_MODEL}").status_code == 204
    until(lambda: not progress(client)["dropping"], 60)
    assert [model["model_id"] for model in client.get("/models").json()] == [TINY]
    assert client.delete(f"/models/{OLD_MODEL}").status_code == 404
    assert len(found(client, 1, top_k=1000)) == 5


@pytest.mark.parametrize(("tables", "with_pictures"), [("0004", False), (LAST, True)])
def test_an_old_search_shows_its_query_picture_until_the_crop_is_deleted(
    run: Run, settings: Settings, tables: str, with_pictures: bool
) -> None:
    ids = write_old_gallery(settings, tables, range(2))
    search_id = add_old_search(settings, 0, ids[1], with_pictures)
    client = run(settings)
    wait_until_ready(client)
    sheet = client.get(f"/searches/{search_id}/sheet.jpg")
    assert client.delete(f"/crops/{ids[0]}").status_code == 204
    assert not picture_path(settings, hashlib.sha256(jpeg(0)).hexdigest()).exists()
    assert client.get(f"/searches/{search_id}/sheet.jpg").content != sheet.content
    assert len(client.get(f"/searches/{search_id}").json()["matches"]) == 1
    assert client.delete(f"/searches/{search_id}").status_code == 204
    assert client.get(f"/searches/{search_id}").status_code == 404


def test_a_query_picture_of_the_gallery_goes_with_its_search_if_no_crop_has_it(run: Run, settings: Settings) -> None:
    """As after a deletion of the crop by an earlier version."""
    ids = write_old_gallery(settings, "0004", range(2))
    search_id = add_old_search(settings, 0, ids[1])
    delete_crop_as_before(settings, 1)
    client = run(settings)
    wait_until_ready(client)
    picture = picture_path(settings, hashlib.sha256(jpeg(0)).hexdigest())
    assert picture.exists()
    assert client.delete(f"/searches/{search_id}").status_code == 204
    until(lambda: not picture.exists())
