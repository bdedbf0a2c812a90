"""Corrected labels, by `PATCH /crops` and by posting crops again: every filter follows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.app.running import embed, found, jpeg, running_service, stored

Run = Callable[[Settings], httpx.Client]


def patch(client: httpx.Client, body: dict[str, Any], **selection: Any) -> dict[str, Any]:
    answer = client.patch("/crops", params=selection, json=body)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def listed(client: httpx.Client, **filters: Any) -> set[str]:
    return {crop["id"] for crop in client.get("/crops", params={"limit": 1000, **filters}).json()["items"]}


def test_a_field_that_is_left_out_stays_and_null_clears_it(client: httpx.Client) -> None:
    (crop,) = stored(client, 1, person_id="anna", track_id="t1", attributes='{"lane": 1}')
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"person_id": "bert"}, {"person_id": "bert"}),
        ({"track_id": None, "attributes": {"lane": 2}}, {"track_id": None, "attributes": {"lane": 2}}),
        ({"attributes": None}, {"attributes": {}}),
        ({}, {}),
    ]
    for body, expected in changes:
        answer = client.patch(f"/crops/{crop['id']}", json=body)
        assert answer.status_code == 200, answer.text
        crop |= expected
        assert answer.json() == crop == client.get(f"/crops/{crop['id']}").json()


@pytest.mark.parametrize(
    ("body", "old", "new"),
    [
        ({"person_id": "bert"}, {"person_id": "anna"}, {"person_id": "bert"}),
        ({"track_id": "t2"}, {"track_id": "t1"}, {"track_id": "t2"}),
        ({"attributes": {"lane": 2}}, {"attributes": '{"lane": 1}'}, {"attributes": '{"lane": 2}'}),
    ],
)
def test_filters_see_the_new_label_and_not_the_old_at_once(
    client: httpx.Client, body: dict[str, Any], old: dict[str, str], new: dict[str, str]
) -> None:
    one, two = stored(client, 1, 2, person_id="anna", track_id="t1", attributes='{"lane": 1}')
    client.patch(f"/crops/{one['id']}", json=body)
    assert found(client, 1, **new) == [one["id"]]
    assert found(client, 1, **old) == [two["id"]]
    assert (listed(client, **new), listed(client, **old)) == ({one["id"]}, {two["id"]})


def test_labels_are_changed_in_a_segment_and_after_a_restart(run: Run, settings: Settings) -> None:
    settings = settings.model_copy(update={"index_exact_limit": 0})
    with running_service(settings) as client:
        crops = stored(client, *range(30), person_id="anna")
    with running_service(settings) as client:
        client.patch(f"/crops/{crops[7]['id']}", json={"person_id": "bert"})
        assert found(client, 7, person_id="bert") == [crops[7]["id"]]
        assert crops[7]["id"] not in found(client, 7, person_id="anna", top_k=100)
    client = run(settings)
    assert found(client, 7, person_id="bert") == [crops[7]["id"]]


def test_crops_that_pass_the_filters_are_changed_and_counted(client: httpx.Client) -> None:
    anna = [crop["id"] for crop in stored(client, 1, 2, person_id="anna")]
    bert = [crop["id"] for crop in stored(client, 3, person_id="bert")]
    lobby = [crop["id"] for crop in stored(client, 4, person_id="anna", camera="lobby")]
    counted = {"matched": 3, "changed": 2, "dry_run": True}
    chosen = {"crop_ids": [*anna, *bert]}
    assert patch(client, {"person_id": "bert"}, dry_run=True, **chosen) == counted
    assert listed(client, person_id="bert") == set(bert)
    assert patch(client, {"person_id": "bert"}, **chosen) == counted | {"dry_run": False}
    assert patch(client, {"person_id": "bert"}, **chosen) == counted | {"dry_run": False, "changed": 0}
    assert listed(client, person_id="anna") == set(lobby)
    assert set(found(client, 1, person_id="bert")) == {*anna, *bert}
    assert patch(client, {"person_id": None}, camera_ids="gate", person_id="bert")["changed"] == 3
    assert listed(client, person_id="bert") == set()
    assert patch(client, {"track_id": "t"}, crop_ids="0" * 26)["matched"] == 0


def test_more_crops_than_one_transaction_takes_are_changed_where_the_filter_is_changed_itself(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.gallery.service.CROPS_A_TRANSACTION", 7)
    stored(client, *range(40), person_id="anna")
    assert patch(client, {"person_id": "bert"}, person_id="anna") == {"matched": 40, "changed": 40, "dry_run": False}
    assert len(listed(client, person_id="bert")) == 40
    assert listed(client, person_id="anna") == set()


@pytest.mark.parametrize("selection", [{}, {"dry_run": "true"}, {"person_id": ""}, {"crop_ids": ""}])
def test_a_change_needs_a_filter(client: httpx.Client, selection: dict[str, str]) -> None:
    (crop,) = stored(client, 1, person_id="anna")
    answer = client.patch("/crops", params=selection, json={"person_id": "bert"})
    assert answer.status_code == 422
    assert client.get(f"/crops/{crop['id']}").json() == crop


def test_a_blank_filter_next_to_another_one_is_an_error(client: httpx.Client) -> None:
    stored(client, 1, person_id="anna")
    for name in ("camera_ids", "exclude_camera_ids", "crop_ids", "track_id"):
        answer = client.patch("/crops", params={"person_id": "anna", name: ""}, json={"person_id": "bert"})
        assert (answer.status_code, name in answer.json()["detail"]) == (422, True)
    assert len(listed(client, person_id="anna")) == 1


@pytest.mark.parametrize(
    "body",
    [{"person": "bert"}, {"camera_id": "lobby"}, {"person_id": ""}, {"person_id": 7}, {"attributes": [1]}, [], "x"],
)
def test_a_change_that_cannot_be_understood_changes_nothing(client: httpx.Client, body: Any) -> None:
    (crop,) = stored(client, 1, person_id="anna")
    for path in (f"/crops/{crop['id']}", "/crops?person_id=anna"):
        assert client.patch(path, json=body).status_code == 422
    assert client.get(f"/crops/{crop['id']}").json() == crop


def test_what_does_not_exist_is_an_error(client: httpx.Client) -> None:
    stored(client, 1)
    assert client.patch(f"/crops/{'0' * 26}", json={"person_id": "bert"}).status_code == 404
    answer = client.patch("/crops", params={"camera_ids": "nowhere"}, json={"person_id": "bert"})
    assert answer.json()["type"] == "urn:passerby:problem:unknown-camera"


def test_no_service_on_the_database_finds_a_crop_by_its_old_label(run: Run, settings: Settings, tmp_path: Path) -> None:
    """The other service polls rarely: where its index is behind, the rows of the database decide."""
    shared = {"images_url": (tmp_path / "images").as_uri()}
    one = run(settings.model_copy(update={"data_dir": tmp_path / "a", **shared}))
    two = run(settings.model_copy(update={"data_dir": tmp_path / "b", "index_poll_seconds": 3600.0, **shared}))
    first, second = stored(one, 1, 2, person_id="anna")
    assert found(two, 1, person_id="anna", consistency="session") == [first["id"], second["id"]]
    one.patch(f"/crops/{first['id']}", json={"person_id": "bert"})
    assert found(two, 1, person_id="anna") == [second["id"]]
    assert found(two, 1, person_id="bert", consistency="session") == [first["id"]]


# posting crops again


def post(client: httpx.Client, *seeds: int, **form: Any) -> list[dict[str, Any]]:
    answer = embed(client, *map(jpeg, seeds), **form)
    assert answer.status_code == 201, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_the_answer_of_an_existing_crop_says_which_posted_labels_differ(client: httpx.Client) -> None:
    before = stored(client, 1, 2, person_id="anna", attributes='{"lane": 1}')
    for form, differs in (
        ({"person_id": "bert", "track_id": "t", "attributes": '{"lane": 2}'}, ["person_id", "track_id", "attributes"]),
        ({"person_id": "anna", "attributes": '{"lane": 1.0}'}, []),
        ({"attributes": "{}"}, ["attributes"]),
        ({}, []),
    ):
        items = post(client, 1, 2, **form)
        assert [(item["status"], item["differs"]) for item in items] == [("existing", differs)] * 2
        assert [item["crop"] for item in items] == before


def test_update_changes_the_labels_that_are_posted_and_differ(client: httpx.Client) -> None:
    stored(client, 1, 2, person_id="anna", track_id="t1", attributes='{"lane": 1}')
    items = [{"person_id": "bert"}, {"person_id": "anna"}, {"person_id": "carl", "attributes": {"lane": 3}}]
    one, two, three = post(client, 1, 2, 3, items=json.dumps(items), update="true")
    assert [(item["status"], item["differs"]) for item in (one, two, three)] == [
        ("updated", ["person_id"]),
        ("existing", []),
        ("created", []),
    ]
    assert (one["crop"]["person_id"], one["crop"]["track_id"]) == ("bert", "t1")
    assert one["crop"]["attributes"] == {"lane": 1}
    assert client.get(f"/crops/{one['crop']['id']}").json() == one["crop"]
    assert found(client, 1, person_id="bert") == [one["crop"]["id"]]
    assert found(client, 1, person_id="anna") == [two["crop"]["id"]]
    assert post(client, 1, person_id="bert", update="true")[0]["status"] == "existing"


def test_of_a_crop_that_is_posted_several_times_at_once_the_last_labels_hold(client: httpx.Client) -> None:
    items = [{"person_id": "anna"}, {"person_id": "bert"}, {"track_id": "t"}, {"person_id": "anna"}]
    outcomes = post(client, 1, 1, 1, 1, items=json.dumps(items), update="true")
    assert [item["status"] for item in outcomes] == ["created", "updated", "updated", "updated"]
    crop = client.get(f"/crops/{outcomes[0]['crop']['id']}").json()
    assert (crop["person_id"], crop["track_id"]) == ("anna", "t")
    assert all(item["crop"] == crop for item in outcomes)
