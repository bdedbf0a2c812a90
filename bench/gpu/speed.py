"""Crops a second of the engine, against other runtimes of the same network and the arithmetic peak."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from app.embedding.torch_engine import TorchEngine, channels_last
from app.kit.cores import available_cores
from bench.gpu.findings import Finding, Scale
from bench.networks import count_operations
from model.checkpoint import Checkpoint, load_checkpoint
from model.mgn import load_embedder
from model.reference import patches

CUDA_PROVIDER = "CUDAExecutionProvider"
"""The provider of the package `onnxruntime-gpu`, which replaces `onnxruntime`."""

Embed = Callable[[NDArray[np.uint8]], object]


def findings(paths: list[Path], device: torch.device, scale: Scale) -> Iterator[Finding]:
    """A line for each checkpoint and runtime, with the crops a second by batch size."""
    operations_a_second = _operations_a_second(device, scale)
    for path in paths:
        checkpoint = load_checkpoint(path)
        size = checkpoint.metadata.input.size
        crops = np.ascontiguousarray(patches(max(scale.batches), size, seed=11))
        operations = count_operations(load_embedder(checkpoint), torch.zeros((1, *size, 3), dtype=torch.uint8))
        limit = operations_a_second / operations
        for name, embed in _runtimes(path, checkpoint, device, scale).items():
            speeds = {batch: _speed(embed, crops[:batch], scale.seconds) for batch in scale.batches}
            best = max(speeds.values())
            by_batch = ", ".join(f"{batch}: {speed:,.0f}" for batch, speed in speeds.items())
            what = f"{path.stem}: crops/s by batch size, {name}"
            yield Finding("speed", what, by_batch, f"{best / limit:.1%} of the arithmetic limit")
        yield Finding("speed", f"{path.stem}: crops/s that a product of large matrices allows", f"{limit:,.0f}")


def _runtimes(path: Path, checkpoint: Checkpoint, device: torch.device, scale: Scale) -> dict[str, Embed]:
    """The engine of the service, and other runtimes of the same network, from pixels to parts in memory."""
    runtimes: dict[str, Embed] = {"the engine": TorchEngine(path, device, available_cores()).embed}
    runtimes["torch, float32"] = _eager(load_embedder(checkpoint).to(device), device, torch.float32)
    if device.type == "cuda":
        runtimes["torch, float16, channels last"] = _eager(channels_last(checkpoint, device), device, torch.float16)
    if scale.compiled:
        compiled = channels_last(checkpoint, device)
        compiled.compile(mode="reduce-overhead" if device.type == "cuda" else "default")
        runtimes["torch.compile, float16"] = _eager(compiled, device, torch.float16)
    exported = path.with_suffix(".onnx")
    if exported.exists() and CUDA_PROVIDER in _onnx_providers():
        runtimes["ONNX Runtime's CUDA provider, float32"] = _onnx_on_gpu(exported)
    return runtimes


def _onnx_providers() -> list[str]:
    """Empty if ONNX Runtime is not installed: it is not part of the extra `gpu`."""
    try:
        import onnxruntime
    except ImportError:
        return []
    return list(onnxruntime.get_available_providers())


def _onnx_on_gpu(exported: Path) -> Embed:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=[CUDA_PROVIDER])

    def embed(crops: NDArray[np.uint8]) -> object:
        return session.run(["parts"], {"crops": crops})

    return embed


def _eager(embedder: nn.Module, device: torch.device, precision: torch.dtype) -> Embed:
    def embed(crops: NDArray[np.uint8]) -> object:
        half = precision != torch.float32
        with torch.inference_mode(), torch.autocast(device.type, precision, enabled=half):
            return embedder(torch.from_numpy(crops).to(device)).float().cpu()

    return embed


def _speed(embed: Embed, crops: NDArray[np.uint8], seconds: float) -> float:
    """Crops a second over consecutive batches, after two warm-up batches."""
    for _ in range(2):
        embed(crops)
    calls, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds or not calls:
        embed(crops)
        calls += 1
    return calls * len(crops) / elapsed


def _operations_a_second(device: torch.device, scale: Scale) -> float:
    """Floating-point operations of a product of square matrices in the engine's precision."""
    precision = torch.float16 if device.type == "cuda" else torch.float32
    matrix = torch.rand((scale.matrix, scale.matrix), device=device, dtype=precision)

    def multiply(_: object) -> object:
        return (matrix @ matrix)[0, 0].item()

    return 2 * scale.matrix**3 * _speed(multiply, np.empty((1, 0), dtype=np.uint8), scale.seconds)
