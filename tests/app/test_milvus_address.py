"""Parsing of a Milvus server's address."""

import pytest
from pydantic import ValidationError

from app.milvus_address import MilvusAddress
from app.settings import Settings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("milvus://milvus:19530", MilvusAddress("milvus", 19530)),
        ("milvus://10.0.0.5:1/", MilvusAddress("10.0.0.5", 1)),
        ("milvus://[::1]:19530/people", MilvusAddress("::1", 19530, "people")),
        ("milvus://root:Milvus@m:19530/people", MilvusAddress("m", 19530, "people", "root", "Milvus")),
        ("milvus://a%40b:c%2Fd%3A@m:19530", MilvusAddress("m", 19530, "", "a@b", "c/d:")),
    ],
)
def test_a_url_has_host_port_database_and_credentials(url: str, expected: MilvusAddress) -> None:
    assert MilvusAddress.parse(url) == expected
    assert Settings(index_url=url).index_address == expected


@pytest.mark.parametrize(
    "url",
    [
        "milvus",
        "milvus://milvus",
        "milvus://:19530",
        "milvus://milvus:port",
        "milvus://milvus:99999",
        "milvus://secret@milvus:19530",
        "milvus://milvus:19530/a/b",
        "milvus://milvus:19530?secret=1",
        "http://milvus:19530",
        "https://root:secret@milvus:19530",
    ],
)
def test_a_url_of_another_form_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValidationError, match="milvus://") as refused:
        Settings(index_url=url)
    assert "secret" not in refused.value.errors()[0]["msg"]


def test_the_text_of_an_address_has_no_credentials() -> None:
    address = MilvusAddress.parse("milvus://root:hidden@[::1]:19530/people")
    assert str(address) == "milvus://[::1]:19530/people"
    assert "root" not in repr(address)
    assert "hidden" not in repr(address)


def test_without_its_client_an_index_on_milvus_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.settings.find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r"passerby\[milvus\]"):
        Settings(index_url="milvus://milvus:19530")


def test_none_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().index_address is None
    monkeypatch.setenv("PASSERBY_INDEX_URL", "")
    assert Settings().index_address is None
