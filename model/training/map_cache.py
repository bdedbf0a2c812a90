"""A frozen trunk's feature maps of the training pictures, cached on disk for all runs with that trunk."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.checkpoint import InputFormat
from model.errors import DataError
from model.files import atomic_write, write_atomically
from model.mgn import MGN, Normalise
from model.onnx_session import session_of
from model.pictures import read_inputs
from model.training.inputs import picture_digest

CHUNK_SIZE = 512
"""The number of pictures in one cached file."""

Arrays = tuple[NDArray[np.float32], ...]


class Runtime(NamedTuple):
    """A way to run `FrozenTrunk`: `compute` takes `(N, height, width, 3)` uint8 RGB, with N at most `batch_size`.

    threads: the number of threads that call `compute` at the same time.
    """

    compute: Callable[[NDArray[np.uint8]], Arrays]
    batch_size: int
    threads: int


@dataclass(frozen=True)
class TrunkMaps:
    """The maps of N pictures, plain and mirrored, and the features of the network that a run starts from.

    chunks: memory-mapped `(2, n, C, H, W)` float16. location: `(N, 2)`, each picture's chunk and row. features:
    `(2, N, 256)` float32, not normalised; None for a network without pretrained head.
    """

    chunks: tuple[NDArray[np.float16], ...]
    location: NDArray[np.int64]
    features: NDArray[np.float32] | None

    def select(self, chosen: Tensor, flipped: Tensor) -> Tensor:
        """`(n, C, H, W)` float16: the maps of the pictures with the numbers `chosen`, mirrored where `flipped`."""
        rows = zip(self.location[chosen.numpy()], flipped.long().tolist(), strict=True)
        return torch.from_numpy(np.stack([self.chunks[chunk][mirrored, row] for (chunk, row), mirrored in rows]))


class FrozenTrunk(nn.Module):
    """The trunk of an MGN before training, and the features of its first pretrained head (`own_heads`), if it has one.

    `(N, height, width, 3)` uint8 RGB -> maps `(N, C, H, W)`, and features `(N, 256)`.
    """

    def __init__(self, mgn: MGN, input_format: InputFormat) -> None:
        super().__init__()
        device = next(mgn.parameters()).device
        self.trunk = nn.Sequential(Normalise(input_format).to(device), mgn.trunk)
        self.own = nn.Sequential(mgn.branches[0], mgn.reductions[0], nn.Flatten()) if mgn.config.own_heads else None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return ("maps",) if self.own is None else ("maps", "features")

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        maps = self.trunk(crops)
        return (maps,) if self.own is None else (maps, self.own(maps))


def trunk_maps(mgn: MGN, input_format: InputFormat, paths: Sequence[Path], cache: Path) -> TrunkMaps:
    """The maps of all pictures; computes those that are not in the cache.

    The cache has a folder for each network and input format, with one chunk for each CHUNK_SIZE pictures. The key
    of a picture is its path, size and modification time, as in `cached_inputs`. Finished chunks survive a killed run.
    Raises DataError with the path of a picture that cannot be read.
    """
    network = FrozenTrunk(mgn, input_format).eval()
    folder = cache / f"maps-{_network_digest(network, input_format)}"
    digests = [picture_digest(path) for path in paths]
    cached = _cached_rows(folder)
    missing = {digest: path for digest, path in zip(digests, paths, strict=True) if digest not in cached}
    if missing:
        _compute_chunks(network, input_format, missing, folder)
        cached = _cached_rows(folder)
    names = sorted({cached[digest][0] for digest in digests})
    number_of = {name: number for number, name in enumerate(names)}
    location = np.array([(number_of[name], row) for name, row in (cached[d] for d in digests)], dtype=np.int64)
    features = None
    try:
        if network.own is not None:
            stored = [np.load(_file(folder, name, "features")) for name in names]
            features = np.stack([stored[number][:, row] for number, row in location], axis=1)
        maps = tuple(np.load(_file(folder, name, "maps"), mmap_mode="r") for name in names)
    except (ValueError, EOFError, FileNotFoundError) as error:
        raise _damaged(folder) from error
    return TrunkMaps(maps, location, features)


def missing_bytes(mgn: MGN, input_format: InputFormat, paths: Sequence[Path], cache: Path) -> int:
    """The bytes that `trunk_maps` will write: `2 * N * C * H * W * 2` for the N pictures that are not in the cache."""
    network = FrozenTrunk(mgn, input_format)
    cached = _cached_rows(cache / f"maps-{_network_digest(network, input_format)}")
    missing = len({digest for digest in map(picture_digest, paths) if digest not in cached})
    device = next(network.parameters()).device
    with torch.inference_mode():
        network.eval()
        # Group norms refuse a batch of one.
        maps: Tensor = network(torch.zeros((2, *input_format.size, 3), dtype=torch.uint8, device=device))[0]
    return 2 * missing * maps[0].numel() * 2


def fastest_runtime(network: FrozenTrunk, input_format: InputFormat) -> Runtime:
    """Torch on the network's GPU, or ONNX Runtime on the CPU, which takes half of torch's time there.

    On a GPU, large batches and one thread: threads would only contend for the GIL to start the GPU's operations. A call
    in ONNX Runtime uses one thread, so that the threads compute one batch per core.
    """
    device = next(network.parameters()).device
    if device.type == "cuda":
        return Runtime(partial(_in_torch, network, device), batch_size=256, threads=1)
    from model.export import export_graph

    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "trunk.onnx"
        export_graph(network, input_format.size, path, network.outputs)
        session = session_of(path, threads=1)

    def compute(crops: NDArray[np.uint8]) -> Arrays:
        return tuple(session.run(list(network.outputs), {"crops": crops}))

    return Runtime(compute, batch_size=8, threads=os.cpu_count() or 1)


def _compute_chunks(
    network: FrozenTrunk, input_format: InputFormat, pictures: Mapping[str, Path], folder: Path
) -> None:
    """Compute and write the maps of pictures, given by digest."""
    folder.mkdir(parents=True, exist_ok=True)
    runtime = fastest_runtime(network, input_format)
    digests = list(pictures)
    for start in range(0, len(digests), CHUNK_SIZE):
        chunk = digests[start : start + CHUNK_SIZE]
        inputs = read_inputs([pictures[digest] for digest in chunk], input_format)
        arrays = dict(zip(network.outputs, _plain_and_mirrored(runtime, inputs), strict=True))
        _write_chunk(folder, chunk, arrays)


def _in_torch(network: FrozenTrunk, device: torch.device, crops: NDArray[np.uint8]) -> Arrays:
    with torch.inference_mode():
        return tuple(array.float().cpu().numpy() for array in network(torch.from_numpy(crops).to(device)))


def _plain_and_mirrored(runtime: Runtime, pictures: NDArray[np.uint8]) -> Arrays:
    """The network's outputs for the pictures and their mirror images: `(2, N, ...)` each."""
    sides, size = [], runtime.batch_size
    with ThreadPoolExecutor(runtime.threads) as pool:
        for side in (pictures, pictures[:, :, ::-1]):
            batches = [np.ascontiguousarray(side[start : start + size]) for start in range(0, len(side), size)]
            outputs = pool.map(runtime.compute, batches)
            sides.append([np.concatenate(arrays) for arrays in zip(*outputs, strict=True)])
    return tuple(np.stack(arrays) for arrays in zip(*sides, strict=True))


def _write_chunk(folder: Path, digests: Sequence[str], arrays: dict[str, NDArray[np.float32]]) -> None:
    """Write the arrays, then the list of their pictures: arrays without a list are incomplete and never read."""
    name = hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:20]
    for output, array in arrays.items():
        with atomic_write(_file(folder, name, output)) as temporary, temporary.open("wb") as file:
            np.save(file, array.astype(np.float16) if output == "maps" else array)
    write_atomically(folder / f"{name}.json", json.dumps(digests).encode())


def _file(folder: Path, name: str, output: str) -> Path:
    return folder / f"{name}.{output}.npy"


def _cached_rows(folder: Path) -> dict[str, tuple[str, int]]:
    """The chunk and the row of each cached picture, by its digest."""
    try:
        return {
            digest: (listing.stem, row)
            for listing in sorted(folder.glob("*.json"))
            for row, digest in enumerate(json.loads(listing.read_text(encoding="utf-8")))
        }
    except ValueError as error:
        raise _damaged(folder) from error


def _damaged(folder: Path) -> DataError:
    return DataError(f"the cached maps in {folder} are damaged: delete this folder, and they are computed again")


def _network_digest(network: FrozenTrunk, input_format: InputFormat) -> str:
    """A hash of the input format and of the weights with their names.

    These names contain attributes of FrozenTrunk and MGN: renaming an attribute invalidates every cache.
    """
    digest = hashlib.sha256(input_format.model_dump_json().encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]
