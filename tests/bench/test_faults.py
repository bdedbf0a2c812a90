"""After faults of the process, its disk and its database, exactly the acknowledged crops are found."""

import random
import tempfile
from pathlib import Path

import pytest

from app.settings import Settings
from bench.faults.rounds import trial

pytestmark = pytest.mark.slow

ROUNDS = 3


def test_no_kind_of_fault_loses_acknowledged_crops(settings: Settings, seed: int) -> None:
    assert settings.checkpoint is not None
    url = settings.database_url or ""
    with tempfile.TemporaryDirectory(prefix="passerby-") as folder:
        database_url = url if url.startswith("postgresql") else None
        with trial(Path(folder), settings.checkpoint, database_url, random.Random(seed)) as running:
            results = []
            for result in running.rounds_with_all(ROUNDS):
                print(result)
                results.append(result)
    assert [violation for result in results for violation in result.violations] == []
    assert all(result.kept for result in results), "there were no crops to lose: this test showed little"
    assert sum(result.unknown for result in results) > 0, "no request was cut off: this test showed little"
