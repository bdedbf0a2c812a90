"""A switch of the model under load, with killed services: no answer is wrong and no crop is lost."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pytest

from app.settings import Settings
from bench.pictures import Pictures
from bench.reindex_clients import Clients, Ledger, check_gallery
from tests.app.reindexing import active_model, other_checkpoint, progress, reindex, wait_for
from tests.app.running import stored
from tests.app.serving import ServiceProcess
from tests.app.waiting import until

pytestmark = pytest.mark.slow

CROPS = 120


@contextmanager
def under_load(ports: list[int], seed: int) -> Iterator[Ledger]:
    """A gallery of CROPS crops that clients change and search; any violation fails the test."""
    with Clients(ports, Pictures(), seed, max_crops=CROPS).running() as ledger:
        until(lambda: len(ledger.kept) >= CROPS or bool(ledger.violations), 120)
        yield ledger
    for port in ports:
        check_gallery(port, ledger)
    assert ledger.violations == []


def models_of_answers(ledger: Ledger) -> list[str]:
    """The models' names in the order of searches, without consecutive repetitions."""
    names = [search.model_id.split("-")[0] for search in sorted(ledger.searches, key=attrgetter("at"))]
    return [name for name, _ in groupby(names)]


def slow_checkpoint(folder: Path) -> Path:
    """Another model whose input is so large that a service can be killed during the reindex."""
    return other_checkpoint(folder, height=512, width=256)


def wait_until_done(service: ServiceProcess, crops: int) -> None:
    """Wait until so many crops are embedded."""
    deadline = time.monotonic() + 60
    while (state := progress(service.client))["embedded"] < crops:
        assert state["state"] == "embedding", "the reindex ended too early for this test"
        assert time.monotonic() < deadline, state
        time.sleep(0.01)
    assert state["embedded"] < state["total"]


def test_a_killed_reindex_resumes_and_no_answer_is_wrong(settings: Settings, tmp_path: Path, seed: int) -> None:
    service = ServiceProcess(settings)
    ports = [service.port]
    try:
        service.wait_until_ready()
        with under_load(ports, seed) as ledger:
            assert reindex(service.client, slow_checkpoint(tmp_path)).status_code == 202
            for share in (0.2, 0.5):
                wait_until_done(service, int(share * CROPS))
                done = progress(service.client)["embedded"]
                service.kill()
                service = ServiceProcess(settings)
                ports[:] = [service.port]
                service.wait_until_ready()
                assert progress(service.client)["embedded"] >= 0.8 * done, "but for deletions, what was embedded stays"
            wait_for(service.client, "other", 120)
            time.sleep(1)
        assert models_of_answers(ledger) == ["tiny", "other"]
    finally:
        service.kill()


def test_sigterm_stops_a_reindex_soon_and_the_next_service_resumes_it(settings: Settings, tmp_path: Path) -> None:
    service = ServiceProcess(settings)
    try:
        service.wait_until_ready()
        stored(service.client, *range(CROPS))
        assert reindex(service.client, slow_checkpoint(tmp_path)).status_code == 202
        wait_until_done(service, 1)
        assert service.stop(signal.SIGTERM) == 0
        service = ServiceProcess(settings)
        service.wait_until_ready()
        wait_for(service.client, "other", 60)
        assert progress(service.client)["embedded"] == CROPS
    finally:
        service.kill()


def test_services_on_one_postgresql_switch_together_also_after_a_kill(
    settings: Settings, tmp_path: Path, seed: int
) -> None:
    if not (settings.database_url or "").startswith("postgresql"):
        pytest.skip("several services at once are for PostgreSQL")
    shared = {"images_url": (tmp_path / "images").as_uri()}
    with ExitStack() as stack:
        services = [
            ServiceProcess(settings.model_copy(update={"data_dir": tmp_path / name, **shared})) for name in ("a", "b")
        ]
        for service in services:
            stack.callback(service.kill)
            service.wait_until_ready()
        first, second = services
        ports = [first.port, second.port]
        with under_load(ports, seed) as ledger:
            assert reindex(first.client, slow_checkpoint(tmp_path)).status_code == 202
            wait_until_done(second, CROPS // 4)
            first.kill()  # it polled first, so it runs the reindex
            ports[:] = [second.port]
            restarted = ServiceProcess(settings.model_copy(update={"data_dir": tmp_path / "a", **shared}))
            stack.callback(restarted.kill)
            restarted.wait_until_ready()
            ports[:] = [restarted.port, second.port]
            wait_for(second.client, "other", 120)
            wait_for(restarted.client, "other")
            time.sleep(1)
        assert set(models_of_answers(ledger)) == {"tiny", "other"}
        assert active_model(second.client) == active_model(restarted.client) == "other"
