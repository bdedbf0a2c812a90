"""`POST /search`: ranked matches, filters, stored searches."""

import json
from dataclasses import replace
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.database import Database, database_url_of
from app.index.faiss_index import FaissIndex
from app.index.port import IndexResult
from app.kit.times import now_microseconds
from app.search.tables import Search
from app.settings import Settings
from model.architecture import PARTS
from tests.app.conftest import on_sqlite
from tests.app.running import embed, found, jpeg, search, stored


def fill(client: httpx.Client) -> dict[str, str]:
    """Store crops of three cameras; the letter of a name is the camera, the number the picture."""
    times = {"a": "2026-05-04T08:00:00Z", "b": "2026-05-04T09:00:00Z", "c": "2026-05-04T10:00:00Z"}
    crops = {}
    for camera, captured_at in times.items():
        for seed in (1, 2, 3):
            (crop,) = stored(
                client, seed, camera=camera, captured_at=captured_at, person_id=f"p{seed}", track_id=f"{camera}{seed}"
            )
            crops[f"{camera}{seed}"] = crop["id"]
    return crops


@pytest.fixture
def gallery(client: httpx.Client) -> dict[str, str]:
    """The ids of crops by name, in a service of the test's own."""
    return fill(client)


@pytest.fixture(scope="module")
def shared_gallery(shared_client: httpx.Client) -> dict[str, str]:
    """The ids of crops by name, for tests that change nothing."""
    return fill(shared_client)


def test_matches_are_ranked_with_similarity_whole_and_by_part(
    shared_client: httpx.Client, shared_gallery: dict[str, str]
) -> None:
    answer = search(shared_client, jpeg(2)).json()
    matches = answer["matches"]
    assert [match["rank"] for match in matches] == list(range(1, 10))
    assert {match["crop"]["id"] for match in matches[:3]} == {
        shared_gallery["a2"],
        shared_gallery["b2"],
        shared_gallery["c2"],
    }
    similarities = [match["similarity"] for match in matches]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[0] == pytest.approx(1, abs=1e-3)
    for match in matches:
        assert list(match["parts"]) == list(PARTS)
        assert sum(match["parts"].values()) / 8 == pytest.approx(match["similarity"], abs=1e-5)
    assert (answer["gallery_size"], answer["compared"]) == (9, 9)
    assert shared_client.get(matches[0]["crop"]["image_url"]).content == jpeg(2)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"camera_ids": ["b"]}, {"b1", "b2", "b3"}),
        ({"camera_ids": ["a", "b"]}, {"a1", "a2", "a3", "b1", "b2", "b3"}),
        ({"exclude_camera_ids": ["a", "b"]}, {"c1", "c2", "c3"}),
        ({"captured_from": "2026-05-04T09:00:00Z"}, {"b1", "b2", "b3", "c1", "c2", "c3"}),
        ({"captured_to": "2026-05-04T09:00:00Z"}, {"a1", "a2", "a3"}),
        (
            {"captured_from": "2026-05-04T10:30:00+02:00", "captured_to": "2026-05-04T11:30:00+02:00"},
            {"b1", "b2", "b3"},
        ),
        ({"person_id": "p2"}, {"a2", "b2", "c2"}),
        ({"person_id": "nobody"}, set()),
        ({"track_id": "c3"}, {"c3"}),
        ({"person_id": "p2", "exclude_camera_ids": ["a"]}, {"b2", "c2"}),
        ({"min_similarity": 0.99}, {"a2", "b2", "c2"}),
    ],
)
def test_filters_hold_in_searches_and_in_lists(
    shared_client: httpx.Client, shared_gallery: dict[str, str], filters: dict[str, Any], expected: set[str]
) -> None:
    answer = search(shared_client, jpeg(2), **filters).json()
    ids = {shared_gallery[name] for name in expected}
    assert {match["crop"]["id"] for match in answer["matches"]} == ids
    for name in filters:
        assert answer["filters"][name] is not None
    if "min_similarity" in filters:
        return
    assert answer["compared"] == len(expected)
    listed = shared_client.get("/crops", params=filters).json()["items"]
    assert {crop["id"] for crop in listed} == ids


def test_matches_are_ranked_by_stored_embeddings_and_not_in_the_order_of_the_index(
    shared_client: httpx.Client, shared_gallery: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked = search(shared_client, jpeg(2)).json()["matches"]
    search_exactly = FaissIndex.search

    def search_roughly(self: FaissIndex, *asked: Any) -> list[IndexResult]:
        """Like an index that compresses embeddings."""
        (found,) = search_exactly(self, *asked)
        rough = (0.5 + (found.keys * 7) % 5 / 100).astype(np.float32)
        order = np.argsort(-rough)
        return [replace(found, keys=found.keys[order], similarities=rough[order])]

    monkeypatch.setattr(FaissIndex, "search", search_roughly)
    assert search(shared_client, jpeg(2)).json()["matches"] == ranked


def test_ties_are_ranked_in_the_order_of_storing(client: httpx.Client) -> None:
    cameras = [f"c{9 - number}" for number in range(6)]
    crops = [stored(client, 1, camera=camera)[0]["id"] for camera in cameras]
    assert found(client, 1) == crops


@pytest.mark.parametrize(
    "named", [{}, {"upper_half": 2, "lower_half": 0}, dict.fromkeys(PARTS[1:], 0), {"global": 0.25}]
)
def test_weighted_parts_rank_as_brute_force(
    shared_client: httpx.Client, shared_gallery: dict[str, str], named: dict[str, float]
) -> None:
    answer = search(shared_client, jpeg(7), part_weights=json.dumps(named)).json()
    query, *crops = (
        np.array(list(item["embedding"]["parts"].values()))
        for item in embed(shared_client, *(jpeg(seed) for seed in (7, 1, 2, 3)), store="false", include="parts").json()[
            "items"
        ]
    )
    weights = [named.get(part, 1) for part in PARTS]
    truth = {
        f"p{seed}": float(np.average(8 * (query * crop).sum(axis=1), weights=weights))
        for seed, crop in enumerate(crops, start=1)
    }
    assert len(answer["matches"]) == 9
    for match in answer["matches"]:
        assert match["similarity"] == pytest.approx(truth[match["crop"]["person_id"]], abs=2e-3)
        assert match["similarity"] == pytest.approx(
            np.average(list(match["parts"].values()), weights=weights), abs=2e-6
        )
    assert [match["similarity"] for match in answer["matches"]] == sorted(
        (match["similarity"] for match in answer["matches"]), reverse=True
    )
    cut = answer["matches"][3]["similarity"] - 1e-5
    kept = search(shared_client, jpeg(7), part_weights=json.dumps(named), min_similarity=cut).json()["matches"]
    assert {match["crop"]["id"] for match in kept} == {
        match["crop"]["id"] for match in answer["matches"] if match["similarity"] >= cut
    }


def test_weights_are_stored_with_the_search_and_do_not_change_the_cosines(
    shared_client: httpx.Client, shared_gallery: dict[str, str]
) -> None:
    named = {"global": 3, "bottom_third": 0}
    weighed = search(shared_client, jpeg(7), part_weights=json.dumps(named)).json()
    plain = search(shared_client, jpeg(7)).json()
    assert (weighed["filters"]["part_weights"], plain["filters"]["part_weights"]) == (named, {})
    assert shared_client.get(f"/searches/{weighed['search_id']}").json() == weighed
    parts = {match["crop"]["id"]: match["parts"] for match in plain["matches"]}
    assert {match["crop"]["id"]: match["parts"] for match in weighed["matches"]} == parts
    sheets = [shared_client.get(answer["sheet_url"]).content for answer in (weighed, plain)]
    headers = [np.asarray(Image.open(BytesIO(sheet)).convert("L"))[54:72, 800:] for sheet in sheets]
    assert (headers[0] < 150).sum() > (headers[1] < 150).sum(), "the subtitle tells the weights"


@on_sqlite
@pytest.mark.parametrize(
    ("wrong", "detail"),
    [
        ("2", "must be a JSON object"),
        ("{", "must be a JSON object: EOF"),
        ('{"global": -1}', "0 or more"),
        ('{"global": 1e999}', "finite"),
        ('{"legs": 1}', "there is no part legs"),
        (json.dumps(dict.fromkeys(PARTS, 0)), "all weights are 0"),
    ],
)
def test_invalid_weights_are_an_error(shared_client: httpx.Client, wrong: str, detail: str) -> None:
    answer = search(shared_client, jpeg(1), part_weights=wrong)
    assert (answer.status_code, answer.json()["where"]) == (422, "part_weights")
    assert detail in answer.json()["detail"]


@on_sqlite
@pytest.mark.parametrize("wrong", ['"2"', "true", "null", "[1]"])
def test_a_weight_is_a_number(shared_client: httpx.Client, wrong: str) -> None:
    answer = search(shared_client, jpeg(1), part_weights=f'{{"global": {wrong}}}')
    assert (answer.status_code, answer.json()["where"]) == (422, "part_weights.global")


def test_top_k_bounds_the_matches(shared_client: httpx.Client, shared_gallery: dict[str, str]) -> None:
    assert len(found(shared_client, 1, top_k=2)) == 2
    for wrong in (0, 1001, "many"):
        assert search(shared_client, jpeg(1), top_k=wrong).status_code == 422


def test_an_unknown_camera_in_a_filter_is_an_error_not_an_empty_answer(
    shared_client: httpx.Client, shared_gallery: dict[str, str]
) -> None:
    for name in ("camera_ids", "exclude_camera_ids"):
        for answer in (
            search(shared_client, jpeg(1), **{name: ["a", "typo"]}),
            shared_client.get("/crops", params={name: "typo"}),
        ):
            assert answer.status_code == 422
            assert answer.json()["type"] == "urn:passerby:problem:unknown-camera"
            assert "typo" in answer.json()["detail"]


def test_several_pictures_of_one_person_make_one_query(
    shared_client: httpx.Client, shared_gallery: dict[str, str]
) -> None:
    both = search(shared_client, jpeg(1), jpeg(3)).json()["matches"]
    assert {match["crop"]["person_id"] for match in both[:6]} == {"p1", "p3"}


def test_crops_of_the_gallery_can_be_the_query_and_are_no_matches(
    shared_client: httpx.Client, shared_gallery: dict[str, str]
) -> None:
    answer = shared_client.post("/search", data={"crop_ids": [shared_gallery["a2"]], "top_k": 2}).json()
    assert [match["crop"]["id"] for match in answer["matches"]] == sorted((shared_gallery["b2"], shared_gallery["c2"]))
    assert answer["query_crop_ids"] == [shared_gallery["a2"]]
    gone = shared_client.post("/search", data={"crop_ids": ["0" * 26]})
    assert gone.status_code == 422
    assert "0" * 26 in gone.json()["detail"]


def test_neither_or_both_kinds_of_query_are_an_error(
    shared_client: httpx.Client, shared_gallery: dict[str, str]
) -> None:
    assert shared_client.post("/search", data={"top_k": "3"}).status_code == 422
    assert search(shared_client, jpeg(1), crop_ids=[shared_gallery["a1"]]).status_code == 422


@on_sqlite
def test_an_unusable_query_picture_is_named(shared_client: httpx.Client) -> None:
    answer = search(shared_client, jpeg(1), b"nothing")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("1.jpg: ")


def test_an_empty_gallery_gives_no_match(client: httpx.Client) -> None:
    answer = search(client, jpeg(1)).json()
    assert (answer["matches"], answer["gallery_size"]) == ([], 0)
    assert client.get(answer["sheet_url"]).headers["content-type"] == "image/jpeg"


def test_a_search_is_stored_and_loses_only_deleted_crops(client: httpx.Client, gallery: dict[str, str]) -> None:
    answer = search(client, jpeg(2), captured_from="2026-05-04T08:30:00Z").json()
    assert client.get(f"/searches/{answer['search_id']}").json() == answer
    first = answer["matches"].pop(0)
    client.delete(f"/crops/{first['crop']['id']}")
    assert client.get(f"/searches/{answer['search_id']}").json() == answer
    assert client.get("/searches/" + "0" * 26).status_code == 404


@pytest.mark.parametrize(
    "filters",
    [
        {"camera_ids": [], "exclude_camera_ids": [], "captured_from": None, "captured_to": None, "top_k": 20},
        {
            "camera_ids": ["a", "gone"],
            "exclude_camera_ids": ["b"],
            "captured_from": "2026-05-04T10:00:00+02:00",
            "captured_to": "2026-05-04T09:00:00Z",
            "person_id": "p1",
            "track_id": None,
            "attributes": {"colour": "red", "lane": 10**30, "seen": {"a": [1.5, None]}},
            "min_similarity": -0.5,
            "top_k": 1000,
            "part_weights": {"global": 0.0, "upper_half": 2.5},
        },
        {"top_k": 5, "of_a_later_version": True},
    ],
)
async def test_a_search_that_an_earlier_version_stored_is_answered_with_its_filters(
    client: httpx.Client, settings: Settings, filters: dict[str, Any]
) -> None:
    database = Database(database_url_of(settings))
    row = Search(
        id="0" * 26, created_at=now_microseconds(), model_id="m", gallery_size=0, compared=0,
        filters=filters, query_crop_ids=[], matches=[],
    )  # fmt: skip
    async with database.write() as session:
        session.add(row)
    await database.close()
    answer = client.get("/searches/" + "0" * 26).json()["filters"]
    known = {name: value for name, value in filters.items() if name != "of_a_later_version"}
    assert {name: answer[name] for name in known} == known
    defaults = {
        "camera_ids": [], "exclude_camera_ids": [], "captured_from": None, "captured_to": None, "person_id": None,
        "track_id": None, "attributes": {}, "min_similarity": None, "part_weights": {},
    }  # fmt: skip
    assert answer == defaults | known
    assert client.get("/searches/" + "0" * 26 + "/sheet.jpg").status_code == 200


def test_the_contact_sheet_is_a_picture_also_after_deletions(client: httpx.Client, gallery: dict[str, str]) -> None:
    answer = search(client, jpeg(2)).json()
    sheet = client.get(answer["sheet_url"])
    assert sheet.headers["content-type"] == "image/jpeg"
    before = Image.open(BytesIO(sheet.content))
    assert before.width > 300
    for crop_id in gallery.values():
        client.delete(f"/crops/{crop_id}")
    after = Image.open(BytesIO(client.get(answer["sheet_url"]).content))
    assert after.height <= before.height


def test_a_client_that_would_rather_have_a_picture_gets_the_sheet(
    shared_client: httpx.Client, shared_gallery: dict[str, str]
) -> None:
    files = [("files", ("1.jpg", jpeg(1)))]
    answer = shared_client.post("/search", files=files, headers={"Accept": "image/jpeg"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert shared_client.get(answer.headers["content-location"]).content == answer.content
    for accept in ("*/*", "application/json", "text/plain", "image/jpeg;q=0.1, */*"):
        assert shared_client.post("/search", files=files, headers={"Accept": accept}).json()["matches"], accept


@on_sqlite
def test_an_error_is_a_problem_also_for_a_client_that_wants_a_picture(shared_client: httpx.Client) -> None:
    answer = shared_client.post("/search", data={"camera_ids": ["nowhere"]}, headers={"Accept": "image/jpeg"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_the_pictures_of_a_query_are_stored_with_the_search_and_not_in_the_gallery(
    client: httpx.Client, settings: Settings
) -> None:
    answers = [search(client, jpeg(seed), jpeg(3)).json() for seed in (1, 2)]
    sheets = [client.get(answer["sheet_url"]).content for answer in answers]
    assert sheets[0] != sheets[1]
    assert not [path for path in (settings.data_dir / "images").rglob("*") if path.is_file()]
    for crop in stored(client, 4, 5):
        client.delete(f"/crops/{crop['id']}")
    assert [client.get(answer["sheet_url"]).content for answer in answers] == sheets


def test_a_query_picture_that_is_a_crop_goes_with_the_last_crop_that_has_it(client: httpx.Client) -> None:
    one, two, other = (search(client, *map(jpeg, seeds)).json()["sheet_url"] for seeds in ((1, 2), (1,), (2,)))
    before = [client.get(sheet).content for sheet in (one, two, other)]
    (crop,), (again,) = stored(client, 1), stored(client, 1, camera="lobby")
    client.delete(f"/crops/{crop['id']}")
    assert [client.get(sheet).content for sheet in (one, two, other)] == before
    client.delete(f"/crops/{again['id']}")
    assert [client.get(sheet).content == content for sheet, content in zip((one, two, other), before, strict=True)] == [
        False,
        False,
        True,
    ]


def test_the_sheet_of_a_search_by_crops_shows_local_times(client: httpx.Client, gallery: dict[str, str]) -> None:
    client.put("/cameras/b", json={"name": "Büro 北", "time_zone": "Asia/Tokyo"})
    answer = client.post("/search", data={"crop_ids": [gallery["a2"]]}).json()
    assert client.get(answer["sheet_url"]).status_code == 200


def test_blank_form_fields_are_ignored(shared_client: httpx.Client, shared_gallery: dict[str, str]) -> None:
    blank = ("crop_ids", "camera_ids", "exclude_camera_ids", "captured_from", "person_id", "min_similarity")
    blank += ("attributes", "part_weights")
    assert len(found(shared_client, 1, **dict.fromkeys(blank, ""))) == 9


@on_sqlite
def test_a_plus_that_a_url_turned_into_a_blank_is_named(shared_client: httpx.Client) -> None:
    for parameter in ("captured_from", "captured_to"):
        answer = shared_client.get(f"/crops?{parameter}=2026-05-04T17:30:00+02:00")
        assert answer.status_code == 422
        assert "in a URL write + as %2B" in answer.text
    assert shared_client.get("/crops?captured_from=2026-05-04T17:30:00%2B02:00").status_code == 200
    assert "write + as %2B" in shared_client.post("/search", data={"captured_to": "2026-05-04T17:30 02"}).text
