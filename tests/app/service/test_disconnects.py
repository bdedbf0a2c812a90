"""Clients that disconnect before the response: their work is cancelled, and requests are stored completely or not."""

import asyncio
from pathlib import Path

import httpx
import pytest

from app.database import Database, database_url_of
from app.settings import Settings
from tests.app.embedding.scripted_engine import ScriptedEngine, flat
from tests.app.faults import background, busy_with, half_sent, metadata, metric, scripted_service
from tests.app.running import embed
from tests.app.waiting import until

DROPPED = range(100, 150)
"""The crops of the client that disconnects: no more than the service decodes ahead of its engine."""


def image_files(settings: Settings) -> list[Path]:
    return [path for path in (settings.data_dir / "images").rglob("*") if path.is_file()]


def crops(client: httpx.Client) -> list[str]:
    return [crop["id"] for crop in client.get("/crops", params={"limit": "1000"}).json()["items"]]


@pytest.mark.parametrize(
    ("path", "form"),
    [("/embed", metadata()), ("/embed", {"store": "false"}), ("/search", {})],
    ids=["stored", "embedded-only", "search"],
)
def test_queued_crops_of_a_disconnected_client_are_dropped(settings: Settings, path: str, form: dict[str, str]) -> None:
    engine = ScriptedEngine()
    tight = settings.model_copy(update={"queue_capacity": len(DROPPED) + 1})
    with scripted_service(tight, engine) as client, background() as threads:
        first = busy_with(engine, client, threads)
        with half_sent(client, path, *map(flat, DROPPED), share=1, **form):
            until(lambda: metric(client, "passerby_embedding_queue_length") == len(DROPPED))
        until(lambda: metric(client, "passerby_embedding_dropped_total") == len(DROPPED))
        assert metric(client, "passerby_embedding_queue_length") == 0
        others = threads.submit(embed, client, *map(flat, range(1, 51)))
        until(lambda: metric(client, "passerby_embedding_queue_length") == 50)  # in the freed capacity
        engine.go.set()
        assert [item["status"] for item in others.result().json()["items"]] == ["created"] * 50
        assert first.result().status_code == 201
        assert len(crops(client)) == len(image_files(settings)) == 51
        assert not any(value in DROPPED for batch in engine.batches for value in batch)
        assert metric(client, f'passerby_http_request_seconds_count{{method="POST",route="{path}",status="499"}}') == 1


def test_a_client_that_disconnects_during_its_upload_leaves_nothing_behind(settings: Settings) -> None:
    engine = ScriptedEngine()
    with scripted_service(settings, engine) as client:
        with half_sent(client, "/embed", *map(flat, DROPPED), share=0.5, **metadata()):
            pass
        with half_sent(client, "/embed", *map(flat, DROPPED), share=0, **metadata()):
            pass
        refused = 'passerby_http_request_seconds_count{method="POST",route="/embed",status="400"}'
        until(lambda: metric(client, refused) == 2)
        assert embed(client, flat(1)).status_code == 201
        assert len(crops(client)) == len(image_files(settings)) == 1
        assert not any(value in DROPPED for batch in engine.batches for value in batch)


async def test_crops_whose_storing_has_begun_are_stored_completely_after_a_disconnect(settings: Settings) -> None:
    async def disconnect_while_another_writes(client: httpx.Client) -> None:
        database = Database(database_url_of(settings))
        async with database.write():
            with half_sent(client, "/embed", *map(flat, DROPPED), share=1, **metadata()):
                until(lambda: len(image_files(settings)) == len(DROPPED))
            await asyncio.sleep(0.3)
            assert crops(client) == []
        await database.close()

    with scripted_service(settings, ScriptedEngine()) as client:
        await disconnect_while_another_writes(client)
        until(lambda: len(crops(client)) > 0)
        assert len(crops(client)) == len(DROPPED)
        again = embed(client, *map(flat, DROPPED))
        assert [item["status"] for item in again.json()["items"]] == ["existing"] * len(DROPPED)
