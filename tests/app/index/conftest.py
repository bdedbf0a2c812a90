"""What the tests of the index share."""

import pytest
import structlog
from structlog.testing import LogCapture

from app.index import keeper, snapshot_home, snapshots


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """What the index's parts log, whatever logging other tests have set up."""
    capture = LogCapture()
    for module in (keeper, snapshot_home, snapshots):
        monkeypatch.setattr(module, "_log", structlog.wrap_logger(None, processors=[capture]))
    return capture
