"""Whether a service has every crop that it acknowledged, none that was deleted, and nothing else."""

import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bench.faults.clients import FaultClient, RequestError, is_first, shortened
from bench.faults.ledger import Ledger, jpeg, sha256_of, unseen
from bench.visiting import REST, listed

_SAMPLE = 25
_MOST_MATCHES = 1000


def check(port: int, ledger: Ledger, rng: random.Random, patience: float) -> list[str]:
    """List, search and fetch; records violations in the ledger.

    patience: seconds within which searches must have come right. Gives what was wrong before that, and is not any more.
    """
    with closing(FaultClient(port, ledger, rng)) as client:
        try:
            unknown = set(ledger.posted) | set(ledger.leaving.values())
            crops = listed(lambda path: client.ask("GET", path, None, 200).body)
            ledger.settle({crop["id"]: int(crop["track_id"]) for crop in crops})
            sample = _sample(ledger, rng, unknown)
            first = wrong = list(_not_found(client, ledger, sample))
            end = time.monotonic() + patience
            while wrong and time.monotonic() < end:
                time.sleep(REST)
                wrong = list(_not_found(client, ledger, sample))
            for one in [*wrong, *_not_served(client, ledger, sample, rng)]:
                ledger.wrong(one)
        except RequestError as error:
            ledger.wrong(f"when all was well again: {error}")
            return []
    return first if not wrong else []


def left_behind(ledger: Ledger, images: Path) -> int:
    """The number of picture files without a crop or a search; files of deleted crops are violations.

    To be asked after a start, which deletes what a deletion that was cut off has left.
    """
    files = {path.name for path in images.rglob("*") if path.is_file()}
    if undeleted := files & {sha256_of(number) for number in ledger.deleted.values()}:
        ledger.wrong(f"{len(undeleted)} pictures of deleted crops are still on the disk")
    return len(files - {sha256_of(number) for number in ledger.kept.values()} - ledger.queried)


def _sample(ledger: Ledger, rng: random.Random, unknown: set[int]) -> dict[str, int]:
    """A sample of the crops, which includes the newest and those stored without an acknowledgement."""
    newest = dict(list(ledger.kept.items())[-_SAMPLE // 2 :])
    arrived = {crop_id: number for crop_id, number in ledger.kept.items() if number in unknown}
    sample = dict(rng.sample(sorted(ledger.kept.items()), min(_SAMPLE, len(ledger.kept))))
    return newest | arrived | sample


def _not_found(client: FaultClient, ledger: Ledger, sample: dict[str, int]) -> Iterator[str]:
    asked = {"top_k": str(_MOST_MATCHES), "consistency": "session"}
    found = [match["crop"]["id"] for match in client.matches(next(iter(sample.values()), 0), asked)]
    lost, strange = unseen(ledger.kept, found)
    if lost:
        numbers = sorted(ledger.kept[one] for one in lost)
        yield f"{len(lost)} of {len(ledger.kept)} crops are not found, such as {numbers[:5]}"
    if strange:
        numbers = sorted(ledger.deleted.get(one, -1) for one in strange)
        yield f"{len(strange)} crops are found that are not there, such as {numbers[:5]}"
    if len(set(found)) < len(found):
        yield "a match came twice"
    for crop_id, number in sample.items():
        matches = client.matches(number, {"top_k": "3"})
        if not is_first(crop_id, matches):
            yield f"crop {number} is not found by its own picture: {shortened(matches)}"
        by_track = client.matches(number, {"track_id": str(number)})
        if [match["crop"]["id"] for match in by_track] != [crop_id]:
            yield f"crop {number} is not found by its track: {shortened(by_track)}"


def _not_served(client: FaultClient, ledger: Ledger, sample: dict[str, int], rng: random.Random) -> Iterator[str]:
    for crop_id, number in sample.items():
        image = client.ask("GET", f"/crops/{crop_id}/image", None, 200, 404)
        if image.body != jpeg(number):
            yield f"the picture of crop {number} was answered {image.status}, and is not what was posted"
    for crop_id in rng.sample(sorted(ledger.deleted), min(_SAMPLE, len(ledger.deleted))):
        if client.ask("GET", f"/crops/{crop_id}", None, 200, 404).status == 200:
            yield f"crop {ledger.deleted[crop_id]} is there, though it was deleted"
