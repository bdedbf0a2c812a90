"""`POST /embed` with storage against a plain session of the same network: the overhead of the service."""

import json
import tempfile
from collections import Counter
from pathlib import Path

from bench.bare import BATCHES, BareSession
from bench.clients import CAPTURED_AT, Load, RequestFailed, multipart, post_all
from bench.networks import write_resnet50
from bench.pictures import Pictures, as_inputs
from bench.rounds import in_turn
from bench.rows import Row, speeds_row
from bench.service import service
from model.checkpoint import BUNDLED
from model.loading import read_metadata

SMALL_NETWORK = Load(clients=8, crops=32, requests=6)
LARGE_NETWORK = Load(clients=8, crops=32, requests=1)


def rows(rounds: int) -> list[Row]:
    """The lines of the bundled model and of MGN on ResNet-50."""
    pictures = Pictures()
    with tempfile.TemporaryDirectory() as folder:
        _, resnet50 = write_resnet50(Path(folder))
        return [
            _row("bundled model", BUNDLED, SMALL_NETWORK, pictures, rounds, 0.85),
            _row("MGN-ResNet-50", resnet50, LARGE_NETWORK, pictures, rounds, 0.95),
        ]


def embed_round(port: int, pictures: Pictures, load: Load, store: bool) -> float:
    """Crops a second of one round of `POST /embed`. Raises RequestFailed unless every crop was embedded."""
    fields = {"camera_id": "bench", "captured_at": CAPTURED_AT} if store else {"store": "false"}
    bodies = [multipart(pictures.take(load.crops), fields) for _ in range(load.clients * load.requests)]
    seconds, answers = post_all(port, load.clients, "/embed", bodies, 201)
    statuses = Counter(item["status"] for answer in answers for item in json.loads(answer)["items"])
    if statuses != {"created" if store else "embedded": load.total}:
        raise RequestFailed(f"of {load.total} crops: {dict(statuses)}")
    return load.total / seconds


def _row(name: str, checkpoint: Path, load: Load, pictures: Pictures, rounds: int, min_ratio: float) -> Row:
    inputs = as_inputs(pictures.take(max(BATCHES)), read_metadata(checkpoint).input)
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), checkpoint) as running:
        bare = BareSession(checkpoint, inputs)
        speeds = in_turn(
            {
                "ours": lambda: embed_round(running.port, pictures, load, store=True),
                "bare": lambda: bare.crops_a_second(load.total),
            },
            rounds,
        )
    what, note = f"{name}, /embed, stored, {load}", f", bare session, batches of {bare.batch}"
    return speeds_row(what, speeds["ours"], "", speeds["bare"], note, min_ratio)
