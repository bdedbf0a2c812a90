"""Data folders with any characters in their names, and what earlier versions made of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.main import find_misplaced_files
from app.places import MisplacedGallery
from app.settings import Settings
from tests.app.running import found, jpeg, running_service, stored

Run = Callable[[Settings], httpx.Client]

NAMES = ("My Data", "Kärnten", "100%", "%41", "a#1", "a?b", "a?c=d", "a&b;c", "::x", "file:", "[x]*")


def at(folder: Path, settings: Settings, images_url: str | None = None) -> Settings:
    """Settings with the default database of a data folder."""
    return settings.model_copy(update={"data_dir": folder, "database_url": None, "images_url": images_url})


def pictures(folder: Path) -> int:
    return sum(path.is_file() for path in folder.glob("??/??/*"))


@pytest.fixture
def database_url() -> str:
    """Not used: the default database is in the data folder."""
    return "sqlite:///:memory:"


def test_all_files_of_a_gallery_are_in_its_data_folder(settings: Settings, tmp_path: Path) -> None:
    for seed, name in enumerate(NAMES):
        with running_service(at(tmp_path / "places" / name, settings)) as client:
            stored(client, seed)
    assert sorted(path.name for path in (tmp_path / "places").iterdir()) == sorted(NAMES)
    for seed, name in enumerate(NAMES):
        assert pictures(tmp_path / "places" / name / "images") == 1, name
        shutil.copytree(tmp_path / "places" / name, tmp_path / "copies" / name)
        with running_service(at(tmp_path / "copies" / name, settings)) as client:
            (crop,) = client.get("/crops").json()["items"]
            assert client.get(crop["image_url"]).content == jpeg(seed)
            assert found(client, seed) == [crop["id"]]


@pytest.mark.parametrize("name", ["My Pictures", "100%", "a?b#c"])
@pytest.mark.parametrize("as_url", [False, True])
def test_pictures_are_where_the_setting_says(settings: Settings, tmp_path: Path, name: str, as_url: bool) -> None:
    folder = tmp_path / "places" / name
    with running_service(at(tmp_path / "data", settings, folder.as_uri() if as_url else str(folder))) as client:
        stored(client, 1)
    assert pictures(folder) == 1
    assert [path.name for path in folder.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["My Data", "100%", "a?b"])
def test_pictures_that_earlier_versions_put_elsewhere_are_found(settings: Settings, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "places" / name
    with running_service(at(folder, settings)) as client:
        stored(client, 1)
    elsewhere = Path((folder / "images").as_uri().removeprefix("file://"))
    elsewhere.parent.mkdir()
    (folder / "images").rename(elsewhere)
    with running_service(at(folder, settings)) as client:
        (crop,) = client.get("/crops").json()["items"]
        assert client.get(crop["image_url"]).content == jpeg(1)
    assert [path.name for path in folder.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["My Pictures", "100%"])
def test_pictures_of_an_encoded_url_that_earlier_versions_put_elsewhere_are_found(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "places" / name
    with_url = at(tmp_path / "data", settings, folder.as_uri())
    with running_service(with_url) as client:
        stored(client, 1)
    folder.rename(folder.as_uri().removeprefix("file://"))
    (tmp_path / "places" / "others").mkdir()
    with running_service(with_url) as client:
        (crop,) = client.get("/crops").json()["items"]
        assert client.get(crop["image_url"]).content == jpeg(1)
    assert sorted(path.name for path in folder.parent.iterdir()) == [name, "others"]


def test_a_folder_whose_name_looks_encoded_keeps_its_pictures(settings: Settings, tmp_path: Path) -> None:
    for seed, name in enumerate(("My%20Data", "My Data")):
        with running_service(at(tmp_path / name, settings)) as client:
            stored(client, seed)
    with running_service(at(tmp_path / "My Data", settings)):
        pass
    assert [pictures(tmp_path / name / "images") for name in ("My%20Data", "My Data")] == [1, 1]


def test_a_database_that_folders_shared_by_mistake_is_named(settings: Settings, tmp_path: Path) -> None:
    with running_service(at(tmp_path / "first", settings)) as client:
        stored(client, 1)
    (tmp_path / "first" / "passerby.sqlite3").rename(tmp_path / "a")
    new = at(tmp_path / "a?b", settings)
    new.data_dir.mkdir()
    with pytest.raises(MisplacedGallery, match=r"kept the database of this data folder in .*/a, together"):
        find_misplaced_files(new)
    (tmp_path / "a").rename(new.database_file)
    with running_service(new) as client:
        assert len(client.get("/crops").json()["items"]) == 1
