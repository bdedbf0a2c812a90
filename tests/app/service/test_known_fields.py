"""Fields that an endpoint does not have are refused: ignored, they would give an answer to another question."""

import json

import httpx
import pytest

from tests.app.conftest import on_sqlite
from tests.app.running import CAPTURED_AT, embed, jpeg, search

FILES = [("files", ("1.jpg", jpeg(1)))]


def refused(answer: httpx.Response, where: str) -> str:
    """The detail of the answer, which must be the problem of a field."""
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:passerby:problem:invalid-request"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["where"] == where
    detail: str = answer.json()["detail"]
    return detail


@on_sqlite
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("camera_id", "camera_ids"),
        ("topk", "top_k"),
        ("top-k", "top_k"),
        ("exclude_camera_id", "exclude_camera_ids"),
        ("excludeCameraIds", "exclude_camera_ids"),
        ("part_weight", "part_weights"),
        ("min_similarty", "min_similarity"),
        ("files[]", "files"),
    ],
)
def test_a_misspelt_field_of_a_search_is_refused_and_the_right_name_is_given(
    shared_client: httpx.Client, wrong: str, right: str
) -> None:
    detail = refused(search(shared_client, jpeg(1), **{wrong: "5"}), wrong)
    assert detail == f"there is no field {wrong} here: did you mean {right}?"
    blank = search(shared_client, jpeg(1), **{wrong: ""})
    assert blank.status_code == 422, "also where it is blank"


@on_sqlite
def test_a_field_that_is_like_no_other_is_refused_by_name_alone(shared_client: httpx.Client) -> None:
    assert refused(search(shared_client, jpeg(1), weather="rain"), "weather") == "there is no field weather here"


@on_sqlite
def test_a_file_in_an_unknown_part_is_refused(shared_client: httpx.Client) -> None:
    answer = shared_client.post("/search", files=[*FILES, ("file", ("2.jpg", jpeg(2)))])
    assert refused(answer, "file") == "there is no field file here: did you mean files?"
    form = {"camera_id": "gate", "captured_at": CAPTURED_AT}
    refused(shared_client.post("/embed", files=[*FILES, ("image", ("2.jpg", jpeg(2)))], data=form), "image")
    assert shared_client.get("/crops").json()["items"] == []


@on_sqlite
def test_an_unknown_query_parameter_is_refused_by_every_endpoint(shared_client: httpx.Client) -> None:
    paths = shared_client.get("/openapi.json").json()["paths"]
    for path, method in ((path, method) for path, methods in paths.items() for method in methods):
        answer = shared_client.request(method, path.format_map(Names()), params={"limt": "3"})
        hint = ": did you mean limit?" if (path, method) in {("/crops", "get"), ("/searches", "get")} else ""
        assert refused(answer, "limt") == f"there is no query parameter limt here{hint}", (path, method)


class Names(dict[str, str]):
    """A value for every parameter of a path."""

    def __missing__(self, name: str) -> str:
        return "gate" if name == "camera_id" else "0" * 26


@on_sqlite
def test_a_field_in_the_wrong_place_is_refused_and_the_right_place_is_given(shared_client: httpx.Client) -> None:
    answer = shared_client.post("/search", files=FILES, params={"top_k": "1"})
    assert refused(answer, "top_k") == "there is no query parameter top_k here: it is a field of its body"
    as_form = shared_client.request("GET", "/crops", data={"camera_ids": "gate"})
    as_json = shared_client.request("GET", "/crops", json={"camera_ids": ["gate"]})
    for answer in (as_form, as_json):
        assert refused(answer, "camera_ids") == "there is no field camera_ids here: it is a query parameter"


@on_sqlite
def test_an_unknown_field_of_json_is_refused(shared_client: httpx.Client) -> None:
    answer = shared_client.put("/cameras/gate", json={"name": "North gate", "timezone": "Europe/Vienna"})
    assert refused(answer, "timezone") == "there is no field timezone here: did you mean time_zone?"
    assert shared_client.get("/cameras").json() == []


def test_an_unknown_field_of_an_item_fails_that_file_alone(client: httpx.Client) -> None:
    items = [{}, {"person": "p1"}, {"attributes": {"person": "p1"}}]
    answer = embed(client, *(jpeg(seed) for seed in range(3)), items=json.dumps(items)).json()["items"]
    assert [item["status"] for item in answer] == ["created", "failed", "created"]
    detail = answer[1]["problem"]["detail"]
    assert detail == "items[1]: there is no field person: did you mean person_id?"


@on_sqlite
def test_a_body_without_fields_changes_nothing_where_none_is_taken(shared_client: httpx.Client) -> None:
    for kind in ("application/json", "multipart/form-data", "multipart/form-data; boundary=x", "text/plain"):
        for body in (b"{", b"\xff", b"[" * 100_000, b'"text"', b"{}", b""):
            answer = shared_client.request("GET", "/crops", content=body, headers={"content-type": kind})
            assert (answer.status_code, answer.json()["items"]) == (200, []), (kind, body[:9])


@on_sqlite
@pytest.mark.parametrize("name", ["x" * 100_000, "\ud800", "\x00", "", "größe"])
def test_a_hostile_name_is_refused_quickly_with_a_short_answer(shared_client: httpx.Client, name: str) -> None:
    body = json.dumps({"name": "North gate", name: 1})
    answer = shared_client.put("/cameras/gate", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert len(answer.content) < 1_000
