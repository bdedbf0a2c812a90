"""Saves snapshots in child processes; each exits a few lines of code later than the one before. See the test."""

import itertools
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import app
from app.index.faiss_index import FaissIndex
from app.index.port import Removal
from app.index.snapshots import SnapshotStore
from tests.app.index.index_factories import MODEL, all_keys, crop, store_in

APP = str(Path(app.__file__).parent)
STEP = 3


def main(folder: Path, seed: int) -> None:
    """Print the number of processes that exited early. Raises AssertionError if the snapshots are damaged."""
    first = seed % STEP
    index = FaissIndex(MODEL)
    store = store_in(folder)
    for attempt in itertools.count(1):
        index.apply([crop(attempt, sequence=2 * attempt), Removal(2 * attempt + 1, attempt - 1)])
        survived = _save_and_die(store, index, first + STEP * attempt)
        newest = store.newest(MODEL)
        saved = 0 if newest is None else newest.last_sequence // 2
        assert saved == attempt or (saved == attempt - 1 and not survived), (attempt, saved)
        assert newest is None or all_keys(newest) == {saved}
        if survived:
            print(attempt - 1)
            return
        store.save(index)


def _save_and_die(store: SnapshotStore, index: FaissIndex, line: int) -> bool:
    """Save in a child process that exits before the given line of Passerby's code; True if saving ends earlier."""

    child = os.fork()
    if child == 0:
        lines = itertools.count(1)

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            if not frame.f_code.co_filename.startswith(APP):
                return None
            if event == "line" and next(lines) == line:
                os._exit(9)
            return trace

        sys.settrace(trace)
        store.save(index)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
