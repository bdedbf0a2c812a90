"""The clients against a real service: every operation, pages, retries and errors."""

import asyncio
import subprocess
import sys
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import passerby
from app.settings import Settings
from tests.app.factories import encoded, picture, random_pixels
from tests.app.reindexing import other_checkpoint
from tests.app.running import jpeg, running_service
from tests.app.waiting import until
from tests.passerby.new_crops import NOON, crops


def ids(items: list[passerby.EmbedItem]) -> list[str]:
    assert all(item.crop for item in items), items
    return [item.crop.id for item in items if item.crop]


# the operations


def test_crops_go_in_are_found_and_are_deleted(client: passerby.Client) -> None:
    answer = client.embed(
        [jpeg(1), jpeg(2)], camera_id="gate", captured_at=NOON, person_id="p1", attributes={"lane": 2}
    )
    assert [item.status for item in answer.items] == ["created", "created"]
    first, second = ids(answer.items)
    crop = client.get_crop(first)
    assert (crop.camera_id, crop.captured_at, crop.person_id, crop.attributes) == ("gate", NOON, "p1", {"lane": 2})
    assert client.get_crop_image(first) == jpeg(1)

    found = client.search(jpeg(1), top_k=1, attributes={"lane": 2})
    assert [match.crop.id for match in found.matches] == [first]
    assert client.get_search(found.search_id).matches == found.matches
    assert client.get_sheet(found.search_id).startswith(b"\xff\xd8")
    assert [match.crop.id for match in client.search(crop_ids=[first]).matches] == [second]

    client.delete_crop(first)
    with pytest.raises(passerby.NotFound, match="there is no crop"):
        client.get_crop(first)


def test_every_filter_reaches_the_service(client: passerby.Client) -> None:
    client.upload(crops(4))
    client.embed(jpeg(9), camera_id="lobby", captured_at=NOON, track_id="t1")
    cases: list[tuple[passerby.SearchOptions, int]] = [
        ({"camera_ids": ["lobby"]}, 1),
        ({"exclude_camera_ids": ["lobby"]}, 4),
        ({"captured_from": NOON + timedelta(minutes=2), "captured_to": NOON + timedelta(minutes=3)}, 1),
        ({"person_id": "p3"}, 1),
        ({"track_id": "t1"}, 1),
        ({"attributes": '{"lane": 2}'}, 0),
        ({"min_similarity": 0.9999}, 1),
        ({"top_k": 2}, 2),
        ({"consistency": "session"}, 5),
        ({"part_weights": {"global": 2.0}}, 5),
        ({"captured_from": None, "camera_ids": []}, 5),
    ]
    for filters, count in cases:
        matches = client.search(jpeg(1), **filters).matches
        assert len(matches) == count, filters


def test_a_frame_goes_in_with_its_boxes(client: passerby.Client) -> None:
    frame = random_pixels(1, 240, 320)
    answer = client.embed_frame(frame, [(10, 20, 64, 128), [100.5, 20, 64, 128]], camera_id="gate", captured_at=NOON)
    assert [item.box for item in answer.items] == [(10, 20, 64, 128), (101, 20, 64, 128)]
    assert {item.filename for item in answer.items} == {"0.png"}


def test_items_say_what_differs_between_crops(client: passerby.Client) -> None:
    items = [{"captured_at": NOON}, {"captured_at": NOON + timedelta(hours=1), "person_id": "p2"}]
    answer = client.embed([jpeg(1), jpeg(2)], camera_id="gate", items=items)
    assert [item.crop.person_id for item in answer.items if item.crop] == [None, "p2"]


def test_cameras_are_described_and_listed(client: passerby.Client) -> None:
    client.put_camera("gate", "North gate", time_zone="Europe/Vienna")
    assert client.get_camera("gate").name == "North gate"
    assert [(camera.id, camera.time_zone, camera.crops) for camera in client.list_cameras()] == [
        ("gate", "Europe/Vienna", 0)
    ]


def test_the_service_says_how_it_is(client: passerby.Client) -> None:
    assert client.get_live().status == "alive"
    ready = client.get_ready()
    assert client.wait_until_ready() == ready
    (model,) = client.list_models()
    assert (model.model_id, model.in_use) == (ready.model_id, True)
    assert "passerby_http_request_seconds_count" in client.get_metrics()


def test_models_are_switched(client: passerby.Client, tiny_checkpoint: Path, tmp_path: Path) -> None:
    client.embed(jpeg(1), camera_id="gate", captured_at=NOON)
    old = str(client.get_reindex().active_model_id)
    with pytest.raises(passerby.Conflict, match="is already the active model"):
        client.begin_reindex(tiny_checkpoint)
    with pytest.raises(passerby.NotFound, match="there is no model other"):
        client.begin_reindex(model_id="other", allow_missing=True)
    with pytest.raises(passerby.PasserbyError, match=r"cannot read .*gone.onnx"):
        client.begin_reindex(tmp_path / "gone.onnx")
    new = client.begin_reindex(other_checkpoint(tmp_path)).next_model_id
    until(lambda: client.get_reindex().active_model_id == new, 60)
    with pytest.raises(passerby.Refused, match="no reindex is running"):
        client.cancel_reindex()
    client.delete_model(old)


def test_labels_are_changed_one_by_one_and_by_filter(client: passerby.Client) -> None:
    client.upload(crops(3))
    first = next(client.crops())
    assert client.patch_crop(first.id, track_id="t1").person_id == first.person_id
    assert client.patch_crop(first.id, person_id=None).person_id is None
    counted = client.patch_crops({"attributes": {"lane": 2}}, track_id="t1", dry_run=True)
    assert (counted.matched, counted.changed, counted.dry_run) == (1, 1, True)
    assert client.patch_crops({"attributes": {"lane": 2}}, crop_ids=[first.id]).changed == 1
    assert client.get_crop(first.id).attributes == {"lane": 2}


def test_many_crops_are_deleted_at_once(client: passerby.Client) -> None:
    client.upload(crops(4))
    client.embed(jpeg(9), camera_id="lobby", captured_at=NOON)
    assert client.delete_crops(person_id="p1", dry_run=True).matched == 1
    assert client.delete_crops(person_id="p1").deleted == 1
    empties: list[passerby.CropSelection] = [
        {"crop_ids": []},
        {"camera_ids": ["gate"], "crop_ids": []},
        {"camera_ids": ()},
        {},
    ]
    for empty in empties:
        with pytest.raises(passerby.InvalidRequest):
            client.delete_crops(**empty)
    assert len(list(client.crops())) == 4, "an empty list does not select everything"
    assert client.delete_camera("gate", dry_run=True).matched == 3
    assert client.delete_camera("gate").deleted == 3
    assert [camera.id for camera in client.list_cameras()] == ["lobby"]


def test_searches_are_listed_and_deleted(client: passerby.Client) -> None:
    made = [client.search(jpeg(seed)).search_id for seed in range(3)]
    assert [search.search_id for search in client.searches(page_size=2)] == made[::-1]
    assert len(client.list_searches(limit=2).items) == 2
    client.delete_search(made[0])
    with pytest.raises(passerby.NotFound):
        client.get_search(made[0])


# pages


def test_all_pages_are_one_iterator(client: passerby.Client) -> None:
    client.upload(crops(7))
    assert [crop.person_id for crop in client.crops(page_size=3)] == [f"p{number}" for number in reversed(range(7))]
    assert next(client.crops(page_size=3, person_id="p2")).person_id == "p2"
    page = client.list_crops(limit=5)
    assert page.next_cursor
    assert len(client.list_crops(page.next_cursor).items) == 2


# two kinds of client


async def test_the_asynchronous_client_has_the_same_methods(service: str) -> None:
    async with passerby.AsyncClient(service) as client:
        summary = await client.upload(crops(5))
        assert summary.created == 5
        answers = await asyncio.gather(*(client.search(jpeg(seed), top_k=1) for seed in range(5)))
        assert [answer.matches[0].crop.person_id for answer in answers] == [f"p{seed}" for seed in range(5)]
        assert [crop.person_id async for crop in client.crops(page_size=2)] == ["p4", "p3", "p2", "p1", "p0"]


def test_threads_may_share_a_client(client: passerby.Client) -> None:
    client.upload(crops(8))
    found: dict[int, str | None] = {}

    def search(seed: int) -> None:
        found[seed] = client.search(jpeg(seed), top_k=1).matches[0].crop.person_id

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: f"p{seed}" for seed in range(8)}


def test_a_client_that_is_not_closed_does_not_keep_a_program_alive(service: str) -> None:
    program = f"import passerby; print(passerby.Client({service!r}).get_live().status)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "alive\n", "")


def test_a_client_that_cannot_be_used_says_so(client: passerby.Client) -> None:
    with pytest.raises(RuntimeError, match="its own thread"):
        client.upload(crops(1), lambda _: print(client.get_live()))
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="it is closed"):
        client.get_live()


# errors


def test_an_error_has_what_the_service_said(client: passerby.Client) -> None:
    with pytest.raises(passerby.InvalidRequest) as raised:
        client.search(jpeg(1), camera_ids=["nowhere"])
    error = raised.value
    assert (error.status, error.title) == (422, "A camera is not known")
    assert error.detail == "camera_ids: there is no camera nowhere"
    assert str(error) == f"{client.url} answered 422: {error.detail}"
    assert error.problem is not None
    assert error.problem.type == "urn:passerby:problem:unknown-camera"
    assert isinstance(error, passerby.ServiceError)


def test_a_picture_that_cannot_be_read_is_named_before_anything_is_sent(client: passerby.Client) -> None:
    with pytest.raises(passerby.PictureError, match=r"pictures\[1\] \(gone.jpg\): cannot be read"):
        client.search([jpeg(1), "gone.jpg"])


def test_the_key_is_given_or_that_of_the_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PASSERBY_API_KEY", raising=False)
    with running_service(settings.model_copy(update={"api_key": SecretStr("a-key-of-these-tests")})) as http:
        url = str(http.base_url)
        with passerby.Client(url) as client, pytest.raises(passerby.Unauthorised, match="asks for an API key"):
            client.list_cameras()
        with passerby.Client(url, "wrong") as client, pytest.raises(passerby.Unauthorised, match="refuses the API key"):
            client.list_cameras()
        with passerby.Client(url, "a-key-of-these-tests") as client:
            assert client.list_cameras() == []
        monkeypatch.setenv("PASSERBY_API_KEY", "a-key-of-these-tests")
        with passerby.Client(url) as client:
            assert client.list_cameras() == []


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://[::1"])
def test_an_invalid_url_is_an_error(url: str) -> None:
    with pytest.raises(passerby.ServiceError, match="is no URL of a service"), passerby.Client(url) as client:
        client.get_live()


def test_where_nothing_answers_it_says_so() -> None:
    with (
        passerby.Client("http://127.0.0.1:9") as client,
        pytest.raises(passerby.Unreachable, match="no Passerby answers"),
    ):
        client.get_live()


class Scripted:
    """A server that is no Passerby: it gives the answers of a list, then the last one for ever."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self.requests = 0
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, body = answers[min(scripted.requests, len(answers) - 1)]
                scripted.requests += 1
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Scripted":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


ALIVE = (200, {}, b'{"status": "alive", "since": "of a later version"}')


def test_a_request_to_a_busy_service_is_repeated_when_it_asks() -> None:
    busy = (429, {"Retry-After": "0"}, b"{}")
    restarting = (503, {"Retry-After": "0"}, b"{}")
    with Scripted(busy, restarting, busy, ALIVE) as server, passerby.Client(server.url) as client:
        assert client.get_live().status == "alive"
        assert server.requests == 4


def test_readiness_is_that_of_the_moment_and_can_be_waited_for() -> None:
    filling = (503, {"Retry-After": "0"}, b'{"type": "t", "title": "not ready", "status": 503, "detail": "filling"}')
    ready = (200, {}, b'{"status": "ready", "model_id": "m", "gallery_size": 1}')
    with Scripted(filling, filling, ready) as server, passerby.Client(server.url) as client:
        with pytest.raises(passerby.NotReady, match="filling"):
            client.get_ready()
        assert client.wait_until_ready().gallery_size == 1


def test_fields_of_a_later_version_are_kept() -> None:
    with Scripted(ALIVE) as server, passerby.Client(server.url) as client:
        assert client.get_live().model_extra == {"since": "of a later version"}


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (200, passerby.UnexpectedAnswer, "does not answer as this version of Passerby does"),
        (404, passerby.NotFound, "is it a Passerby"),
        (418, passerby.Refused, "answered 418"),
    ],
)
def test_another_kind_of_server_is_recognised(status: int, kind: type[Exception], words: str) -> None:
    with (
        Scripted((status, {}, b"<html>")) as server,
        passerby.Client(server.url) as client,
        pytest.raises(kind, match=words),
    ):
        client.get_live()


def test_what_is_posted_as_an_image_is_a_file(client: passerby.Client) -> None:
    client.embed(picture(1), camera_id="gate", captured_at=NOON)
    (crop,) = client.crops()
    assert client.get_crop_image(crop.id).startswith(b"\x89PNG")
    assert client.embed(encoded(picture(1), "PNG"), store=False).items[0].status == "embedded"


def test_the_url_is_by_default_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, url in (("https://host/passerby/", "https://host/passerby"), ("", "http://127.0.0.1:8000")):
        monkeypatch.setenv("PASSERBY_URL", variable)
        with passerby.Client() as client:
            assert client.url == url
        with passerby.Client("http://other:1") as client:
            assert client.url == "http://other:1"
