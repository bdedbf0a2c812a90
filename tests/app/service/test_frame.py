"""`POST /embed` with a frame and boxes: each box becomes a crop like any other."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.settings import Settings
from tests.app.conftest import on_sqlite
from tests.app.embedding.scripted_engine import ScriptedEngine
from tests.app.factories import encoded, picture
from tests.app.faults import scripted_service
from tests.app.reindexing import other_checkpoint, reindex, wait_for
from tests.app.running import CAPTURED_AT, embed, found, jpeg, search

Run = Callable[[Settings], httpx.Client]

BOXES = [[10, 20, 64, 128], [200.3, 99.6, 70, 130], [100, 50, 64, 160]]


def frame(pillow_format: str = "JPEG") -> bytes:
    """A frame of 480 x 320 pixels."""
    return encoded(picture(1, 320, 480), pillow_format)


def embed_frame(client: httpx.Client, content: bytes | None, boxes: Any = BOXES, **form: Any) -> httpx.Response:
    """Post a frame; `boxes` as JSON unless it is text."""
    field = boxes if isinstance(boxes, str) or boxes is None else json.dumps(boxes)
    data = {"camera_id": "gate", "captured_at": CAPTURED_AT, "boxes": field} | form
    files = {} if content is None else {"frame": ("frame.jpg", content)}
    return client.post("/embed", files=files, data={k: v for k, v in data.items() if v is not None})


def items_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 201, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_each_box_of_a_frame_becomes_a_crop_with_a_picture_of_its_own(client: httpx.Client) -> None:
    items = items_of(embed_frame(client, frame(), track_id="t1"))
    assert [(item["index"], item["filename"], item["status"]) for item in items] == [
        (index, "frame.jpg", "created") for index in range(3)
    ]
    assert [item["box"] for item in items] == [[10, 20, 64, 128], [200, 100, 70, 130], [100, 50, 64, 160]]
    assert len({item["crop"]["id"] for item in items}) == 3
    for item in items:
        assert (item["crop"]["camera_id"], item["crop"]["track_id"]) == ("gate", "t1")
        image = client.get(item["crop"]["image_url"])
        assert image.headers["content-type"] == "image/jpeg"
        with Image.open(BytesIO(image.content)) as kept:
            assert list(kept.size) == item["box"][2:]


def test_a_cut_out_is_found_by_its_picture_and_shown_on_the_sheet(client: httpx.Client) -> None:
    for item in items_of(embed_frame(client, frame())):
        kept = client.get(item["crop"]["image_url"]).content
        answer = search(client, kept).json()
        assert answer["matches"][0]["crop"]["id"] == item["crop"]["id"]
        assert answer["matches"][0]["similarity"] == pytest.approx(1, abs=1e-4), "but for the stored one's float16"
        assert client.get(answer["sheet_url"]).status_code == 200


def test_a_box_is_embedded_as_its_picture_posted_as_a_file(client: httpx.Client) -> None:
    first = items_of(embed_frame(client, frame("PNG"), include="vector"))
    pictures = [client.get(item["crop"]["image_url"]).content for item in first]
    files = items_of(embed(client, *pictures, store="false", include="vector"))
    unstored = items_of(embed_frame(client, frame("PNG"), store="false", include="vector"))
    for one, two, three in zip(first, files, unstored, strict=True):
        vector = pytest.approx(one["embedding"]["vector"], abs=1e-6)
        assert two["embedding"]["vector"] == vector
        assert three["embedding"]["vector"] == vector


def test_a_frame_that_is_posted_again_embeds_nothing(settings: Settings) -> None:
    engine = ScriptedEngine()
    with scripted_service(settings, engine) as client:
        items_of(embed_frame(client, frame()))
        embedded = engine.batches.copy()
        assert [item["status"] for item in items_of(embed_frame(client, frame()))] == ["existing"] * 3
        assert engine.batches == embedded
        moved = items_of(embed_frame(client, frame(), [*BOXES, [11, 20, 64, 128]]))
        assert [item["status"] for item in moved] == ["existing"] * 3 + ["created"]
        assert sum(map(len, engine.batches)) == sum(map(len, embedded)) + 1


def test_a_picture_that_was_cut_out_is_the_same_crop_posted_as_a_file(client: httpx.Client) -> None:
    items = items_of(embed_frame(client, frame()))
    pictures = [client.get(item["crop"]["image_url"]).content for item in items]
    again = items_of(embed(client, *pictures))
    assert [(item["status"], item["crop"], item["box"]) for item in again] == [
        ("existing", item["crop"], None) for item in items
    ]


def test_reindexing_gives_a_box_the_embedding_that_posting_its_frame_gives(
    client: httpx.Client, tmp_path: Path
) -> None:
    items_of(embed_frame(client, frame()))
    reindex(client, other_checkpoint(tmp_path))
    wait_for(client, "other")
    reindexed = items_of(embed_frame(client, frame(), include="vector"))
    posted = items_of(embed_frame(client, frame(), include="vector", store="false"))
    for one, other in zip(reindexed, posted, strict=True):
        assert one["status"] == "existing"
        assert one["embedding"]["vector"] == pytest.approx(other["embedding"]["vector"], abs=1e-4), "but for float16"


def test_posting_a_frame_again_changes_nothing(client: httpx.Client, settings: Settings) -> None:
    first = items_of(embed_frame(client, frame()))
    again = items_of(embed_frame(client, frame()))
    assert [item["status"] for item in again] == ["existing"] * 3
    assert [item["crop"] for item in again] == [item["crop"] for item in first]
    twice = items_of(embed_frame(client, frame(), [[30, 30, 60, 120]] * 2))
    assert [item["status"] for item in twice] == ["created", "existing"]
    assert len(client.get("/crops").json()["items"]) == 4
    assert sum(path.is_file() for path in (settings.data_dir / "images").rglob("*")) == 4


def test_a_bad_box_fails_alone_and_items_keep_their_order(client: httpx.Client) -> None:
    boxes = [[500, 0, 60, 120], BOXES[0], [10, 10, 5, 120], [440, 100, 60, 120]]
    items = items_of(embed_frame(client, frame(), boxes))
    assert [item["status"] for item in items] == ["failed", "created", "failed", "created"]
    kinds = [items[i]["problem"]["type"].rsplit(":", 1)[1] for i in (0, 2)]
    assert kinds == ["picture-outside-frame", "picture-too-small"]
    assert "[500, 0, 60, 120]" in items[0]["problem"]["detail"]
    assert items[3]["box"] == [440, 100, 40, 120]
    assert len(client.get("/crops").json()["items"]) == 2


NO_BOXES = [
    "[NaN, 2, 30, 40]", "[1, 2, Infinity, 40]", "[1, -1e999, 30, 40]", "null", "[1, 2, null, 40]", "[1, 2, 30]",
    "[1, 2, 30, 40, 50]", "[]", '["1", 2, 30, 40]', "[true, 2, 30, 40]", "7", '"box"', "{}", "[[1], 2, 30, 40]",
]  # fmt: skip


@on_sqlite
@pytest.mark.parametrize("bad", NO_BOXES)
def test_a_box_that_is_no_box_fails_alone(shared_client: httpx.Client, bad: str) -> None:
    boxes = f"[{BOXES[0]}, {bad}, {BOXES[2]}]"
    one, two, three = items_of(embed_frame(shared_client, frame(), boxes, store="false"))
    assert (one["box"], two["box"], three["box"]) == (BOXES[0], None, BOXES[2])
    assert (one["status"], three["status"]) == ("embedded", "embedded")
    assert (two["status"], two["problem"]["where"], two["index"]) == ("failed", "boxes[1]", 1)
    assert "four finite numbers" in two["problem"]["detail"]
    without_a_good_one = items_of(embed_frame(shared_client, frame(), f"[null, {bad}]", store="false"))
    assert [item["problem"]["where"] for item in without_a_good_one] == ["boxes[0]", "boxes[1]"]


def test_the_good_boxes_are_stored(client: httpx.Client) -> None:
    for bad in NO_BOXES:
        one, two, three = items_of(embed_frame(client, frame(), f"[{BOXES[0]}, {bad}, {BOXES[2]}]"))
        assert (two["status"], two["problem"]["where"], two["index"]) == ("failed", "boxes[1]", 1)
        stored = {one["crop"]["id"], three["crop"]["id"]}
        without_a_good_one = items_of(embed_frame(client, frame(), f"[null, {bad}]"))
        assert [item["problem"]["where"] for item in without_a_good_one] == ["boxes[0]", "boxes[1]"]
    assert {crop["id"] for crop in client.get("/crops").json()["items"]} == stored


@on_sqlite
def test_a_frame_without_boxes_has_an_answer_without_items(shared_client: httpx.Client) -> None:
    for more in ({}, {"items": "[]"}, {"store": "false"}):
        assert items_of(embed_frame(shared_client, frame(), "[]", **more)) == []
    answer = shared_client.post("/embed", files={"frame": frame()}, data={"boxes": "[]"})
    assert (answer.status_code, answer.json()["items"]) == (201, [])
    assert shared_client.get("/crops").json()["items"] == []


def test_items_hold_for_single_boxes(client: httpx.Client) -> None:
    items = [{"track_id": "t1", "captured_at": "2026-05-04T09:00:00Z"}, {"camera_id": "no slug!"}, {"track_id": "t3"}]
    one, two, three = items_of(embed_frame(client, frame(), items=json.dumps(items)))
    assert (one["crop"]["track_id"], one["crop"]["captured_at"]) == ("t1", "2026-05-04T09:00:00Z")
    assert (two["status"], two["problem"]["where"]) == ("failed", "items[1]")
    assert (three["crop"]["track_id"], three["box"]) == ("t3", BOXES[2])


def test_store_false_keeps_nothing_of_a_frame(client: httpx.Client, settings: Settings) -> None:
    data = {"store": "false", "include": "vector", "boxes": json.dumps(BOXES)}
    items = items_of(client.post("/embed", files={"frame": frame()}, data=data))
    assert [(item["status"], len(item["embedding"]["vector"])) for item in items] == [("embedded", 2048)] * 3
    assert items[0]["box"] == BOXES[0]
    assert client.get("/crops").json()["items"] == []
    assert not [path for path in (settings.data_dir / "images").rglob("*") if path.is_file()]


@on_sqlite
@pytest.mark.parametrize(
    ("boxes", "where"),
    [
        (None, "boxes"),
        ("[1, 2, 30, 40]", "boxes"),
        ("{}", "boxes"),
        ("null", "boxes"),
        ("10,20,64,128", "boxes"),
        ([[0, 0, 60, 120]] * 257, "boxes"),
    ],
)
def test_boxes_that_cannot_be_understood_say_so(shared_client: httpx.Client, boxes: Any, where: str) -> None:
    answer = embed_frame(shared_client, frame(), boxes)
    assert (answer.status_code, answer.json()["where"]) == (422, where)
    assert shared_client.get("/crops").json()["items"] == []


def test_exactly_one_of_files_and_a_frame_with_boxes_is_given(client: httpx.Client) -> None:
    data = {"camera_id": "gate", "captured_at": CAPTURED_AT}
    crop, whole, boxes = ("files", ("a.jpg", jpeg(1))), ("frame", ("f.jpg", frame())), {"boxes": json.dumps(BOXES)}
    blank = ("frame", ("", b""))
    for files, more, where in (
        ([], {}, "files"),
        ([blank], {"boxes": ""}, "files"),
        ([crop, whole], boxes, "files"),
        ([crop, whole], {}, "files"),
        ([crop], boxes, "files"),
        ([whole], {}, "boxes"),
        ([whole], {"boxes": ""}, "boxes"),
        ([], boxes, "frame"),
        ([blank], boxes, "frame"),
    ):
        answer = client.post("/embed", files=files, data=data | more)
        assert (answer.status_code, answer.json()["where"]) == (422, where), (files, more)
    items = items_of(client.post("/embed", files=[crop, blank], data=data | {"boxes": ""}))
    assert [item["status"] for item in items] == ["created"]
    assert items[0]["box"] is None
    assert found(client, 1) == [items[0]["crop"]["id"]]


@on_sqlite
def test_a_frame_that_cannot_be_used_is_an_error_of_the_request(shared_client: httpx.Client) -> None:
    for content, kind in ((b"no picture", "picture-not-a-picture"), (frame()[:-300], "picture-damaged")):
        answer = embed_frame(shared_client, content)
        assert answer.status_code == 422
        assert answer.json()["type"].endswith(kind)
    assert shared_client.get("/cameras").json() == []


def test_the_pixels_of_a_frame_and_of_its_boxes_are_bounded(run: Run, settings: Settings) -> None:
    client = run(settings.model_copy(update={"max_pixels": 320 * 480}))
    assert items_of(embed_frame(client, frame(), [[0, 0, 480, 320]]))[0]["status"] == "created"
    for content, boxes in ((encoded(picture(1, 321, 480)), BOXES), (frame(), [[0, 0, 480, 200]] * 2)):
        answer = embed_frame(client, content, boxes)
        assert answer.status_code == 422
        assert answer.json()["type"].endswith("picture-too-many-pixels")
