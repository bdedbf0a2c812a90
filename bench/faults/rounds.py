"""Rounds of fault injection: clients at work, faults, recovery, and a full check."""

import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.faults.check import check, left_behind
from bench.faults.clients import clients
from bench.faults.kinds import ANYWHERE, KILL, ON_A_DISK_OF_ITS_OWN, ON_POSTGRESQL, STOP, Disk, Fault, Victim, mounted
from bench.faults.ledger import NO_ANSWER, Ledger
from bench.faults.service import FaultyService, NotReady

_SIZES = (20, 100, 200, 300)
"""The number of crops that clients keep, at which the index changes its form often."""

_ONE_MORE = 0.3
"""The probability of one more fault in a round."""

_WITH_SEGMENT = 0.8

_HEALING_SECONDS = 15.0
_FILLING_SECONDS = 10.0
_POLL_SECONDS = 0.02
_NOT_NOW = 503


_SMALL = {
    "PASSERBY_BATCH_SIZE": "32",
    "PASSERBY_THREADS": "1",
    "PASSERBY_INDEX_POLL_SECONDS": "0.05",
    "PASSERBY_SNAPSHOT_EVERY": "25",
}
"""Settings that make all index operations frequent."""


@dataclass(frozen=True)
class Round:
    """The record of a round. seconds: from the last fault's end until ready; source: of the index at a start."""

    number: int
    faults: tuple[str, ...]
    seconds: float
    source: str | None
    kept: int
    unknown: int
    left_behind: int
    troubles: dict[int, int]
    violations: list[str] = field(default_factory=list)


class Trial:
    """A service under faults, with its clients' ledger."""

    def __init__(self, victim: Victim, images: Path, kinds: Sequence[Fault], fixed: dict[str, str]) -> None:
        """images: the folder of picture files. fixed: settings of the service at every start."""
        self._kinds = kinds
        self._victim = victim
        self._images = images
        self._fixed = fixed
        self._rng = victim.rng
        self._ledger = Ledger()
        self._bag: list[Fault] = []
        self._troubles: dict[int, int] = {}

    @property
    def kinds(self) -> Sequence[Fault]:
        """The kinds of faults that apply here."""
        return self._kinds

    def rounds(self, count: int) -> Iterator[Round]:
        """Run so many rounds; all kinds of faults are about equally frequent, some combined."""
        for number in range(1, count + 1):
            yield self._round(number, self._draw())

    def rounds_with_all(self, count: int) -> Iterator[Round]:
        """The faults of so many rounds, which cover all kinds."""
        ends = [fault for fault in self._kinds if fault in (KILL, STOP)]
        rest = [fault for fault in self._kinds if fault not in ends]
        kinds = [*ends, *self._rng.sample(rest, len(rest))]
        for number in range(count):
            yield self._round(number + 1, self._ordered(kinds[number::count]))

    def _round(self, number: int, faults: Sequence[Fault]) -> Round:
        service, ledger = self._victim.service, self._ledger
        before = len(ledger.violations)
        source, files, unknown, self._troubles = None, 0, 0, {}
        began = time.monotonic()
        try:
            self._strike(faults)
            unknown = len(ledger.posted) + len(ledger.leaving)
            self._check_troubles(faults, ledger.take_troubles())
            began = time.monotonic()
            started = not service.runs
            if started:
                self._start()
            service.wait_until_ready()
            seconds = time.monotonic() - began
            source = service.recovered_from() if started else None
            healed = check(service.port, ledger, self._rng, _HEALING_SECONDS if started else 0)
            if healed and not service.found_damage():
                ledger.wrong(f"at first, though the disk had damaged no crop: {'; '.join(healed)}")
            if started:
                files = left_behind(ledger, self._images)
        except NotReady as error:
            seconds = time.monotonic() - began
            ledger.wrong(str(error))
        wrong = [f"round {number}: {one}" for one in ledger.violations[before:]]
        names = tuple(fault.name for fault in faults)
        return Round(number, names, seconds, source, len(ledger.kept), unknown, files, self._troubles, wrong)

    def _strike(self, faults: Sequence[Fault]) -> None:
        rng, victim = self._rng, self._victim
        if not victim.service.runs:
            self._start()
            victim.service.wait_until_ready()
        size = rng.choice(_SIZES)
        with clients(victim.service.port, self._ledger, rng, size):
            self._wait_for_something_to_lose(size)
            time.sleep(rng.uniform(0.1, 1.2))
            for fault in faults:
                if not fault.while_down:
                    fault.strike(victim)
                    time.sleep(rng.uniform(0, 0.4))
        for fault in faults:
            if fault.while_down:
                victim.service.kill()  # the previous fault may have started it
                fault.strike(victim)

    def _wait_for_something_to_lose(self, size: int) -> None:
        """For crops; in most rounds also for a snapshot with a segment, where there will be one."""
        service, victim = self._victim.service, self._victim
        limit = int(service.settings["PASSERBY_INDEX_EXACT_LIMIT"])
        with_segment = size > limit and self._rng.random() < _WITH_SEGMENT
        end = time.monotonic() + _FILLING_SECONDS
        while time.monotonic() < end:
            segment = any(path.suffix == ".faiss" for path in victim.newest())
            if len(self._ledger.kept) >= _SIZES[0] and (segment or not with_segment):
                return
            time.sleep(_POLL_SECONDS)

    def _check_troubles(self, faults: Sequence[Fault], troubles: dict[int, int]) -> None:
        """Record failed requests that no fault explains."""
        self._troubles = troubles
        on_postgresql = self._victim.database_url is not None
        may_fail = any(fault.fails_requests[on_postgresql] for fault in faults)
        allowed = {NO_ANSWER, _NOT_NOW} if any(fault.ends for fault in faults) else set()
        for status, times in troubles.items():
            if status not in allowed and not (may_fail and status >= 500):
                self._ledger.wrong(f"{times} requests were answered {status or 'nothing'}")

    def _draw(self) -> list[Fault]:
        rng = self._rng
        if not self._bag:
            self._bag = rng.sample(self._kinds, len(self._kinds))
        drawn = [self._bag.pop()]
        while rng.random() < _ONE_MORE:
            drawn.append(rng.choice(self._kinds))
        return self._ordered(list(dict.fromkeys(drawn)))

    def _ordered(self, drawn: Sequence[Fault]) -> list[Fault]:
        """Live faults first, then how the process ends, then what happens while it is down."""
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
        self._victim.service.settings = _SMALL | self._fixed | drawn
        self._victim.service.start()


@contextmanager
def trial(folder: Path, checkpoint: Path, database_url: str | None, rng: random.Random) -> Iterator[Trial]:
    """A service whose data is in an empty folder. database_url: of PostgreSQL; by default SQLite, in that folder.

    If this process may mount one, the data is on a small separate disk. With PostgreSQL, pictures are elsewhere,
    and only what can be made again is on that disk.
    """
    with ExitStack() as stack:
        disk: Disk | None = None
        data = folder / "disk"
        try:
            disk = stack.enter_context(mounted(data))
        except (OSError, subprocess.CalledProcessError):  # needs root and tmpfs
            data.mkdir(exist_ok=True)
        images = data / "images" if database_url is None else folder / "images"
        service = FaultyService(data, folder / "service.log")
        stack.callback(service.kill)
        victim = Victim(service, data / "snapshots", rng, disk, database_url)
        kinds = [*ANYWHERE, *(ON_A_DISK_OF_ITS_OWN if disk else ()), *(ON_POSTGRESQL if database_url else ())]
        fixed = {"PASSERBY_CHECKPOINT": str(checkpoint), "PASSERBY_IMAGES_URL": images.as_uri()}
        if database_url is not None:
            fixed["PASSERBY_DATABASE_URL"] = database_url
        yield Trial(victim, images, kinds, fixed)
