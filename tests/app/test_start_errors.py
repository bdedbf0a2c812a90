"""`passerby serve` that cannot start: one sentence on standard error, exit code 2, and no traceback."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from app.database import Database
from app.settings import Settings
from app.start_errors import start_error
from tests.app.forked import run_passerby
from tests.app.tiny_checkpoint import write_tiny_checkpoint

Serve = Callable[..., str]

LEFT_OUT = re.compile(r"PASSERBY_|PG[A-Z]+$")
"""Variables that a developer may have set, and that would change what these tests see."""


@pytest.fixture
def sentence(tmp_path: Path, tiny_checkpoint: Path) -> Serve:
    """Start a service that cannot start; returns what it says."""

    def serve(*options: str, hides: str | None = None, **variables: object) -> str:
        kept = {name: value for name, value in os.environ.items() if not LEFT_OUT.match(name)}
        given = {"DATA_DIR": tmp_path / "data", "CHECKPOINT": tiny_checkpoint, "PORT": 0} | variables
        environment = kept | {f"PASSERBY_{name}": str(value) for name, value in given.items()}
        ended = run_passerby(tmp_path, ["serve", *options], environment, hides)
        assert ended.code == 2, ended.err
        assert ended.out == ""
        assert ended.err.startswith("error: ")
        assert ended.err.count("\n") == 1, ended.err
        return ended.err

    return serve


def test_a_data_folder_that_cannot_be_written(sentence: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = sentence(DATA_DIR=tmp_path / "file" / "data")
    assert f"cannot write into the data folder {tmp_path / 'file' / 'data'}: Not a directory" in said
    assert "PASSERBY_DATA_DIR" in said


def test_an_images_folder_that_cannot_be_written(sentence: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = sentence(IMAGES_URL=(tmp_path / "file" / "images").as_uri())
    assert "cannot store pictures in file://" in said
    assert "Not a directory" in said
    assert "PASSERBY_IMAGES_URL" in said


def test_a_new_database_beside_the_pictures_of_a_gallery(sentence: Serve, tmp_path: Path) -> None:
    pictures = tmp_path / "data" / "images" / "ab" / "cd"
    pictures.mkdir(parents=True)
    (pictures / f"abcd{60 * '0'}").write_bytes(b"a picture")
    said = sentence()
    assert f"passerby.sqlite3 is new, but {tmp_path / 'data' / 'images'} has pictures of a gallery" in said
    assert "restore the database" in said


def test_an_image_store_of_an_unknown_kind(sentence: Serve) -> None:
    assert "cannot store pictures in nowhere://bucket: Protocol not known: nowhere" in sentence(
        IMAGES_URL="nowhere://bucket"
    )
    assert "cannot store pictures in nowhere://***@bucket: " in sentence(IMAGES_URL="nowhere://me:secret@bucket")


def test_a_port_that_is_in_use(sentence: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is in use" in sentence("--port", str(port))


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_a_host_that_is_not_this_machine(sentence: Serve, host: str) -> None:
    assert f"{host} is no address of this machine" in sentence(HOST=host, API_KEY="a-secret-of-the-tests")


def test_a_database_that_is_down(sentence: Serve) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://me:{'s' * 8}@127.0.0.1:{free.getsockname()[1]}/gallery"
        said = sentence(DATABASE_URL=url)
    assert f"the database {url.replace('s' * 8, '***')} cannot be used: " in said
    assert "refused" in said
    assert "PASSERBY_DATABASE_URL" in said


@pytest.mark.parametrize("url", ["postgresql://me@host:pa55/gallery", "gallery", "mysql://me:pa@host/gallery"])
def test_a_url_of_no_database_is_refused_without_its_password(sentence: Serve, url: str) -> None:
    said = sentence(DATABASE_URL=url)
    assert "PASSERBY_DATABASE_URL is" in said
    assert "pa55" not in said


@pytest.mark.slow
def test_a_database_that_is_not_there(sentence: Serve, postgresql: Callable[[], str]) -> None:
    url = make_url(postgresql())
    gone = url.set(database="gone").render_as_string(hide_password=False)
    assert 'database "gone" does not exist' in sentence(DATABASE_URL=gone)


@pytest.mark.slow
def test_a_wrong_password(sentence: Serve, postgresql: Callable[[], str]) -> None:
    url = make_url(postgresql())
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS guarded")
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'the right one'")
        (rules,) = connection.execute("SHOW hba_file").fetchone() or ()
        lines = "host all guarded all scram-sha-256\nlocal all guarded scram-sha-256\n"
        Path(rules).write_text(lines + Path(rules).read_text())
        connection.execute("SELECT pg_reload_conf()")
    wrong = url.set(username="guarded", password="the wrong one")
    said = sentence(DATABASE_URL=wrong.render_as_string(hide_password=False))
    assert 'password authentication failed for user "guarded"' in said
    assert "PASSERBY_DATABASE_URL" in said
    assert "the wrong one" not in said


def test_a_sqlite_file_that_is_none(sentence: Serve, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "passerby.sqlite3").write_bytes(b"no database" * 1000)
    assert "file is not a database" in sentence()


def test_a_database_of_a_later_version(sentence: Serve, tmp_path: Path) -> None:
    import sqlite3

    (tmp_path / "data").mkdir()
    with sqlite3.connect(tmp_path / "data" / "passerby.sqlite3") as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    assert "was written by another version of Passerby" in sentence()


def test_a_checkpoint_that_is_missing(sentence: Serve, tmp_path: Path) -> None:
    assert f"there is no checkpoint at {tmp_path / 'gone.onnx'}" in sentence(CHECKPOINT=tmp_path / "gone.onnx")


@pytest.mark.parametrize("name", ["damaged.onnx", "damaged.safetensors"])
def test_a_checkpoint_that_is_damaged(sentence: Serve, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"damaged")
    assert name in sentence(CHECKPOINT=tmp_path / name)


def test_a_folder_in_place_of_a_checkpoint(sentence: Serve, tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert "folder.onnx is a folder, not the file of a checkpoint" in sentence(CHECKPOINT=tmp_path / "folder.onnx")


def test_a_checkpoint_that_is_cut_off(sentence: Serve, tmp_path: Path) -> None:
    whole = write_tiny_checkpoint(tmp_path / "whole.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    assert "half.onnx" in sentence(CHECKPOINT=tmp_path / "half.onnx")


def test_a_checkpoint_of_a_kind_that_no_engine_runs(sentence: Serve, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"")
    said = sentence(CHECKPOINT=tmp_path / "weights.pth")
    assert "is no checkpoint: its name must end in .onnx or .safetensors" in said


@pytest.mark.parametrize(
    ("package", "engine", "suffix", "extra"),
    [("torch", "auto", ".safetensors", "gpu"), ("onnxruntime", "onnx", ".onnx", "cpu")],
)
def test_a_package_that_is_not_installed(
    sentence: Serve, tmp_path: Path, package: str, engine: str, suffix: str, extra: str
) -> None:
    (tmp_path / f"tiny{suffix}").write_bytes(b"")
    said = sentence(hides=package, ENGINE=engine, CHECKPOINT=tmp_path / f"tiny{suffix}")
    assert f"pip install 'passerby[{extra}]'" in said


def test_settings_that_are_invalid(sentence: Serve) -> None:
    assert "PASSERBY_PORT: Input should be less than or equal to 65535" in sentence(PORT=70_000)
    assert "PASSERBY_API_KEY: must be at least 16" in sentence(API_KEY="short")
    assert "cannot read the settings in gone.toml" in sentence("--config", "gone.toml")


def test_a_prefix_of_the_services_own_paths(sentence: Serve) -> None:
    assert "PASSERBY_ROOT_PATH cannot be /crops" in sentence(ROOT_PATH="/crops/")


def test_what_is_wrong_first_is_reported_first(sentence: Serve, tmp_path: Path) -> None:
    """Folder, port, database, checkpoint: what is quick to check before what is slow."""
    (tmp_path / "file").write_text("")
    wrong = {"DATABASE_URL": "gallery", "CHECKPOINT": tmp_path / "gone.onnx"}
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert "data folder" in sentence(PORT=port, DATA_DIR=tmp_path / "file" / "data", **wrong)
        assert "in use" in sentence(PORT=port, **wrong)
    assert "PASSERBY_DATABASE_URL" in sentence(**wrong)


def test_a_milvus_server_that_is_down_is_found_before_the_model_is_loaded(sentence: Serve, tmp_path: Path) -> None:
    pytest.importorskip("pymilvus", reason="the extra `milvus` is not installed")
    said = sentence(INDEX_URL="milvus://127.0.0.1:9", CHECKPOINT=tmp_path / "gone.onnx")
    assert "Milvus at milvus://127.0.0.1:9" in said
    assert "PASSERBY_INDEX_URL" in said


def test_an_error_of_an_unknown_kind_is_a_sentence_too() -> None:
    error = ExceptionGroup("several", [KeyError("a\nb")])
    assert str(start_error(error, Settings())) == "KeyError: 'a\\nb'; PASSERBY_LOG_LEVEL=debug prints where"


async def test_a_database_that_does_not_answer_is_not_waited_for_long() -> None:
    for url, seconds in (("postgresql://host/name", "10"), ("postgresql://host/name?connect_timeout=3", "3")):
        database = Database(url)
        assert database.engine.url.query["connect_timeout"] == seconds
        await database.close()


async def test_a_database_is_opened_by_a_valid_url_only(tmp_path: Path) -> None:
    await Database(f"sqlite:///{tmp_path / 'new' / 'gallery.sqlite3'}").close()
    assert (tmp_path / "new").is_dir()
