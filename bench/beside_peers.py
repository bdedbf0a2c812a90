"""`POST /embed` against LitServe and a plain FastAPI endpoint, with the same network, pictures and clients."""

import json
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from app.kit.cores import available_cores
from bench.clients import Load, RequestFailed, multipart, post_all
from bench.embedding import embed_round
from bench.peers import Peer, litserve_settings, peer
from bench.pictures import Pictures
from bench.rounds import in_turn
from bench.rows import Row, speeds_row
from bench.service import service
from model.checkpoint import BUNDLED

LOADS = (Load(clients=8, crops=32, requests=4), Load(clients=32, crops=1, requests=16))
_NAIVE = ("naive",)


def rows(rounds: int) -> list[Row]:
    """A line for each load and peer: the service without storage, as the peers have none; its note is with storage.

    No answer contains embeddings, so that writing JSON is not measured.
    """
    pictures = Pictures()
    return [row for load in LOADS for row in _rows_of(load, pictures, rounds)]


def _rows_of(load: Load, pictures: Pictures, rounds: int) -> list[Row]:
    candidates = litserve_settings(load, available_cores())
    litserve = max(candidates, key=lambda settings: _peer_speed(settings, load, pictures))
    with ExitStack() as stack:
        running = stack.enter_context(service(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        servers = {name: stack.enter_context(peer(*name, checkpoint=BUNDLED)) for name in (litserve, _NAIVE)}
        speeds = in_turn(
            {
                "not stored": lambda: embed_round(running.port, pictures, load, store=False),
                "stored": lambda: embed_round(running.port, pictures, load, store=True),
                "litserve": lambda: _round(servers[litserve], pictures, load),
                "naive": lambda: _round(servers[_NAIVE], pictures, load),
            },
            rounds,
        )
    names = {"litserve": " ".join(litserve).replace("--", ""), "naive": "plain FastAPI"}
    what = f"bundled model, /embed, not stored, {load}"
    note = f"; stored {statistics.median(speeds['stored']):.0f}"
    return [speeds_row(what, speeds["not stored"], note, speeds[name], f", {names[name]}", 1) for name in names]


def _peer_speed(settings: tuple[str, ...], load: Load, pictures: Pictures) -> float:
    """Crops a second of a peer with these settings, after a warm-up round."""
    with peer(*settings, checkpoint=BUNDLED) as server:
        _round(server, pictures, load)
        return _round(server, pictures, load)


def _round(server: Peer, pictures: Pictures, load: Load) -> float:
    """Crops a second of one round. Raises RequestFailed unless every crop was embedded."""
    bodies = [multipart(pictures.take(load.crops), {}) for _ in range(load.clients * load.requests)]
    with server.resumed():
        seconds, answers = post_all(server.port, load.clients, "/predict", bodies, 200)
    embedded = sum(json.loads(answer)["crops"] for answer in answers)
    if embedded != load.total:
        raise RequestFailed(f"of {load.total} crops, {embedded} were embedded")
    return load.total / seconds
