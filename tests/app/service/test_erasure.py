"""A deleted crop is gone: after the stated time, nothing of it is in any file of the data folder and the database."""

import asyncio
import hashlib
import json
import os
import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
from sqlalchemy import text

from app.database import Database, StillUsed, database_url_of
from app.kit.times import now_microseconds
from app.search.erasure import GONE
from app.settings import Settings
from tests.app.index.test_index_snapshots import names
from tests.app.old_galleries import picture_path
from tests.app.running import embed, found, jpeg, running_service, search, stored
from tests.app.waiting import until

Run = Callable[[Settings], httpx.Client]

PERSON, TRACK, ATTRIBUTE = "Zyxwvut-Anna", "Kjihgfe-Track", "Qponmlk-Coat"
SHORT = 0.4
"""Seconds in which deleted crops are erased."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings with which a deleted crop is soon gone, and a snapshot is saved after every change."""
    return settings.model_copy(update={"erase_seconds": SHORT, "snapshot_every": 1})


def pieces_of(picture: bytes) -> list[bytes]:
    """Pieces of a JPEG that others do not have, as the header is the same in all."""
    return [picture[start : start + 40] for start in (-190, -140, -90)]


@dataclass(frozen=True)
class Traces:
    """What to look for, by name, each as a few pieces of bytes."""

    pieces: dict[str, list[bytes]]

    @classmethod
    def of(cls, crops: Sequence[dict[str, Any]], vectors: Sequence[Sequence[float]], pictures: Sequence[bytes]) -> Any:
        rows = [np.array(vector, np.float16).tobytes() for vector in vectors]
        return cls(
            {
                "label": [PERSON.encode(), TRACK.encode(), ATTRIBUTE.encode()],
                "id": [crop["id"].encode() for crop in crops],
                "embedding": [row[start : start + 48] for row in rows for start in range(0, 4096, 512)],
                "picture": [piece for picture in pictures for piece in pieces_of(picture)],
            }
        )

    def found(self, files: Sequence[Path]) -> dict[str, set[str]]:
        """The names of the files in which something is found."""
        where: dict[str, set[str]] = {}
        for path in files:
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            for name, pieces in self.pieces.items():
                if any(piece in content for piece in pieces):
                    where.setdefault(name, set()).add(str(path))
        return where


def files_of(settings: Settings) -> list[Path]:
    """All files of the data folder, and those of a PostgreSQL server other than its write-ahead log."""
    folders = [settings.data_dir]
    if settings.database_url is not None and settings.database_url.startswith("postgresql"):
        with psycopg.connect(settings.database_url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
            ((folder,),) = connection.execute("SHOW data_directory")
        folders.append(Path(folder))
    elif settings.database_url is not None:
        folders.append(Path(settings.database_url.removeprefix("sqlite:///")).parent)
    paths = (path for folder in folders for path in folder.rglob("*"))
    return [path for path in paths if path.is_file() and "pg_wal" not in path.parts]


def wait_until_gone(traces: Traces, settings: Settings) -> None:
    left: dict[str, set[str]] = {}

    def is_gone() -> bool:
        nonlocal left
        if deletions(settings):
            return False
        left = traces.found(files_of(settings))
        return not left

    try:
        until(is_gone, 60)
    except AssertionError as error:
        raise AssertionError(left) from error


def vectors_of(client: httpx.Client, seeds: Sequence[int]) -> list[list[float]]:
    items = embed(client, *map(jpeg, seeds), store="false", include="vector").json()["items"]
    return [item["embedding"]["vector"] for item in items]


@pytest.mark.parametrize("exact_limit", [10_000, 0])
def test_nothing_of_deleted_crops_is_in_any_file_after_the_stated_time(
    run: Run, settings: Settings, exact_limit: int
) -> None:
    settings = settings.model_copy(update={"index_exact_limit": exact_limit})
    deleted, kept = range(0, 60), range(60, 100)
    labels = {"person_id": PERSON, "track_id": TRACK, "attributes": json.dumps({"coat": ATTRIBUTE})}
    with running_service(settings) as client:
        crops = stored(client, *deleted, **labels)
        living = [crop["id"] for crop in stored(client, *kept, person_id="bert")]
        traces = Traces.of(crops, vectors_of(client, deleted), [jpeg(seed) for seed in deleted])
        by_file = search(client, jpeg(3), **labels).json()
        by_id = client.post("/search", data={"crop_ids": [crops[5]["id"], living[5]], "top_k": 50}).json()
        other = search(client, jpeg(60), top_k=100).json()
        sheets = [client.get(answer["sheet_url"]).content for answer in (by_file, by_id, other)]
    abandon_a_file(settings, jpeg(7))
    client = run(settings)
    stored(client, 200)
    before = traces.found(files_of(settings))
    assert before.keys() == traces.pieces.keys()
    assert any("snapshots" in path for path in before["label"])

    answer = client.delete("/crops", params={"person_id": PERSON})
    assert answer.json() == {"matched": 60, "deleted": 60, "dry_run": False}
    wait_until_gone(traces, settings)

    assert set(found(client, 60, top_k=1000)) >= set(living)
    shown = client.get(f"/searches/{by_file['search_id']}").json()
    assert (shown["matches"], shown["filters"]["person_id"]) == ([], GONE)
    assert shown["filters"]["attributes"] == {GONE: GONE}
    assert client.get(f"/searches/{by_id['search_id']}").json()["query_crop_ids"] == [living[5]]
    matches = {match["crop"]["id"]: match["rank"] for match in other["matches"]}
    shown = client.get(f"/searches/{other['search_id']}").json()["matches"]
    assert {match["crop"]["id"]: match["rank"] for match in shown} == {
        crop_id: matches[crop_id] for crop_id in matches if crop_id in living
    }
    after = [client.get(answer["sheet_url"]) for answer in (by_file, by_id, other)]
    assert [one.status_code for one in after] == [200] * 3
    assert all(one.content != sheet for one, sheet in zip(after, sheets, strict=True))


def abandon_a_file(settings: Settings, content: bytes) -> None:
    """Leave the temporary file of a picture, as a process does that is killed while it writes."""
    picture = picture_path(settings, hashlib.sha256(content).hexdigest())
    left = picture.with_name(f".{picture.name}.0123456789abcdef.tmp")
    left.write_bytes(content)
    os.utime(left, (0, time.time() - 700))


def deletions(settings: Settings) -> list[Any]:
    """The logged deletions of which something may be left."""
    if settings.database_url is not None and settings.database_url.startswith("postgresql"):
        with psycopg.connect(settings.database_url) as connection:
            return list(connection.execute("SELECT * FROM deletions"))
    with closing(sqlite3.connect(str(database_url_of(settings).database))) as connection:
        return list(connection.execute("SELECT * FROM deletions"))


def test_a_deletion_while_no_other_work_is_done_is_erased_after_the_next_start(run: Run, settings: Settings) -> None:
    slow = settings.model_copy(update={"erase_seconds": 3600.0})
    with running_service(slow) as client:
        (crop,) = stored(client, 1, person_id=PERSON)
        traces = Traces.of([crop], vectors_of(client, [1]), [jpeg(1)])
    with running_service(slow) as client:
        client.delete(f"/crops/{crop['id']}")
    assert deletions(settings)
    run(settings)
    wait_until_gone(traces, settings)


def test_snapshots_of_an_earlier_version_are_written_again(run: Run, settings: Settings) -> None:
    with running_service(settings) as client:
        stored(client, 1)
    (folder,) = (settings.data_dir / "snapshots").iterdir()
    generations = names(folder)
    for generation in generations:
        forget_the_last_removal(folder / generation)
    client = run(settings.model_copy(update={"snapshot_every": 10_000}))
    assert len(found(client, 1)) == 1
    assert not set(names(folder)) & set(generations)
    assert len(names(folder)) == 1


def forget_the_last_removal(generation: Path) -> None:
    """Give a snapshot the manifest of a version that did not know of it."""
    manifest, checksums = generation / "snapshot.json", generation / "SHA256SUMS"
    content = json.loads(manifest.read_bytes())
    del content["state"]["last_removal"]
    old = hashlib.sha256(manifest.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content))
    new = hashlib.sha256(manifest.read_bytes()).hexdigest()
    checksums.write_text(checksums.read_text().replace(old, new))


# stored searches


def test_old_searches_are_deleted_with_their_pictures(run: Run, settings: Settings) -> None:
    with running_service(settings) as client:
        stored(client, 1)
        old, new = (search(client, jpeg(seed)).json() for seed in (1, 2))
    age(settings, old["search_id"], days=30.1)
    client = run(settings)
    until(lambda: client.get(f"/searches/{old['search_id']}").status_code == 404)
    assert client.get(old["sheet_url"]).status_code == 404
    assert client.get(new["sheet_url"]).status_code == 200
    assert [one["search_id"] for one in client.get("/searches").json()["items"]] == [new["search_id"]]


def test_searches_are_kept_for_as_long_as_the_setting_says(run: Run, settings: Settings) -> None:
    with running_service(settings) as client:
        one = search(client, jpeg(1)).json()
    age(settings, one["search_id"], days=1)
    with running_service(settings.model_copy(update={"search_days": 1.5})) as client:
        other = search(client, jpeg(2)).json()
        client.delete(f"/searches/{other['search_id']}")
        until(lambda: not deletions(settings), 60)
        assert client.get(f"/searches/{one['search_id']}").status_code == 200
    client = run(settings.model_copy(update={"search_days": 0.5}))
    until(lambda: client.get(f"/searches/{one['search_id']}").status_code == 404)


def age(settings: Settings, search_id: str, days: float) -> None:
    """Let a search have been stored some days ago."""
    at = now_microseconds() - int(days * 86_400e6)
    statement = f"UPDATE searches SET created_at = {at} WHERE id = '{search_id}'"
    if settings.database_url is not None and settings.database_url.startswith("postgresql"):
        with psycopg.connect(settings.database_url) as connection:
            connection.execute(statement)
        return
    with closing(sqlite3.connect(str(database_url_of(settings).database))) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_deleted_search_is_gone_with_its_pictures(client: httpx.Client, settings: Settings) -> None:
    one, two = (search(client, jpeg(seed)).json() for seed in (1, 2))
    assert client.delete(f"/searches/{one['search_id']}").status_code == 204
    assert client.delete(f"/searches/{one['search_id']}").status_code == 404
    assert client.get(one["sheet_url"]).status_code == 404
    assert client.get(two["sheet_url"]).status_code == 200
    traces = Traces({"picture": pieces_of(jpeg(1)), "id": [one["search_id"].encode()]})
    wait_until_gone(traces, settings)


def test_searches_are_listed_by_pages_latest_first(client: httpx.Client) -> None:
    crops = stored(client, 1, 2, 3, person_id="anna")
    made = [search(client, jpeg(1), person_id="anna", top_k=top_k).json() for top_k in (1, 2, 3, 4, 5)]
    seen: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/searches", params={"limit": 2, **cursor}).json()
        seen += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert [one["search_id"] for one in seen] == [one["search_id"] for one in reversed(made)]
    assert [one["matches"] for one in seen] == [3, 3, 3, 2, 1]
    for one, answer in zip(seen, reversed(made), strict=True):
        assert {name: one[name] for name in one if name != "matches"} == {
            name: answer[name] for name in one if name != "matches"
        }
    client.delete(f"/crops/{crops[2]['id']}")
    assert [one["matches"] for one in client.get("/searches").json()["items"]][:3] == [2, 2, 2]
    assert client.get("/searches", params={"cursor": "x"}).status_code == 422


# the database


@contextmanager
def reading(url: str) -> Iterator[None]:
    """A transaction that may read the rows of the time at which it began."""
    if url.startswith("postgresql"):
        with psycopg.connect(url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute("SELECT count(*) FROM cameras")
            yield
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM cameras").fetchall()
        yield


async def test_rows_that_are_still_read_are_not_taken_for_erased(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database._POSTGRESQL_WAIT_SECONDS", 1)
    monkeypatch.setattr("app.database._SQLITE_BUSY_MS", 500)
    database = Database(database_url)
    await database.migrate()
    with reading(database_url):
        async with database.write() as session:
            await session.execute(text("INSERT INTO cameras (id, name, created_at) VALUES ('a', 'a', 0)"))
        with pytest.raises(StillUsed):
            await database.erase()
    assert await database.erase()
    await database.close()


async def test_copies_of_rows_that_have_moved_leave_the_files(settings: Settings, database_url: str) -> None:
    """Rows move when pages are split; SQLite overwrites a deleted row, but not all of its earlier copies."""
    rng = random.Random(1804)
    rows = [{"id": f"camera-{rng.getrandbits(64):020}", "name": f"name {rng.getrandbits(64):020}"} for _ in range(5000)]
    database = Database(database_url)
    await database.migrate()
    async with database.write() as session:
        await session.execute(text("INSERT INTO cameras (id, name, created_at) VALUES (:id, :name, 0)"), rows)
    async with database.write() as session:
        await session.execute(text("DELETE FROM cameras WHERE id = :id"), [{"id": row["id"]} for row in rows[::2]])
    assert await database.erase()
    await database.close()
    left = set[bytes]()
    for path in files_of(settings):
        left.update(re.findall(rb"camera-\d{20}|name \d{20}", path.read_bytes()))
    assert left == {row[name].encode() for row in rows[1::2] for name in row}


async def test_the_stop_does_not_wait_until_a_large_database_is_rewritten(tmp_path: Path) -> None:
    file = tmp_path / "test.sqlite3"
    database = Database(f"sqlite:///{file}")
    await database.migrate()
    async with database.write() as session:
        await session.execute(text("CREATE TABLE filler (content BLOB)"))
        for _ in range(100):
            await session.execute(text("INSERT INTO filler VALUES (randomblob(1000000))"))
    erasing = asyncio.create_task(database.erase())
    await asyncio.sleep(0.01)
    erasing.cancel()
    await asyncio.wait([erasing])
    assert erasing.cancelled()
    await database.close()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM filler").fetchall() == [(100,)]
