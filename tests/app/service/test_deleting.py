"""`DELETE /crops` by filter, and `DELETE /cameras/{id}`: counted first, then complete, also where they end early."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.gallery.images import ImageStore
from app.settings import Settings
from tests.app.running import found, jpeg, running_service, search, stored
from tests.app.service.test_gallery import image_files

Run = Callable[[Settings], httpx.Client]


def delete(client: httpx.Client, path: str = "/crops", **selection: Any) -> dict[str, Any]:
    answer = client.delete(path, params=selection)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def outcome(matched: int, deleted: int, dry_run: bool = False) -> dict[str, Any]:
    return {"matched": matched, "deleted": deleted, "dry_run": dry_run}


def ids(client: httpx.Client) -> set[str]:
    return {crop["id"] for crop in client.get("/crops", params={"limit": 1000}).json()["items"]}


def test_crops_that_pass_the_filters_are_counted_and_then_deleted(client: httpx.Client, settings: Settings) -> None:
    anna = [crop["id"] for crop in stored(client, 1, 2, 3, person_id="anna", track_id="t")]
    early = [crop["id"] for crop in stored(client, 4, 5, captured_at="2026-05-01T10:00:00Z")]
    lobby = [crop["id"] for crop in stored(client, 6, 7, camera="lobby", person_id="anna")]
    everyone = {*anna, *early, *lobby}
    for selection, selected in (
        ({"person_id": "anna"}, {*anna, *lobby}),
        ({"person_id": "anna", "camera_ids": ["lobby"]}, set(lobby)),
        ({"track_id": "t"}, set(anna)),
        ({"captured_to": "2026-05-02T00:00:00Z"}, set(early)),
        ({"crop_ids": [anna[0], lobby[1], "0" * 26]}, {anna[0], lobby[1]}),
        ({"crop_ids": [anna[0], lobby[1]], "exclude_camera_ids": "lobby"}, {anna[0]}),
    ):
        assert delete(client, dry_run=True, **selection) == outcome(len(selected), 0, dry_run=True)
        assert ids(client) == everyone
    assert image_files(settings) == 7
    assert delete(client, captured_to="2026-05-02T00:00:00Z") == outcome(2, 2)
    assert delete(client, captured_to="2026-05-02T00:00:00Z") == outcome(0, 0)
    assert set(found(client, 4, top_k=100)) == ids(client) == {*anna, *lobby}
    assert delete(client, crop_ids=[anna[0], lobby[1]]) == outcome(2, 2)
    assert set(found(client, 1, top_k=100)) == ids(client) == {anna[1], anna[2], lobby[0]}
    assert image_files(settings) == 3
    assert delete(client, camera_ids=["gate", "lobby"]) == outcome(3, 3)
    assert (ids(client), image_files(settings)) == (set(), 0)


@pytest.mark.parametrize(
    "selection",
    [{}, {"dry_run": "true"}, {"person_id": ""}, {"crop_ids": ""}, {"person_id": "anna", "crop_ids": ""},
     {"person_id": "anna", "camera_ids": ""}, {"person": "anna"}, {"camera_ids": "nowhere"}],
)  # fmt: skip
def test_a_deletion_that_selects_nothing_or_is_not_understood_deletes_nothing(
    client: httpx.Client, selection: dict[str, str]
) -> None:
    stored(client, 1, 2, person_id="anna")
    answer = client.delete("/crops", params=selection)
    assert answer.status_code == 422
    assert len(ids(client)) == 2


def test_more_crops_than_one_transaction_takes_are_deleted(
    client: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.gallery.service.CROPS_A_TRANSACTION", 7)
    stored(client, *range(40), person_id="anna")
    (other,) = stored(client, 40)
    assert delete(client, person_id="anna") == outcome(40, 40)
    assert (ids(client), found(client, 1, top_k=100), image_files(settings)) == ({other["id"]}, [other["id"]], 1)


def test_a_deletion_that_ends_early_leaves_a_sound_state_and_can_be_completed(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.gallery.service.CROPS_A_TRANSACTION", 10)
    delete_files, calls = ImageStore.delete, []

    async def fail_at_the_second_call(store: ImageStore, hashes: list[str]) -> None:
        calls.append(hashes)
        if len(calls) == 2:
            raise OSError("the disk is gone")
        await delete_files(store, hashes)

    with running_service(settings) as client:
        crops = stored(client, *range(35), person_id="anna")
        monkeypatch.setattr(ImageStore, "delete", fail_at_the_second_call)
        assert client.delete("/crops", params={"person_id": "anna"}).status_code == 500
        monkeypatch.undo()
        left = {crop["id"] for crop in crops[20:]}
        assert ids(client) == set(found(client, 1, top_k=100)) == left
        assert image_files(settings) == 25
        for crop in crops[20:]:
            assert client.get(crop["image_url"]).status_code == 200
    client = run(settings)
    assert image_files(settings) == 15
    assert delete(client, person_id="anna") == outcome(15, 15)
    assert (ids(client), image_files(settings)) == (set(), 0)


def test_a_picture_that_another_crop_has_stays(client: httpx.Client) -> None:
    stored(client, 1, 2, person_id="anna")
    (other,) = stored(client, 1, camera="lobby")
    assert delete(client, person_id="anna") == outcome(2, 2)
    assert client.get(other["image_url"]).content == jpeg(1)


def test_a_camera_is_deleted_with_its_crops(client: httpx.Client, settings: Settings) -> None:
    stored(client, 1, 2, 3)
    (other,) = stored(client, 4, camera="lobby")
    answer = search(client, jpeg(1), camera_ids="gate").json()
    assert delete(client, "/cameras/gate", dry_run=True) == outcome(3, 0, dry_run=True)
    assert client.get("/cameras/gate").json()["crops"] == 3
    assert delete(client, "/cameras/gate") == outcome(3, 3)
    assert [camera["id"] for camera in client.get("/cameras").json()] == ["lobby"]
    assert (ids(client), image_files(settings)) == ({other["id"]}, 1)
    assert client.get(f"/searches/{answer['search_id']}").json()["matches"] == []
    assert client.get(answer["sheet_url"]).status_code == 200
    assert client.delete("/cameras/gate").status_code == 404
    assert client.put("/cameras/hall", json={"name": "Hall"}).status_code == 200
    assert delete(client, "/cameras/hall") == outcome(0, 0)


def test_a_deleted_camera_comes_back_with_its_next_crop(client: httpx.Client) -> None:
    stored(client, 1)
    client.put("/cameras/gate", json={"name": "North gate"})
    delete(client, "/cameras/gate")
    (crop,) = stored(client, 1)
    assert client.get("/cameras/gate").json()["name"] == "gate"
    assert found(client, 1) == [crop["id"]]
