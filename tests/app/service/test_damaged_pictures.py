"""Picture files that are gone or damaged: no other picture is served in their place, and posting again mends them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from app.gallery.crop_store import CropStore
from app.gallery.repository import Identity
from app.settings import Settings
from tests.app.logged import Logged
from tests.app.running import embed, found, jpeg, search, stored


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite is enough here."""
    return f"sqlite:///{tmp_path / 'test.sqlite3'}"


@pytest.fixture
def file(client: httpx.Client, settings: Settings) -> Path:
    """The file of the only crop, which shows `jpeg(1)`."""
    stored(client, 1)
    (file,) = (path for path in Path(settings.resolved_images_url).rglob("*") if path.is_file())
    return file


CONTENTS = {"gone": None, "another": jpeg(2), "cut": jpeg(1)[:-100], "empty": b"", "longer": jpeg(1) + b"0"}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_no_other_picture_is_served_and_posting_mends_it(
    client: httpx.Client, file: Path, content: bytes | None, logged: Logged
) -> None:
    file.unlink() if content is None else file.write_bytes(content)
    (crop,) = client.get("/crops").json()["items"]
    answer = client.get(crop["image_url"])
    assert answer.status_code == 404
    assert "posting it again mends that" in answer.json()["detail"]
    assert ("the file of a picture is damaged; post the picture again" in [e["event"] for e in logged]) == bool(
        content is not None
    )
    assert client.get(search(client, jpeg(1)).json()["sheet_url"]).status_code == 200
    (item,) = embed(client, jpeg(1)).json()["items"]
    assert item["status"] == "existing"
    assert client.get(crop["image_url"]).content == jpeg(1) == file.read_bytes()


def test_a_crop_that_is_deleted_while_it_is_posted_again_leaves_no_file(
    client: httpx.Client, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend, (crop,) = CropStore.mend, client.get("/crops").json()["items"]

    async def delete_first(store: CropStore, contents: Mapping[Identity, bytes]) -> None:
        assert contents
        assert (await asyncio.to_thread(client.delete, f"/crops/{crop['id']}")).status_code == 204
        await mend(store, contents)

    monkeypatch.setattr(CropStore, "mend", delete_first)
    with httpx.Client(base_url=client.base_url) as other:
        assert embed(other, jpeg(1)).status_code == 201
    assert not file.exists()


def test_a_new_crop_with_the_picture_mends_it_too(client: httpx.Client, file: Path) -> None:
    file.write_bytes(jpeg(2))
    (new,) = stored(client, 1, camera="yard")
    assert client.get(new["image_url"]).content == jpeg(1)
    assert len(found(client, 1)) == 2
