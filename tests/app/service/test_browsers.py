"""What a page of another site can do with a service from an operator's browser: nothing, also by DNS rebinding."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator

import httpx
import pytest

from app.settings import Settings
from tests.app.running import jpeg

Run = Callable[[Settings], httpx.Client]

FOREIGN_PAGES = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1"},  # another service of this machine, on another port
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
]
FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:8000",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "a b",
    "@",
    "",
]
OWN_HOSTS = [
    "localhost",
    "LOCALHOST:80",
    "127.0.0.1:9",
    "[::1]:80",
    "10.0.0.7",
    "passerby:8000",
    "nas.local",
    "box.internal.",
]


def operations(client: httpx.Client) -> Iterator[tuple[str, str]]:
    """Method and path of every operation, and of the pages."""
    for path, by_method in client.get("/openapi.json").json()["paths"].items():
        for method in by_method:
            yield method.upper(), re.sub(r"\{.*?\}", "x", path)
    yield from (("GET", path) for path in ("/", "/docs", "/openapi.json", "/static-offline-docs/favicon.png", "/none"))


@pytest.mark.parametrize("headers", FOREIGN_PAGES, ids=str)
def test_a_request_of_a_foreign_page_is_refused_everywhere(
    shared_client: httpx.Client, headers: dict[str, str]
) -> None:
    for method, path in operations(shared_client):
        answer = shared_client.request(method, path, headers=headers)
        assert (method, path, answer.status_code) == (method, path, 403)
        assert answer.json()["type"] == "urn:passerby:problem:foreign-page"


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_request_to_a_foreign_name_is_refused_everywhere(shared_client: httpx.Client, host: str) -> None:
    for method, path in operations(shared_client):
        answer = shared_client.request(method, path, headers={"Host": host})
        assert (method, path, answer.status_code) == (method, path, 421)
        assert "PASSERBY_HOSTS" in answer.json()["detail"]


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_addresses_and_names_that_nobody_can_register_are_the_service(shared_client: httpx.Client, host: str) -> None:
    assert shared_client.get("/health/live", headers={"Host": host}).status_code == 200


def test_a_foreign_page_stores_nothing(client: httpx.Client) -> None:
    files = [("files", ("one.jpg", jpeg(1)))]
    answer = client.post("/embed", files=files, data={"camera_id": "a"}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert client.get("/crops").json()["items"] == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://passerby.example.org"},  # behind a proxy that changes Host
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},  # a link was opened
    ],
    ids=str,
)
def test_own_pages_and_opened_links_are_answered(shared_client: httpx.Client, headers: dict[str, str]) -> None:
    assert shared_client.get("/docs", headers=headers).status_code == 200


def test_a_page_of_the_host_that_a_request_names_may_send_it(shared_client: httpx.Client) -> None:
    headers = {"Host": "nas.local:8000", "Origin": "https://NAS.local:8000"}
    assert shared_client.post("/search", headers=headers).status_code == 422


def test_a_form_of_a_foreign_page_is_no_opened_link(shared_client: httpx.Client) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "https://evil.example"}
    assert shared_client.post("/search", headers=headers).status_code == 403


def test_the_service_is_called_what_the_settings_say(run: Run, settings: Settings) -> None:
    client = run(settings.model_copy(update={"hosts": "passerby.example.org, other.example.org"}))
    for name, status in (("passerby.example.org", 200), ("OTHER.example.org:443", 200), ("a.other.example.org", 421)):
        assert client.get("/health/live", headers={"Host": name}).status_code == status


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/crops", "/none", "/crops/none", "/static-offline-docs/x"]
)
def test_every_answer_forbids_frames_and_guesses_of_its_kind(shared_client: httpx.Client, path: str) -> None:
    headers = shared_client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_the_page_allows_its_own_scripts_and_styles_alone(shared_client: httpx.Client) -> None:
    page = shared_client.get("/docs")
    inline = re.findall(r"<(?:script|style)>(.*?)</", page.text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inline]
    assert sorted(re.findall(r"'sha256-(.*?)'", page.headers["Content-Security-Policy"])) == sorted(digests)
    assert len(digests) == 2


@pytest.mark.parametrize("path", ["/", "/crops/", "/docs/", "/static-offline-docs", "/health/live/"])
def test_no_redirect_names_a_host(shared_client: httpx.Client, path: str) -> None:
    location = shared_client.get(path, headers={"Host": "nas.local"}).headers.get("Location", "/")
    assert location.startswith("/")
    assert not location.startswith("//")
