"""Faults that a service must survive: in its process, on its disk, in its database."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
import psycopg

from bench.faults.service import FaultyService, NotReady
from bench.postgresql import started

_MOUNT_MEGABYTES = 256
_BLOCKS = (1 << 20, 1 << 16, 1 << 12)
_SLACK_BYTES = 200_000
_BLOCK_BYTES = 512  # what `st_blocks` counts in
_MOST_SECONDS_OF_START = 2.5
_STOP_SECONDS = 30
_FULL_DISK_SECONDS = 15


class Disk(Protocol):
    """The disk with a service's data."""

    @property
    def folder(self) -> Path:
        """Its folder."""

    def fill(self, rng: random.Random) -> None:
        """Fill the disk."""

    def free(self) -> None:
        """Free the space."""


@dataclass(frozen=True)
class Mounted:
    """A small separate file system in memory (tmpfs)."""

    folder: Path

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self, rng: random.Random) -> None:
        """See `Disk`."""
        with self._ballast.open("wb", buffering=0) as file:
            for block in _BLOCKS:
                try:
                    while True:
                        file.write(bytes(block))
                except OSError:
                    continue
            file.truncate(max(0, file.tell() - rng.randrange(_SLACK_BYTES)))

    def free(self) -> None:
        """See `Disk`."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def mounted(folder: Path) -> Iterator[Mounted]:
    """A separate disk mounted at a folder; needs root. Raises CalledProcessError or FileNotFoundError."""
    folder.mkdir()
    size = f"size={_MOUNT_MEGABYTES}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield Mounted(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass
class Victim:
    """A service with its disk and database."""

    service: FaultyService
    snapshots: Path
    rng: random.Random
    disk: Disk | None
    database_url: str | None
    """Of PostgreSQL."""

    def newest(self) -> list[Path]:
        """The files of the newest snapshot."""
        generations = sorted(path for path in self.snapshots.glob("*/*") if path.name.isdecimal())
        try:
            return sorted(generations[-1].iterdir()) if generations else []
        except FileNotFoundError:  # replaced by a newer one
            return self.newest()


@dataclass(frozen=True)
class Fault:
    """A fault.

    ends: the process does not survive it. while_down: it happens to a service that does not run, which starts
    afterwards; otherwise to one that serves.
    fails_requests: with SQLite, and with PostgreSQL, requests may fail until it is over.
    """

    name: str
    strike: Callable[[Victim], None]
    ends: bool = False
    while_down: bool = False
    fails_requests: tuple[bool, bool] = (False, False)


def _flip_bit(victim: Victim) -> None:
    _flip(victim.newest(), victim.rng)


def _truncate(victim: Victim) -> None:
    files = victim.newest()
    if files:
        path = victim.rng.choice(files)
        os.truncate(path, victim.rng.randrange(_used_bytes(path) + 1))


def _delete_file(victim: Victim) -> None:
    files = victim.newest()
    if files:
        victim.rng.choice(files).unlink()


def _flip(files: Sequence[Path], rng: random.Random) -> None:
    """Flip a bit of one of the files, if there are any."""
    files = [path for path in files if _used_bytes(path)]
    if not files:
        return
    path = rng.choice(files)
    place = rng.randrange(_used_bytes(path))
    with path.open("rb+") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def _used_bytes(path: Path) -> int:
    """The file without the hole at its end, where damage would have no effect."""
    facts = path.stat()
    return min(facts.st_size, _BLOCK_BYTES * facts.st_blocks)


def _delete_snapshots(victim: Victim) -> None:
    shutil.rmtree(victim.snapshots, ignore_errors=True)


def _kill_during_start(victim: Victim) -> None:
    for _ in range(victim.rng.randint(1, 2)):
        victim.service.start()
        time.sleep(victim.rng.uniform(0.5, _MOST_SECONDS_OF_START))
        victim.service.kill()


def _stop_during_start(victim: Victim) -> None:
    victim.service.start()
    time.sleep(victim.rng.uniform(0.5, _MOST_SECONDS_OF_START))
    victim.service.stop(code=None)  # so early, it may not have a signal handler yet


def _fill_disk(victim: Victim) -> None:
    if victim.disk is None:
        return
    victim.disk.fill(victim.rng)
    time.sleep(victim.rng.uniform(0.3, 1.0))
    victim.disk.free()


def _kill_on_full_disk(victim: Victim) -> None:
    """The disk is full at the kill and at the next start; the service must start if the database is elsewhere."""
    if victim.disk is None:
        return
    victim.disk.fill(victim.rng)
    time.sleep(victim.rng.uniform(0, 0.5))
    victim.service.kill()
    victim.service.start()
    ready = victim.service.comes_up(_FULL_DISK_SECONDS)
    victim.service.kill()
    victim.disk.free()
    if victim.database_url is not None and not ready:
        raise NotReady(f"it does not come up on a full disk:\n{victim.service.tail()}")


def _lose_connections(victim: Victim) -> None:
    for _ in range(victim.rng.randint(1, 8)):
        _end_connections(victim)
        time.sleep(victim.rng.uniform(0, 0.2))


def _lose_connections_during_start(victim: Victim) -> None:
    victim.service.start()
    time.sleep(victim.rng.uniform(1.5, _MOST_SECONDS_OF_START))
    for _ in range(victim.rng.randint(5, 50)):
        _end_connections(victim)
        time.sleep(0.02)
    victim.service.comes_up()  # or exits, for its supervisor to restart it


def _end_connections(victim: Victim) -> None:
    if victim.database_url is None:
        return
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid != "
    with psycopg.connect(victim.database_url, autocommit=True) as connection:
        connection.execute(query + "pg_backend_pid()")


def _stop_database(victim: Victim) -> None:
    """Shut it down cleanly, or like a power failure."""
    if victim.database_url is None:
        return
    with psycopg.connect(victim.database_url) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    server = started(Path(row[0] if row else ""))
    process = psutil.Process(server.get_pid())
    process.send_signal(victim.rng.choice([signal.SIGINT, signal.SIGQUIT]))
    process.wait(_STOP_SECONDS)
    time.sleep(victim.rng.uniform(0, 2))
    server.ensure_postgres_running()


KILL = Fault("kill -9", lambda victim: victim.service.kill(), ends=True)
STOP = Fault("SIGTERM", lambda victim: victim.service.stop(), ends=True)
FULL_DISK = Fault("full disk", _fill_disk, fails_requests=(True, False))
KILL_ON_FULL_DISK = Fault("kill -9 on a full disk", _kill_on_full_disk, ends=True, fails_requests=(True, False))

ANYWHERE = (
    KILL,
    STOP,
    Fault("kill -9 at the start", _kill_during_start, while_down=True),
    Fault("SIGTERM at the start", _stop_during_start, while_down=True),
    Fault("flipped bit in a snapshot", _flip_bit, while_down=True),
    Fault("truncated file of a snapshot", _truncate, while_down=True),
    Fault("deleted file of a snapshot", _delete_file, while_down=True),
    Fault("no snapshots any more", _delete_snapshots, while_down=True),
)
ON_A_DISK_OF_ITS_OWN = (FULL_DISK, KILL_ON_FULL_DISK)
ON_POSTGRESQL = (
    Fault("lost connections", _lose_connections, fails_requests=(True, True)),
    Fault("lost connections at the start", _lose_connections_during_start, while_down=True),
    Fault("stopped database", _stop_database, fails_requests=(True, True)),
)
