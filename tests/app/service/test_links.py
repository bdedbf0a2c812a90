"""Links of answers to pictures: with a key they are signed, so that a browser opens them without it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.links import WINDOW_SECONDS, Signer
from app.settings import Settings
from tests.app.running import jpeg, search, stored

Run = Callable[[Settings], httpx.Client]

KEY = "a-key-of-these-tests"


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:
    """SQLite is enough here."""
    return Settings(data_dir=tmp_path / "data", checkpoint=tiny_checkpoint, api_key=SecretStr(KEY))


@pytest.fixture
def client(client: httpx.Client) -> httpx.Client:
    """A client that sends the key."""
    client.headers["X-API-Key"] = KEY
    return client


@pytest.fixture
def links(client: httpx.Client) -> dict[str, str]:
    """The links of a search's answer."""
    stored(client, 1)
    answer = search(client, jpeg(1)).json()
    return {"sheet": answer["sheet_url"], "image": answer["matches"][0]["crop"]["image_url"]}


def open_without_key(client: httpx.Client, link: str, method: str = "GET") -> httpx.Response:
    return httpx.request(method, str(client.base_url.join(link)))


def refused(answer: httpx.Response) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json"), answer.text
    kind: str = answer.json()["type"]
    return kind.removeprefix("urn:passerby:problem:")


def test_links_open_without_the_key(client: httpx.Client, links: dict[str, str]) -> None:
    assert open_without_key(client, links["sheet"]).headers["content-type"] == "image/jpeg"
    assert open_without_key(client, links["image"]).content == jpeg(1)


def test_every_answer_with_a_crop_has_signed_links(client: httpx.Client) -> None:
    (crop,) = stored(client, 1)
    answer = search(client, jpeg(1)).json()
    shown: list[Any] = [
        crop["image_url"],
        client.get("/crops").json()["items"][0]["image_url"],
        client.get(f"/crops/{crop['id']}").json()["image_url"],
        answer["matches"][0]["crop"]["image_url"],
        client.get(f"/searches/{answer['search_id']}").json()["matches"][0]["crop"]["image_url"],
    ]
    for link in shown:
        assert open_without_key(client, link).content == jpeg(1)


def test_links_also_open_with_the_key(client: httpx.Client, links: dict[str, str]) -> None:
    for link in links.values():
        assert client.get(link).status_code == 200
        assert client.get(link.partition("?")[0]).status_code == 200


def test_without_a_signature_the_key_is_needed(client: httpx.Client, links: dict[str, str]) -> None:
    for link in links.values():
        path, _, query = link.partition("?")
        expires, signature = query.split("&")
        for part in ("", f"?{expires}", f"?{signature}"):
            assert refused(open_without_key(client, path + part)) == "unauthorised"


def test_an_altered_link_is_refused(client: httpx.Client, links: dict[str, str]) -> None:
    (other,) = stored(client, 2)
    for link in links.values():
        path, _, query = link.partition("?")
        expires = query.partition("&")[0].partition("=")[2]
        later = str(int(expires) + WINDOW_SECONDS)
        for altered in (
            link[:-1] + ("A" if link[-1] != "A" else "B"),
            link.replace(f"expires={expires}", f"expires={later}"),
            link.replace(f"expires={expires}", "expires=never"),
            link.replace(f"expires={expires}", f"expires=%2B{expires}"),
            f"{path}?expires={expires}&signature=",
            f"{path}?expires={expires}&signature=%F0%9F%94%91",
            f"/crops/{other['id']}/image?{query}",
        ):
            assert refused(open_without_key(client, altered)) == "link", altered


def test_a_signature_is_for_one_picture_and_opens_nothing_else(client: httpx.Client, links: dict[str, str]) -> None:
    path, _, query = links["image"].partition("?")
    crop = path.removesuffix("/image")
    assert open_without_key(client, f"{crop}?{query}").status_code == 401
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert open_without_key(client, links["image"], method).status_code == 401
        assert open_without_key(client, f"{crop}?{query}", method).status_code in (401, 405)
    assert client.get(links["image"]).content == jpeg(1), "it is still there"


def test_an_expired_link_is_refused(client: httpx.Client, links: dict[str, str]) -> None:
    signer = Signer(KEY, clock=lambda: time.time() - 2 * WINDOW_SECONDS - 1)
    for link in links.values():
        path = link.partition("?")[0]
        answer = open_without_key(client, f"{path}?{signer.query(path)}")
        assert refused(answer) == "link"
        assert "has expired" in answer.json()["detail"]


def test_a_link_lives_for_some_minutes() -> None:
    now = 1_800_000_123.0
    signer = Signer(KEY, clock=lambda: now)
    fields = dict(field.split("=") for field in signer.query("/crops/x/image").split("&"))
    assert WINDOW_SECONDS <= int(fields["expires"]) - now <= 2 * WINDOW_SECONDS
    assert signer.query("/crops/x/image") == Signer(KEY, clock=lambda: now + 1).query("/crops/x/image")


def test_a_link_of_another_key_is_refused(client: httpx.Client, links: dict[str, str]) -> None:
    path = links["image"].partition("?")[0]
    assert refused(open_without_key(client, f"{path}?{Signer('other').query(path)}")) == "link"


def test_without_a_key_links_are_plain(run: Run, settings: Settings) -> None:
    client = run(settings.model_copy(update={"api_key": None}))
    (crop,) = stored(client, 1)
    assert crop["image_url"] == f"/crops/{crop['id']}/image"
    assert client.get(f"{crop['image_url']}?expires=1&signature=x").content == jpeg(1), "a link of a time with a key"
