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
    url = settings.resolved_database_url
    with tempfile.TemporaryDirectory(prefix="passerby-") as folder:
        database_url = url if url.startswith("postgresql") else None
        with trial(Path(folder), settings.checkpoint, database_url, random.Random(seed)) as one:
            rounds = []
            for outcome in one.rounds_with_all(ROUNDS):
                print(outcome)
                rounds.append(outcome)
    assert [violation for outcome in rounds for violation in outcome.violations] == []
    assert all(outcome.kept for outcome in rounds), "there was nothing to be lost: this test showed little"
    assert sum(outcome.unknown for outcome in rounds) > 0, "no request was cut off: this test showed little"
