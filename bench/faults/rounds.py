"""Rounds of fault injection: clients at work, faults, recovery, and a full check."""

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from bench.faults.check import check, count_orphaned_files
from bench.faults.clients import clients
from bench.faults.kinds import (
    KILL,
    ON_ANY_SERVICE,
    ON_POSTGRESQL,
    ON_SEPARATE_DISK,
    STOP,
    Disk,
    Fault,
    Target,
    mounted,
)
from bench.faults.ledger import NO_ANSWER, Ledger
from bench.faults.service import NotReady, ServiceProcess

_SIZES = (20, 100, 200, 300)
"""Numbers of crops that clients keep, around the limits at which the index changes its structure."""

_EXTRA_FAULT_PROBABILITY = 0.3
_WAIT_FOR_SEGMENT_PROBABILITY = 0.8

_FILLING_SECONDS = 10.0
_POLL_SECONDS = 0.02

_SMALL_LIMITS = {
    "PASSERBY_BATCH_SIZE": "32",
    "PASSERBY_THREADS": "1",
    "PASSERBY_INDEX_POLL_SECONDS": "0.05",
    "PASSERBY_SNAPSHOT_EVERY": "25",
}
"""Settings that make all index operations frequent."""


@dataclass(frozen=True)
class Round:
    """The record of a round.

    seconds: from the last fault's end until ready. source: of the index, if the service was started. unknown: crops
    whose state the clients did not know. orphaned_files: picture files without a crop. errors: counts by status.
    """

    number: int
    faults: tuple[str, ...]
    seconds: float
    source: str | None
    kept: int
    unknown: int
    orphaned_files: int
    errors: Counter[int]
    violations: list[str] = field(default_factory=list)


class Trial:
    """A service under faults, with its clients' ledger."""

    def __init__(self, target: Target, images: Path, kinds: Sequence[Fault], fixed: dict[str, str]) -> None:
        """kinds: the faults that apply here. images: the folder of picture files. fixed: settings of every start."""
        self.kinds = kinds
        self._target = target
        self._images = images
        self._fixed = fixed
        self._rng = target.rng
        self._ledger = Ledger()
        self._undrawn: list[Fault] = []

    def rounds(self, count: int) -> Iterator[Round]:
        """Run so many rounds of random faults; all kinds are about equally frequent."""
        for number in range(1, count + 1):
            yield self._round(number, self._draw())

    def rounds_with_all(self, count: int) -> Iterator[Round]:
        """Run so many rounds, which together have each kind of fault once."""
        ends = [fault for fault in self.kinds if fault in (KILL, STOP)]
        rest = [fault for fault in self.kinds if fault not in ends]
        kinds = [*ends, *self._rng.sample(rest, len(rest))]
        for number in range(count):
            yield self._round(number + 1, self._ordered(kinds[number::count]))

    def _round(self, number: int, faults: Sequence[Fault]) -> Round:
        service, ledger = self._target.service, self._ledger
        before = len(ledger.violations)
        source, files, unknown = None, 0, 0
        errors: Counter[int] = Counter()
        began = time.monotonic()
        try:
            self._inject(faults)
            unknown = len(ledger.posted) + len(ledger.deleting)
            errors = ledger.take_errors()
            self._check_errors(faults, errors)
            began = time.monotonic()
            started = not service.is_running
            if started:
                self._start()
            service.wait_until_ready()
            seconds = time.monotonic() - began
            source = service.recovered_from() if started else None
            check(service.port, ledger, self._rng)
            if started:
                files = count_orphaned_files(ledger, self._images)
        except NotReady as error:
            seconds = time.monotonic() - began
            ledger.add_violation(str(error))
        violations = [f"round {number}: {violation}" for violation in ledger.violations[before:]]
        names = tuple(fault.name for fault in faults)
        return Round(number, names, seconds, source, len(ledger.kept), unknown, files, errors, violations)

    def _inject(self, faults: Sequence[Fault]) -> None:
        rng, target = self._rng, self._target
        if not target.service.is_running:
            self._start()
            target.service.wait_until_ready()
        size = rng.choice(_SIZES)
        with clients(target.service.port, self._ledger, rng, size):
            self._wait_for_crops(size)
            time.sleep(rng.uniform(0.1, 1.2))
            for fault in faults:
                if not fault.while_down:
                    fault.inject(target)
                    time.sleep(rng.uniform(0, 0.4))
        for fault in faults:
            if fault.while_down:
                target.service.kill()  # the previous fault may have started it
                fault.inject(target)

    def _wait_for_crops(self, size: int) -> None:
        """Wait for some crops, and in most rounds for a snapshot with a segment, if `size` crops have one."""
        service, target = self._target.service, self._target
        limit = int(service.settings["PASSERBY_INDEX_EXACT_LIMIT"])
        with_segment = size > limit and self._rng.random() < _WAIT_FOR_SEGMENT_PROBABILITY
        deadline = time.monotonic() + _FILLING_SECONDS
        while time.monotonic() < deadline:
            has_segment = any(path.suffix == ".faiss" for path in target.newest_snapshot())
            if len(self._ledger.kept) >= _SIZES[0] and (has_segment or not with_segment):
                return
            time.sleep(_POLL_SECONDS)

    def _check_errors(self, faults: Sequence[Fault], errors: Counter[int]) -> None:
        """Record failed requests that no fault explains as violations."""
        on_postgresql = self._target.database_url is not None
        may_fail = any(fault.fails_requests[on_postgresql] for fault in faults)
        allowed = {NO_ANSWER, HTTPStatus.SERVICE_UNAVAILABLE} if any(fault.ends for fault in faults) else set()
        for status, count in errors.items():
            if status not in allowed and not (may_fail and status >= 500):
                self._ledger.add_violation(f"{count} requests were answered with {status or 'nothing'}")

    def _draw(self) -> list[Fault]:
        """A fault of each kind in turn, in random order, sometimes with more random faults."""
        rng = self._rng
        if not self._undrawn:
            self._undrawn = rng.sample(self.kinds, len(self.kinds))
        drawn = [self._undrawn.pop()]
        while rng.random() < _EXTRA_FAULT_PROBABILITY:
            drawn.append(rng.choice(self.kinds))
        return self._ordered(list(dict.fromkeys(drawn)))

    def _ordered(self, drawn: Sequence[Fault]) -> list[Fault]:
        """First the faults of the running service, then one that ends the process, then those while it is down."""
        ends = [fault for fault in drawn if fault in (KILL, STOP)][:1]
        down = [fault for fault in drawn if fault.while_down]
        live = [fault for fault in drawn if fault not in down and fault not in (KILL, STOP)]
        if down and not ends:
            ends = [self._rng.choice([KILL, KILL, KILL, STOP])]
        return [*live, *ends, *down]

    def _start(self) -> None:
        """Start the service with random settings."""
        rng = self._rng
        drawn = {
            "PASSERBY_CHANGES_KEPT": rng.choice(["10", "100", "1000000"]),
            "PASSERBY_INDEX_EXACT_LIMIT": rng.choice(["20", "60", "60", "60", "1000"]),
        }
        self._target.service.settings = _SMALL_LIMITS | self._fixed | drawn
        self._target.service.start()


@contextmanager
def trial(folder: Path, checkpoint: Path, database_url: str | None, rng: random.Random) -> Iterator[Trial]:
    """A service with its data in an empty folder. database_url: of PostgreSQL; None for SQLite in that folder.

    If this process may mount a disk, the data is on a small separate one. With PostgreSQL, the pictures are not,
    so that the disk only holds what can be rebuilt.
    """
    with ExitStack() as stack:
        disk: Disk | None = None
        data = folder / "disk"
        try:
            disk = stack.enter_context(mounted(data))
        except (OSError, subprocess.CalledProcessError):  # needs root and tmpfs
            data.mkdir(exist_ok=True)
        images = data / "images" if database_url is None else folder / "images"
        service = ServiceProcess(data, folder / "service.log")
        stack.callback(service.kill)
        target = Target(service, data / "snapshots", rng, disk, database_url)
        kinds = [*ON_ANY_SERVICE, *(ON_SEPARATE_DISK if disk else ()), *(ON_POSTGRESQL if database_url else ())]
        fixed = {"PASSERBY_CHECKPOINT": str(checkpoint), "PASSERBY_IMAGES_URL": images.as_uri()}
        if database_url is not None:
            fixed["PASSERBY_DATABASE_URL"] = database_url
        yield Trial(target, images, kinds, fixed)
