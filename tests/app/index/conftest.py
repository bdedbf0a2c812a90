"""What the tests of the index share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from app.index import keeper, snapshot_home, snapshots
from app.index.row_file import RowFile


@pytest.fixture(autouse=True)
def _close_row_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test opened: some leave indexes behind as a killed process would."""
    opened: list[RowFile] = []
    open_file = RowFile.__init__

    def remember(self: RowFile, path: Path) -> None:
        open_file(self, path)
        opened.append(self)

    monkeypatch.setattr(RowFile, "__init__", remember)
    yield
    for file in opened:
        file.close()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """What the index's parts log, whatever logging other tests have set up."""
    capture = LogCapture()
    for module in (keeper, snapshot_home, snapshots):
        monkeypatch.setattr(module, "_log", structlog.wrap_logger(None, processors=[capture]))
    return capture
