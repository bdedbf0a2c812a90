"""The service while its engine is busy, fails, hangs or dies: all requests are answered, readiness has the reason."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from app.settings import Settings
from tests.app.embedding.scripted_engine import DIES, RAISES, ScriptedEngine, flat
from tests.app.faults import background, busy_with, metric, scripted_service
from tests.app.running import embed, search
from tests.app.waiting import until

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the engine does not use the database


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and kind of an error."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    return answer.status_code, answer.json()["type"].removeprefix("urn:passerby:problem:")


def outcomes(answer: httpx.Response) -> list[str]:
    """The outcome of each posted crop: its status, or the kind of its problem."""
    assert answer.status_code == 201, answer.text
    return [(item["problem"] or {"type": item["status"]})["type"].rpartition(":")[2] for item in answer.json()["items"]]


def waiting(
    client: httpx.Client, threads: ThreadPoolExecutor, behind: int = 0
) -> tuple[Sequence[Future[httpx.Response]], Future[httpx.Response]]:
    """Four clients that post three crops each, and one that searches, with `behind` crops in the queue already."""
    posts = [threads.submit(embed, client, *map(flat, range(10 * n, 10 * n + 3))) for n in range(1, 5)]
    searched = threads.submit(search, client, flat(9))
    until(lambda: metric(client, "passerby_embedding_queue_length") == behind + 13)
    return posts, searched


def why_not_ready(client: httpx.Client) -> str:
    """The detail of a service that is alive but not ready."""
    assert client.get("/health/live").status_code == 200
    answer = client.get("/health/ready")
    assert problem(answer) == (503, "not-ready")
    detail: str = answer.json()["detail"]
    return detail


def test_a_full_queue_answers_429_and_the_same_request_succeeds_later(settings: Settings) -> None:
    engine = ScriptedEngine()
    tight = settings.model_copy(update={"queue_capacity": 4})
    with scripted_service(tight, engine) as client, background() as threads:
        first = busy_with(engine, client, threads)
        accepted = threads.submit(embed, client, *map(flat, (1, 2, 3)))
        until(lambda: metric(client, "passerby_embedding_queue_length") == 3)
        refused = embed(client, flat(4), flat(5))
        assert problem(refused) == (429, "queue-full")
        assert int(refused.headers["retry-after"]) >= 1
        searched = threads.submit(search, client, flat(6))
        until(lambda: metric(client, "passerby_embedding_queue_length") == 4)  # bulk crops do not keep searches out
        engine.go.set()
        assert outcomes(first.result()) == ["created"]
        assert outcomes(accepted.result()) == ["created"] * 3
        assert searched.result().status_code == 200
        assert client.get("/health/ready").json()["gallery_size"] == 4
        assert outcomes(embed(client, flat(4), flat(5))) == ["created"] * 2


def test_a_crop_that_the_engine_raises_on_fails_alone(settings: Settings) -> None:
    engine = ScriptedEngine()
    with scripted_service(settings, engine) as client, background() as threads:
        first = busy_with(engine, client, threads)
        poisoned = threads.submit(embed, client, flat(1), flat(RAISES), flat(2))
        posts, searched = waiting(client, threads, behind=3)
        engine.go.set()
        assert outcomes(poisoned.result()) == ["created", "engine", "created"]
        assert [outcomes(post.result()) for post in (first, *posts)] == [["created"], *[["created"] * 3] * 4]
        assert searched.result().status_code == 200
        assert problem(search(client, flat(RAISES))) == (500, "engine")
        assert client.get("/health/ready").status_code == 200, "one poisoned crop does not make the engine broken"


def test_an_engine_that_raises_whatever_it_is_given_is_not_ready_until_it_works_again(settings: Settings) -> None:
    engine = ScriptedEngine()
    with scripted_service(settings, engine) as client, background() as threads:
        first = busy_with(engine, client, threads)
        posts, searched = waiting(client, threads)
        engine.largest_batch = 0
        engine.go.set()
        assert [outcomes(post.result()) for post in (first, *posts)] == [["engine"], *[["engine"] * 3] * 4]
        assert problem(searched.result()) == (500, "engine")
        assert "even with a blank crop" in why_not_ready(client)
        engine.largest_batch = 100
        until(lambda: client.get("/health/ready").status_code == 200)
        assert outcomes(embed(client, flat(1))) == ["created"]


def test_requests_fail_while_the_engine_hangs_and_succeed_afterwards(settings: Settings) -> None:
    engine = ScriptedEngine()
    impatient = settings.model_copy(update={"stall_seconds": 4.0})
    with scripted_service(impatient, engine) as client, background() as threads:
        first = busy_with(engine, client, threads)
        posts, searched = waiting(client, threads)
        assert [outcomes(post.result()) for post in (first, *posts)] == [["engine"], *[["engine"] * 3] * 4]
        assert problem(searched.result()) == (500, "engine")
        assert "the engine hangs" in why_not_ready(client)
        assert problem(embed(client, flat(1))) == (503, "not-accepting")
        assert client.get("/crops").json()["items"] == []
        engine.go.set()
        until(lambda: client.get("/health/ready").status_code == 200)
        assert outcomes(embed(client, flat(1))) == ["created"]
        assert client.get("/health/ready").json()["gallery_size"] == 1, "nothing of those who were sent away is stored"


def test_when_the_engine_dies_all_requests_are_answered_and_no_more_accepted(settings: Settings) -> None:
    engine = ScriptedEngine()
    with scripted_service(settings, engine) as client, background() as threads:
        assert outcomes(embed(client, flat(8))) == ["created"]
        first = busy_with(engine, client, threads)
        dying = threads.submit(embed, client, flat(DIES))
        posts, searched = waiting(client, threads, behind=1)
        engine.go.set()
        assert outcomes(dying.result()) == ["engine"]
        assert outcomes(first.result()) == ["created"]
        assert [outcomes(post.result()) for post in posts] == [["engine"] * 3] * 4
        assert searched.result().status_code == 200, "a search goes ahead of the bulk work that kills the engine"
        assert "the engine died" in why_not_ready(client)
        assert problem(embed(client, flat(1))) == (503, "not-accepting")
        assert problem(search(client, flat(1))) == (503, "not-accepting")
        assert len(client.get("/crops").json()["items"]) == 2, "what needs no engine works"
