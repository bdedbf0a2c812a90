"""Two services on one database, with clients that store, search and delete at the same time."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from bench.pictures import Pictures
from bench.replica_clients import run_clients

pytestmark = pytest.mark.slow


def test_two_services_under_load_agree(
    run: Callable[[Settings], httpx.Client], settings: Settings, tmp_path: Path, seed: int
) -> None:
    shared = {"images_url": (tmp_path / "images").as_uri(), "index_poll_seconds": 0.05}
    clients = [run(settings.model_copy(update={"data_dir": tmp_path / name, **shared})) for name in ("a", "b")]
    ports = [port for client in clients if (port := client.base_url.port)]
    ledger = run_clients(ports, Pictures(12), 4, seed)
    assert ledger.violations == []
    assert ledger.deleted, "nothing was deleted: this test showed little"
    assert len(ledger.kept) > 50
