"""A kill -9 at any moment loses no acknowledged crop, and restores no deleted one."""

import random
import threading
import time
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.app.running import embed, jpeg
from tests.app.serving import ServiceProcess

ROUNDS = 5


def keep_posting(service: ServiceProcess, seeds: "range", kept: dict[str, int], deleted: set[str]) -> None:
    """Post three crops at a time and delete one of them until the service dies; record acknowledgements."""
    try:
        for first in seeds:
            numbers = [first * 3 + i for i in range(3)]
            answer = embed(service.client, *(jpeg(number) for number in numbers))
            assert answer.status_code == 201, answer.text
            ids = [item["crop"]["id"] for item in answer.json()["items"]]
            kept.update(zip(ids, numbers, strict=True))
            del kept[ids[0]]  # its deletion may or may not be committed until it is acknowledged
            if service.client.delete(f"/crops/{ids[0]}").status_code == 204:
                deleted.add(ids[0])
    except httpx.TransportError:
        return


@pytest.mark.slow
def test_every_acknowledged_crop_is_found_after_a_kill(settings: Settings, seed: int) -> None:
    rng = random.Random(seed)
    kept: dict[str, int] = {}
    deleted: set[str] = set()
    service = ServiceProcess(settings)
    try:
        service.wait_until_ready()
        for round_ in range(ROUNDS):
            posters = [
                threading.Thread(
                    target=keep_posting,
                    args=(service, range(10_000 * round_ + 1_000 * i, 10_000 * (round_ + 1)), kept, deleted),
                )
                for i in range(3)
            ]
            for poster in posters:
                poster.start()
            time.sleep(rng.uniform(0.05, 0.8))
            service.kill()
            for poster in posters:
                poster.join()
            service = ServiceProcess(settings)
            service.wait_until_ready()
            check(service, kept, deleted)
        assert kept, "the service was killed before it acknowledged anything: this test showed nothing"
    finally:
        service.kill()


def check(service: ServiceProcess, kept: dict[str, int], deleted: set[str]) -> None:
    for crop_id, number in kept.items():
        assert service.client.get(f"/crops/{crop_id}/image").content == jpeg(number)
    for crop_id in deleted:
        assert service.client.get(f"/crops/{crop_id}").status_code == 404
    listed = {crop["id"] for crop in service.client.get("/crops", params={"limit": 1000}).json()["items"]}
    assert kept.keys() <= listed
    answer = service.client.post("/search", files={"files": ("q.jpg", jpeg(0))}, data={"top_k": "1000"}).json()
    found = {match["crop"]["id"] for match in answer["matches"]}
    assert found == listed, "the index holds what the database holds, no more and no less"
    some = list(kept.items())[-5:]
    for crop_id, number in some:
        answer = service.client.post("/search", files={"files": ("q.jpg", jpeg(number))}, data={"top_k": "1"}).json()
        assert answer["matches"][0]["crop"]["id"] == crop_id


async def test_images_of_unfinished_deletions_go_at_the_next_start(settings: Settings, tmp_path: Path) -> None:
    """A crash between the deletion of a crop and of its file must not leave the picture behind."""

    from app.database import Database, database_url_of
    from app.gallery.repository import GalleryRepository
    from tests.app.running import running_service, stored

    with running_service(settings) as client:
        (crop,) = stored(client, 1)

    database = Database(database_url_of(settings))
    async with database.write() as session:
        repository = GalleryRepository(session)
        row = await repository.crop(crop["id"])
        assert row is not None
        await repository.delete_crops([row.key], 0)
    await database.close()
    files = [path for path in (settings.data_dir / "images").rglob("*") if path.is_file()]
    assert len(files) == 1
    with running_service(settings):
        assert not files[0].exists()
