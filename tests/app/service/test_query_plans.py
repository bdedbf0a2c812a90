"""What requests ask of the database is found by indexes: none reads a whole table of the gallery."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, create_engine, event

from app.settings import Settings
from tests.app.running import embed, found, jpeg, search, stored

Run = Callable[[Settings], httpx.Client]

WHOLE_TABLE = re.compile(r"SCAN (?:crops|embeddings|changes|images|searches)(?! USING)")
"""A step that reads all rows; those of an index in its order stop at the page's end."""


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite says its plans without the statistics that PostgreSQL needs."""
    return f"sqlite:///{tmp_path / 'test.sqlite3'}"


@contextmanager
def recorded() -> Iterator[dict[str, Any]]:
    """The statements that are executed during the context, each with some parameters."""
    statements: dict[str, Any] = {}

    def record(_: Any, __: Any, statement: str, parameters: Any, ___: Any, many: bool) -> None:
        statements.setdefault(statement, parameters[0] if many else parameters)

    event.listen(Engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", record)


def test_no_request_reads_a_whole_table(run: Run, settings: Settings) -> None:
    client = run(settings)
    stored(client, 1, 2, 3)
    with recorded() as statements:
        stored(client, 1, 4)
        embed(client, jpeg(1), jpeg(5), time_guessed="true")
        (first, *_) = found(client, 1, camera_ids="gate", person_id="p1") or found(client, 1)
        search_id = search(client, jpeg(1)).json()["search_id"]
        for path in ("/crops", "/crops?person_id=p1", "/crops?track_id=t1", f"/crops/{first}", f"/crops/{first}/image"):
            assert client.get(path).status_code == 200
        assert client.get(f"/searches/{search_id}/sheet.jpg").status_code == 200
        assert client.delete(f"/crops/{first}").status_code == 204
    explained = 0
    with create_engine(settings.database_url or "").connect() as connection:
        for statement, parameters in statements.items():
            if statement.startswith(("SELECT", "UPDATE", "DELETE")):
                plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
                assert not any(WHOLE_TABLE.match(step) for step in plan), (statement, plan)
                explained += 1
    assert explained > 10
