"""Checks that a service has every acknowledged crop, and no other."""

import random
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

from bench.client_threads import list_crops
from bench.clients import MAX_TOP_K
from bench.faults.clients import FaultClient, RequestError, is_first, summary
from bench.faults.ledger import Ledger, jpeg, sha256_of

_SAMPLE = 25


def check(port: int, ledger: Ledger, rng: random.Random) -> None:
    """List, search and fetch crops; records violations in the ledger."""
    with closing(FaultClient(port, ledger, rng)) as client:
        try:
            unknown = ledger.posted | set(ledger.deleting.values())
            crops = list_crops(lambda path: client.ask("GET", path, None, 200).body)
            ledger.reconcile({crop["id"]: int(crop["track_id"]) for crop in crops})
            sample = _sample(ledger, rng, unknown)
            for violation in chain(_not_found(client, ledger, sample), _not_served(client, ledger, sample, rng)):
                ledger.add_violation(violation)
        except RequestError as error:
            ledger.add_violation(f"after recovery: {error}")


def count_orphaned_files(ledger: Ledger, images: Path) -> int:
    """The number of picture files without a crop or a search; files of deleted crops are violations.

    Only after a start, which deletes the files that interrupted deletions have left.
    """
    files = {path.name for path in images.rglob("*") if path.is_file()}
    if undeleted := files & {sha256_of(number) for number in ledger.deleted.values()}:
        ledger.add_violation(f"{len(undeleted)} pictures of deleted crops are still on the disk")
    return len(files - {sha256_of(number) for number in ledger.kept.values()} - ledger.queried)


def _sample(ledger: Ledger, rng: random.Random, unknown: set[int]) -> dict[str, int]:
    """Kept crops to check, numbers by id: the newest ones, those of an unknown state before, and random ones."""
    crops = list(ledger.kept.items())
    newest = crops[-_SAMPLE // 2 :]
    stored = [(crop_id, number) for crop_id, number in crops if number in unknown]
    return dict([*newest, *stored, *rng.sample(sorted(crops), min(_SAMPLE, len(crops)))])


def _not_found(client: FaultClient, ledger: Ledger, sample: dict[str, int]) -> Iterator[str]:
    """What is wrong with searches."""
    fields = {"top_k": str(MAX_TOP_K), "consistency": "session"}
    found = [match["crop"]["id"] for match in client.matches(next(iter(sample.values()), 0), fields)]
    if missing := ledger.kept.keys() - set(found):
        numbers = sorted(ledger.kept[crop_id] for crop_id in missing)
        yield f"{len(missing)} of {len(ledger.kept)} crops are not found, such as {numbers[:5]}"
    if unexpected := set(found) - ledger.kept.keys():
        numbers = sorted(ledger.deleted.get(crop_id, -1) for crop_id in unexpected)
        yield f"{len(unexpected)} crops are found that do not exist, such as {numbers[:5]}"
    if len(set(found)) < len(found):
        yield "a search found a crop twice"
    for crop_id, number in sample.items():
        matches = client.matches(number, {"top_k": "3"})
        if not is_first(crop_id, matches):
            yield f"crop {number} is not found by its own picture: {summary(matches)}"
        by_track = client.matches(number, {"track_id": str(number)})
        if [match["crop"]["id"] for match in by_track] != [crop_id]:
            yield f"crop {number} is not found by its track: {summary(by_track)}"


def _not_served(client: FaultClient, ledger: Ledger, sample: dict[str, int], rng: random.Random) -> Iterator[str]:
    """What is wrong with pictures, and with deleted crops."""
    for crop_id, number in sample.items():
        image = client.ask("GET", f"/crops/{crop_id}/image", None, 200, 404)
        if image.body != jpeg(number):
            yield f"the picture of crop {number}, status {image.status}, is not the posted one"
    for crop_id in rng.sample(sorted(ledger.deleted), min(_SAMPLE, len(ledger.deleted))):
        if client.ask("GET", f"/crops/{crop_id}", None, 200, 404).status == 200:
            yield f"crop {ledger.deleted[crop_id]} exists, though it was deleted"
