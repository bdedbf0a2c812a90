"""SIGTERM under load: accepted requests are finished and durable, all others are refused."""

import random
import signal
import socket
import threading
import time
from dataclasses import dataclass, field

import httpx
import pytest

from app.settings import Settings
from tests.app.faults import half_sent, metadata
from tests.app.running import embed, found, jpeg, running_service
from tests.app.serving import ServiceProcess
from tests.app.waiting import until


@dataclass
class Tally:
    """The responses to the clients of a service."""

    stored: dict[str, int] = field(default_factory=dict)  # the number of each crop that was acknowledged, by its id
    answers: list[int] = field(default_factory=list)


def keep_posting(service: ServiceProcess, first: int, tally: Tally) -> None:
    """Post crops over a kept connection, or a new one where it is closed, until connections are refused."""
    rng = random.Random(first)
    with service.new_client() as client:
        while True:
            numbers = range(first, first + rng.choice((1, 3, 120)))
            first = numbers.stop
            try:
                answer = embed(client, *map(jpeg, numbers))
            except httpx.ConnectError:
                return
            except httpx.TransportError:
                continue  # the connection was closed: the crops must not be stored
            tally.answers.append(answer.status_code)
            if answer.status_code == 201:
                items = answer.json()["items"]
                assert [item["status"] for item in items] == ["created"] * len(numbers)
                tally.stored.update((item["crop"]["id"], number) for item, number in zip(items, numbers, strict=True))


def terminate_under_load(service: ServiceProcess, seconds: float) -> Tally:
    """Several clients post while the service stops; returns their responses."""
    tally = Tally()
    clients = [threading.Thread(target=keep_posting, args=(service, 10_000 * i, tally)) for i in range(4)]
    for client in clients:
        client.start()
    time.sleep(seconds)
    assert service.stop(signal.SIGTERM) == 0
    for client in clients:
        client.join(timeout=10)
        assert not client.is_alive(), "a client was left without an answer"
    return tally


def gallery(client: httpx.Client) -> list[str]:
    """The ids of all crops, as often as they are listed, in order."""
    ids: list[str] = []
    cursor: dict[str, str] | None = {}
    while cursor is not None:
        page = client.get("/crops", params={"limit": "1000"} | cursor).json()
        ids += [crop["id"] for crop in page["items"]]
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
    return sorted(ids)


def test_sigterm_under_load_keeps_exactly_the_acknowledged_crops(settings: Settings, seed: int) -> None:
    rng = random.Random(seed)
    service = ServiceProcess(settings)
    try:
        service.wait_until_ready()
        tally = terminate_under_load(service, rng.uniform(0.5, 1.5))
    finally:
        service.kill()
    assert tally.stored, "the service was stopped before it acknowledged anything: this test showed nothing"
    assert set(tally.answers) <= {201, 503}
    assert len(set(tally.stored.values())) == len(tally.stored), "a crop was answered twice"
    with running_service(settings) as client:
        assert gallery(client) == sorted(tally.stored)
        for crop_id, number in rng.sample(sorted(tally.stored.items()), min(20, len(tally.stored))):
            assert client.get(f"/crops/{crop_id}/image").content == jpeg(number)
            assert found(client, number, top_k="1") == [crop_id]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_transfer_is_answered_before_the_service_stops(settings: Settings, how: signal.Signals) -> None:
    service = ServiceProcess(settings)
    try:
        service.wait_until_ready()
        with half_sent(service.client, "/embed", *map(jpeg, range(50)), **metadata()) as (connection, rest):
            service.process.send_signal(how)
            until(lambda: not listens(service))
            with pytest.raises(httpx.TransportError):
                service.client.get("/health/live")  # the kept connection is closed
            connection.sendall(rest)
            assert connection.makefile("rb").read().startswith(b"HTTP/1.1 201")
        assert service.ended() == 0
    finally:
        service.kill()
    with running_service(settings) as client:
        assert len(gallery(client)) == 50


def listens(service: ServiceProcess) -> bool:
    """Whether new connections are accepted."""
    try:
        socket.create_connection(("127.0.0.1", service.port)).close()
    except ConnectionError:
        return False
    return True
