"""Faults that a service must survive: in its process, on its disk, in its database."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from bench.faults.service import NotReady, ServiceProcess
from bench.postgresql import start_postgresql

_MOUNT_MEGABYTES = 256
_BALLAST_BLOCKS = (1 << 20, 1 << 16, 1 << 12)  # bytes; smaller ones fill the rest
_MAX_FREE_BYTES = 200_000
_BLOCK_BYTES = 512  # the unit of `st_blocks`
_MAX_START_SECONDS = 2.5
_STOP_SECONDS = 30
_FULL_DISK_SECONDS = 15


@dataclass(frozen=True)
class Disk:
    """A small separate file system in memory (tmpfs), mounted at `folder`."""

    folder: Path

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self, rng: random.Random) -> None:
        """Fill the disk up to a random rest, which may be nothing."""
        with self._ballast.open("wb", buffering=0) as file:
            for block in _BALLAST_BLOCKS:
                try:
                    while True:
                        file.write(bytes(block))
                except OSError:
                    continue
            file.truncate(max(0, file.tell() - rng.randrange(_MAX_FREE_BYTES)))

    def free(self) -> None:
        """Free the space again."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def mounted(folder: Path) -> Iterator[Disk]:
    """A disk mounted at a new folder; needs root. Raises CalledProcessError or FileNotFoundError."""
    folder.mkdir()
    size = f"size={_MOUNT_MEGABYTES}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass
class Target:
    """The service that the faults are injected into, with its disk and database.

    disk: None if it is not a separate one. database_url: of PostgreSQL; None for SQLite.
    """

    service: ServiceProcess
    snapshots: Path
    rng: random.Random
    disk: Disk | None
    database_url: str | None

    def newest_snapshot(self) -> list[Path]:
        """The files of the newest snapshot; empty if there is none."""
        generations = sorted(path for path in self.snapshots.glob("*/*") if path.name.isdecimal())
        try:
            return sorted(generations[-1].iterdir()) if generations else []
        except FileNotFoundError:  # replaced by a newer one
            return self.newest_snapshot()


@dataclass(frozen=True)
class Fault:
    """A fault.

    ends: whether the process ends by it. while_down: whether it is injected while the service is down, before the next
    start, or while it serves. fails_requests: whether requests may fail then, with SQLite and with PostgreSQL.
    """

    name: str
    inject: Callable[[Target], None]
    ends: bool = False
    while_down: bool = False
    fails_requests: tuple[bool, bool] = (False, False)


def _truncate(target: Target) -> None:
    files = target.newest_snapshot()
    if files:
        path = target.rng.choice(files)
        os.truncate(path, target.rng.randrange(_used_bytes(path) + 1))


def _delete_file(target: Target) -> None:
    files = target.newest_snapshot()
    if files:
        target.rng.choice(files).unlink()


def _flip_bit(target: Target) -> None:
    files = [path for path in target.newest_snapshot() if _used_bytes(path)]
    if not files:
        return
    path = target.rng.choice(files)
    position = target.rng.randrange(_used_bytes(path))
    with path.open("rb+") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << target.rng.randrange(8)]))


def _used_bytes(path: Path) -> int:
    """The size of a file without the hole at its end, where damage has no effect."""
    status = path.stat()
    return min(status.st_size, _BLOCK_BYTES * status.st_blocks)


def _delete_snapshots(target: Target) -> None:
    shutil.rmtree(target.snapshots, ignore_errors=True)


def _kill_during_start(target: Target) -> None:
    for _ in range(target.rng.randint(1, 2)):
        target.service.start()
        time.sleep(target.rng.uniform(0.5, _MAX_START_SECONDS))
        target.service.kill()


def _stop_during_start(target: Target) -> None:
    target.service.start()
    time.sleep(target.rng.uniform(0.5, _MAX_START_SECONDS))
    target.service.stop(code=None)  # any code: it may not have a signal handler yet


def _fill_disk(target: Target) -> None:
    if target.disk is None:
        return
    target.disk.fill(target.rng)
    time.sleep(target.rng.uniform(0.3, 1.0))
    target.disk.free()


def _kill_on_full_disk(target: Target) -> None:
    """The disk is full at the kill and at the next start; the service must start if the database is elsewhere."""
    if target.disk is None:
        return
    target.disk.fill(target.rng)
    time.sleep(target.rng.uniform(0, 0.5))
    target.service.kill()
    target.service.start()
    ready = target.service.becomes_ready(_FULL_DISK_SECONDS)
    target.service.kill()
    target.disk.free()
    if target.database_url is not None and not ready:
        raise NotReady(f"the service does not start on a full disk:\n{target.service.tail()}")


def _lose_connections(target: Target) -> None:
    for _ in range(target.rng.randint(1, 8)):
        _end_connections(target)
        time.sleep(target.rng.uniform(0, 0.2))


def _lose_connections_during_start(target: Target) -> None:
    target.service.start()
    time.sleep(target.rng.uniform(1.5, _MAX_START_SECONDS))
    for _ in range(target.rng.randint(5, 50)):
        _end_connections(target)
        time.sleep(0.02)
    target.service.becomes_ready()  # or exits, and is started again


def _end_connections(target: Target) -> None:
    if target.database_url is None:
        return
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid != "
    with psycopg.connect(target.database_url, autocommit=True) as connection:
        connection.execute(query + "pg_backend_pid()")


def _stop_database(target: Target) -> None:
    """Stop PostgreSQL for up to 2 seconds, cleanly or as by a power failure."""
    if target.database_url is None:
        return
    with psycopg.connect(target.database_url) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    server = start_postgresql(Path(row[0] if row else ""))
    process = psutil.Process(server.get_pid())
    process.send_signal(target.rng.choice([signal.SIGINT, signal.SIGQUIT]))
    process.wait(_STOP_SECONDS)
    time.sleep(target.rng.uniform(0, 2))
    server.ensure_postgres_running()


KILL = Fault("kill -9", lambda target: target.service.kill(), ends=True)
STOP = Fault("SIGTERM", lambda target: target.service.stop(), ends=True)
FULL_DISK = Fault("full disk", _fill_disk, fails_requests=(True, False))
KILL_ON_FULL_DISK = Fault("kill -9 on a full disk", _kill_on_full_disk, ends=True, fails_requests=(True, False))

ON_ANY_SERVICE = (
    KILL,
    STOP,
    Fault("kill -9 at the start", _kill_during_start, while_down=True),
    Fault("SIGTERM at the start", _stop_during_start, while_down=True),
    Fault("flipped bit in a snapshot", _flip_bit, while_down=True),
    Fault("truncated file of a snapshot", _truncate, while_down=True),
    Fault("deleted file of a snapshot", _delete_file, while_down=True),
    Fault("deleted snapshots", _delete_snapshots, while_down=True),
)
ON_SEPARATE_DISK = (FULL_DISK, KILL_ON_FULL_DISK)
ON_POSTGRESQL = (
    Fault("lost connections", _lose_connections, fails_requests=(True, True)),
    Fault("lost connections at the start", _lose_connections_during_start, while_down=True),
    Fault("stopped database", _stop_database, fails_requests=(True, True)),
)
