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
from bench.latency import bulk_work, milliseconds
from bench.pictures import Pictures
from bench.service import RunningService, service
from model.checkpoint import BUNDLED


def findings(device: torch.device, scale: Scale) -> list[Finding]:
    """The bundled model in its torch form."""
    pictures = Pictures()
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder), device) as running:
        lines = [_bulk(running, pictures, clients, scale) for clients in scale.clients]
        bodies = [multipart([content], {"store": "false"}) for content in pictures.take(20 * scale.requests)]
        alone = statistics.median(milliseconds(running.port, "/embed", bodies, 201))
        lines.append(Finding("serving", "one crop, idle service, /embed, not stored, p50", f"{alone:.1f} ms"))
        clients, crops = scale.bulk
        with bulk_work(running, pictures, clients, crops):
            bodies = [multipart([content], {"top_k": "20"}) for content in pictures.take(20 * scale.requests)]
            waited = float(np.percentile(milliseconds(running.port, "/search", bodies, 200), 95))
        what = f"/search while {clients} clients post {crops} crops each, p95"
        return [*lines, Finding("serving", what, f"{waited:.0f} ms")]


@contextmanager
def _service(folder: Path, device: torch.device) -> Iterator[RunningService]:
    """With torch on the GPUs of this machine, or on its CPU on request."""
    settings = {"PASSERBY_ENGINE": "torch"} | ({"CUDA_VISIBLE_DEVICES": ""} if device.type == "cpu" else {})
    with service(folder, BUNDLED.with_suffix(".safetensors"), settings=settings) as running:
        yield running


def _bulk(running: RunningService, pictures: Pictures, clients: int, scale: Scale) -> Finding:
    """Crops a second of a round, and the busy shares of the engine and the decoding threads."""
    load = Load(clients, scale.crops, scale.requests)
    embed_round(running.port, pictures, Load(clients, scale.crops, 1), store=False)
    before = running.metrics()
    speed = embed_round(running.port, pictures, load, store=False)
    after, seconds = running.metrics(), load.total / speed
    busy = {
        name: (after[f"passerby_embedding_{name}_seconds_sum"] - before[f"passerby_embedding_{name}_seconds_sum"])
        for name in ("engine", "decode")
    }
    shares = f"the engine worked for {busy['engine'] / seconds:.0%} of it, decoding threads for {busy['decode']:.1f} s"
    what = f"/embed from JPEG, not stored, {load}, crops/s"
    return Finding("serving", what, f"{speed:,.0f}", f"{shares} of {seconds:.1f} s")
