"""The service on this device over HTTP: crops a second by number of clients, and latency."""

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from bench.clients import Load, multipart
from bench.embedding import embed_round
from bench.gpu.findings import Finding, Scale
from bench.latency import bulk_work, post_milliseconds
from bench.pictures import Pictures
from bench.service import RunningService, service
from model.checkpoint import BUNDLED

_BUSY_SECONDS = ("passerby_embedding_engine_seconds_sum", "passerby_embedding_decode_seconds_sum")


def findings(device: torch.device, scale: Scale) -> Iterator[Finding]:
    """Lines of the bundled model in torch."""
    pictures = Pictures()
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder), device) as running:
        for clients in scale.clients:
            yield _bulk_speed(running, pictures, clients, scale)
        bodies = [multipart([content], {"store": "false"}) for content in pictures.take(20 * scale.requests)]
        alone = statistics.median(post_milliseconds(running.port, "/embed", bodies, 201))
        yield Finding("serving", "one crop, idle service, /embed, not stored, p50", f"{alone:.1f} ms")
        clients, crops = scale.bulk
        with bulk_work(running, pictures, clients, crops):
            bodies = [multipart([content], {"top_k": "20"}) for content in pictures.take(20 * scale.requests)]
            p95 = float(np.percentile(post_milliseconds(running.port, "/search", bodies, 200), 95))
        yield Finding("serving", f"/search while {clients} clients post {crops} crops each, p95", f"{p95:.0f} ms")


@contextmanager
def _service(folder: Path, device: torch.device) -> Iterator[RunningService]:
    """A service with torch on the machine's GPUs, or on its CPU for a CPU device."""
    settings = {"PASSERBY_ENGINE": "torch"} | ({"CUDA_VISIBLE_DEVICES": ""} if device.type == "cpu" else {})
    with service(folder, BUNDLED.with_suffix(".safetensors"), settings=settings) as running:
        yield running


def _bulk_speed(running: RunningService, pictures: Pictures, clients: int, scale: Scale) -> Finding:
    """Crops a second of a round, and how busy the engine and the decoding threads were."""
    load = Load(clients, scale.crops, scale.requests)
    embed_round(running.port, pictures, Load(clients, scale.crops, 1), store=False)
    before = running.metrics()
    speed = embed_round(running.port, pictures, load, store=False)
    after, seconds = running.metrics(), load.total / speed
    engine, decode = (after[name] - before[name] for name in _BUSY_SECONDS)
    busy = f"in {seconds:.1f} s, the engine worked for {engine / seconds:.0%} and decoding threads for {decode:.1f} s"
    return Finding("serving", f"/embed from JPEG, not stored, {load}, crops/s", f"{speed:,.0f}", busy)
