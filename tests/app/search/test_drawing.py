"""Contact sheets are drawn one at a time, so that many of them take no more memory than one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.search import service
from tests.app.running import found, jpeg, search, stored


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite is enough here."""
    return f"sqlite:///{tmp_path / 'test.sqlite3'}"


def test_sheets_wait_for_each_other_and_searches_do_not(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    (crop,) = stored(client, 1)
    url = search(client, jpeg(1)).json()["sheet_url"]
    draw, go, drawing, most = service.draw_sheet, threading.Event(), list[int](), list[int]()

    def slow(sheet: service.Sheet) -> bytes:
        drawing.append(1)
        most.append(len(drawing))
        assert go.wait(20)
        drawing.pop()
        return draw(sheet)

    monkeypatch.setattr(service, "draw_sheet", slow)
    with ThreadPoolExecutor(6) as threads:
        sheets = [threads.submit(client.get, url) for _ in range(6)]
        for _ in range(20):
            assert found(client, 1) == [crop["id"]]
        go.set()
        assert [sheet.result().status_code for sheet in sheets] == [200] * 6
    assert max(most) == 1
