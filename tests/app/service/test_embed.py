"""`POST /embed`: crops are stored, each with its own outcome."""

import json
import math
from collections.abc import Callable
from itertools import chain

import httpx
import pytest

from app.settings import Settings
from model.architecture import PARTS
from tests.app.factories import encoded, picture
from tests.app.running import CAPTURED_AT, embed, found, jpeg, search, stored

Run = Callable[[Settings], httpx.Client]


def test_crops_are_stored_with_their_metadata(client: httpx.Client) -> None:
    answer = embed(client, jpeg(1), jpeg(2), track_id="t1", person_id="p1", attributes='{"lane": 2}')
    assert answer.status_code == 201
    assert [item["status"] for item in answer.json()["items"]] == ["created", "created"]
    crop = answer.json()["items"][1]["crop"]
    assert crop == client.get(f"/crops/{crop['id']}").json()
    assert (crop["camera_id"], crop["captured_at"]) == ("gate", CAPTURED_AT)
    assert (crop["track_id"], crop["person_id"], crop["attributes"]) == ("t1", "p1", {"lane": 2})
    assert client.get(crop["image_url"]).content == jpeg(2)
    assert client.get(crop["image_url"]).headers["content-type"] == "image/jpeg"


def test_an_acknowledged_crop_is_found_at_once(client: httpx.Client) -> None:
    for seed in range(5):
        (crop,) = stored(client, seed)
        assert found(client, seed)[0] == crop["id"]


def test_a_bad_picture_fails_alone_and_items_keep_their_order(client: httpx.Client) -> None:
    items = embed(client, jpeg(1), b"no picture", jpeg(2), b"", jpeg(3)[:-200]).json()["items"]
    assert [item["index"] for item in items] == [0, 1, 2, 3, 4]
    assert [item["status"] for item in items] == ["created", "failed", "created", "failed", "failed"]
    assert [item["filename"] for item in items] == [f"{i}.jpg" for i in range(5)]
    kinds = [items[i]["problem"]["type"].rsplit(":", 1)[1] for i in (1, 3, 4)]
    assert kinds == ["picture-not-a-picture", "picture-empty", "picture-damaged"]
    assert client.get("/crops").json()["items"].__len__() == 2


def test_the_same_bytes_by_the_same_camera_at_the_same_time_are_the_same_crop(client: httpx.Client) -> None:
    (first,) = stored(client, 1)
    again = embed(client, jpeg(1), captured_at="2026-05-04T15:30:00Z").json()["items"][0]
    assert (again["status"], again["crop"]["id"]) == ("existing", first["id"])
    twice = embed(client, jpeg(2), jpeg(2)).json()["items"]
    assert [item["status"] for item in twice] == ["created", "existing"]
    assert twice[0]["crop"]["id"] == twice[1]["crop"]["id"]
    (elsewhere,) = stored(client, 1, camera="lobby")
    (later,) = stored(client, 1, captured_at="2026-05-04T17:30:01+02:00")
    assert len({first["id"], elsewhere["id"], later["id"]}) == 3


def test_a_guessed_time_makes_no_other_crop_of_the_same_bytes(client: httpx.Client) -> None:
    guess, touched = "2026-05-04T15:30:00Z", "2026-06-04T15:30:00Z"
    (first,) = stored(client, 1, captured_at=guess, time_guessed="true")
    assert first["time_guessed"]
    for form in ({"captured_at": touched, "time_guessed": "true"}, {"captured_at": touched}, {"captured_at": guess}):
        (again,) = embed(client, jpeg(1), **form).json()["items"]
        assert (again["status"], again["crop"]) == ("existing", first), form
    (elsewhere,) = embed(client, jpeg(1), camera="lobby", captured_at=guess, time_guessed="true").json()["items"]
    assert elsewhere["status"] == "created"


def test_an_update_replaces_a_guessed_time_by_a_known_one(client: httpx.Client) -> None:
    guess, known = "2026-06-04T15:30:00Z", "2026-05-04T17:30:00+02:00"
    (first,) = stored(client, 1, captured_at=guess, time_guessed="true")
    (asked,) = embed(client, jpeg(1), captured_at=known).json()["items"]
    assert (asked["status"], asked["differs"], asked["crop"]) == ("existing", ["captured_at"], first)
    (updated,) = embed(client, jpeg(1), captured_at=known, person_id="p1", update="true").json()["items"]
    assert (updated["status"], updated["differs"]) == ("updated", ["person_id", "captured_at"])
    expected = first | {"captured_at": known, "time_guessed": False, "person_id": "p1"}
    assert updated["crop"] == expected
    (match,) = search(client, jpeg(1), captured_to="2026-05-05T00:00:00Z").json()["matches"]
    assert match["crop"] == expected
    assert search(client, jpeg(1), captured_from="2026-06-01T00:00:00Z").json()["matches"] == []
    (again,) = embed(client, jpeg(1), captured_at=guess, time_guessed="true", update="true").json()["items"]
    assert (again["status"], again["differs"], again["crop"]) == ("existing", [], expected)


def test_of_two_known_times_one_replaces_the_guess_and_the_other_is_a_crop_of_its_own(client: httpx.Client) -> None:
    (first,) = stored(client, 1, time_guessed="true")
    times = [f"2026-05-0{day}T12:00:00Z" for day in (1, 2, 3, 2)]
    items = json.dumps([{"captured_at": time} for time in times])
    answer = embed(client, *[jpeg(1)] * 4, items=items, update="true").json()["items"]
    assert [item["status"] for item in answer] == ["updated", "created", "created", "existing"]
    assert [item["crop"]["captured_at"] for item in answer] == times
    assert answer[0]["crop"]["id"] == first["id"]
    assert len({item["crop"]["id"] for item in answer}) == 3


def test_a_guess_finds_a_crop_whose_time_is_known(client: httpx.Client) -> None:
    (first,) = stored(client, 1)
    (later,) = stored(client, 1, captured_at="2026-05-05T17:30:00+02:00")
    assert not first["time_guessed"]
    assert first["id"] != later["id"]
    (again,) = embed(client, jpeg(1), captured_at="2020-01-01T00:00:00Z", time_guessed="true").json()["items"]
    assert (again["status"], again["crop"]["id"]) == ("existing", first["id"])


def test_a_guess_and_the_same_time_as_a_fact_are_one_crop_of_a_request(client: httpx.Client) -> None:
    items = json.dumps([{"time_guessed": True}, {}, {"time_guessed": True, "captured_at": "2026-01-01T00:00:00Z"}])
    answer = embed(client, jpeg(1), jpeg(1), jpeg(1), items=items).json()["items"]
    assert len({item["crop"]["id"] for item in answer}) == 1


def test_the_time_0_is_accepted_in_any_zone(client: httpx.Client) -> None:
    for moment in ("1970-01-01T00:00:00Z", "1969-12-31T16:00:00-08:00", "1970-01-01T12:00:00+12:00"):
        (crop,) = stored(client, 1, camera=f"c{moment[20:22] or 0}", captured_at=moment)
        assert crop["captured_at"] == moment
    assert embed(client, jpeg(1), captured_at="1970-01-01T01:00:00+02:00").status_code == 422


def test_items_override_the_metadata_of_single_files(client: httpx.Client) -> None:
    items = [{"camera_id": "lobby", "person_id": "p9"}, {}, {"captured_at": "2026-05-04T09:00:00Z"}]
    one, two, three = stored(client, 1, 2, 3, person_id="p1", items=json.dumps(items))
    assert (one["camera_id"], one["person_id"], one["captured_at"]) == ("lobby", "p9", CAPTURED_AT)
    assert (two["camera_id"], two["person_id"]) == ("gate", "p1")
    assert three["captured_at"] == "2026-05-04T09:00:00Z"


def test_wrong_metadata_of_a_single_file_fails_that_file_alone(client: httpx.Client) -> None:
    wrong = [
        {"captured_at": "yesterday"},
        {"camera_id": "no slug!"},
        {"colour": "red"},
        {"attributes": {"a": math.nan}},
    ]
    items = [{}, *wrong, None, [], "x", {}]
    answer = embed(client, *(jpeg(i) for i in range(9)), items=json.dumps(items)).json()["items"]
    assert [item["status"] for item in answer] == ["created", *["failed"] * 7, "created"]
    assert answer[1]["problem"]["detail"].startswith("items[1]: captured_at")
    assert [item["problem"]["where"] for item in answer[1:8]] == [f"items[{index}]" for index in range(1, 8)]


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ({"camera": None}, "camera_id"),
        ({"captured_at": None}, "captured_at"),
        ({"captured_at": "2026-05-04T17:30:00"}, "body.captured_at"),
        ({"captured_at": "1777908600"}, "body.captured_at"),
        ({"captured_at": "0001-01-01T00:00:00+14:00"}, "body.captured_at"),
        ({"camera": "../etc"}, "body.camera_id"),
        ({"person_id": "a\x00b"}, "body.person_id"),
        ({"attributes": "[1]"}, "attributes"),
        ({"attributes": '{"a": NaN}'}, "attributes"),
        ({"attributes": json.dumps({"a": "x" * 20_000})}, "attributes"),
        ({"items": "[{}, {}]"}, "items"),
        ({"items": "{}"}, "items"),
        ({"include": "everything"}, "body.include.0"),
    ],
)
def test_a_request_that_cannot_be_understood_says_where(client: httpx.Client, form: dict[str, str], where: str) -> None:
    answer = embed(client, jpeg(1), **form)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["where"] == where
    assert client.get("/crops").json()["items"] == []


def test_store_false_keeps_nothing(client: httpx.Client, settings: Settings) -> None:
    answer = client.post("/embed", files=[("files", ("a.jpg", jpeg(1)))], data={"store": "false", "include": "vector"})
    (item,) = answer.json()["items"]
    assert (item["status"], item["crop"], len(item["embedding"]["vector"])) == ("embedded", None, 2048)
    assert client.get("/crops").json()["items"] == []
    assert not [path for path in (settings.data_dir / "images").rglob("*") if path.is_file()]


def test_embeddings_come_back_whole_and_by_part(client: httpx.Client) -> None:
    fresh = embed(client, jpeg(1), include="embedding").json()["items"][0]["embedding"]
    assert list(fresh["parts"]) == list(PARTS)
    assert list(chain.from_iterable(fresh["parts"].values())) == fresh["vector"]
    assert sum(x * x for x in fresh["vector"]) == pytest.approx(1, abs=1e-4)
    again = embed(client, jpeg(1), include="parts").json()["items"][0]["embedding"]
    assert again["vector"] is None
    assert again["parts"]["global"] == pytest.approx(fresh["parts"]["global"], abs=1e-3)
    assert embed(client, jpeg(1)).json()["items"][0]["embedding"] is None


def test_png_and_webp_are_stored_and_returned_unchanged(client: httpx.Client) -> None:
    png, webp = encoded(picture(1), "PNG"), encoded(picture(2), "WEBP")
    items = embed(client, png, webp).json()["items"]
    for item, content, kind in zip(items, (png, webp), ("image/png", "image/webp"), strict=True):
        image = client.get(item["crop"]["image_url"])
        assert (image.content, image.headers["content-type"]) == (content, kind)


def test_too_many_files_and_too_many_bytes_are_refused_before_any_work(run: Run, settings: Settings) -> None:
    small = settings.model_copy(update={"max_files": 2, "max_request_bytes": 20_000})
    client = run(small)
    too_many = embed(client, jpeg(1), jpeg(2), jpeg(3))
    assert too_many.status_code == 400
    assert "2" in too_many.json()["detail"]
    too_large = embed(client, b"x" * 30_000)
    assert too_large.status_code == 413
    assert too_large.headers["content-type"] == "application/problem+json"
    assert embed(client, jpeg(1), jpeg(2)).status_code == 201


def test_a_huge_header_is_refused_before_decoding(client: httpx.Client) -> None:
    content = bytearray(encoded(picture(1), "PNG"))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    problem = embed(client, bytes(content)).json()["items"][0]["problem"]
    assert problem["type"].endswith(("too-many-pixels", "damaged"))
