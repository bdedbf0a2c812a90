"""What a frozen trunk makes of the training pictures, computed once and kept on disk for all runs that share it."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.checkpoint import InputFormat
from model.mgn import MGN, Normalise
from model.onnx_session import session_of
from model.pictures import read_inputs
from model.training.inputs import picture_digest

PICTURES_A_CHUNK = 512

_BATCH = 8

Arrays = tuple[NDArray[np.float32], ...]

Compute = Callable[[NDArray[np.uint8]], Arrays]
"""`(N, height, width, 3)` uint8 RGB -> what `FrozenTrunk` gives."""


@dataclass(frozen=True)
class TrunkMaps:
    """The maps of N pictures as they are and mirrored, and the features of the network that a run starts from.

    chunks: memory-mapped `(2, n, C, H, W)` float16; place: `(N, 2)`, each picture's chunk and row; features:
    `(2, N, 256)` float32, not normalised, or None where the network has no head of its own.
    """

    chunks: tuple[NDArray[np.float16], ...]
    place: NDArray[np.int64]
    features: NDArray[np.float32] | None

    def of(self, chosen: Tensor, flipped: Tensor) -> Tensor:
        """`(n, C, H, W)` float16: the maps of the pictures with the numbers `chosen`, mirrored where `flipped`."""
        rows = zip(self.place[chosen.numpy()], flipped.long().tolist(), strict=True)
        return torch.from_numpy(np.stack([self.chunks[chunk][mirrored, row] for (chunk, row), mirrored in rows]))


class FrozenTrunk(nn.Module):
    """The trunk of an MGN before training, and the network's own features where it has a head for them.

    `(N, height, width, 3)` uint8 RGB -> maps `(N, C, H, W)`, and features `(N, 256)`.
    """

    def __init__(self, mgn: MGN, input_format: InputFormat) -> None:
        super().__init__()
        self.trunk = nn.Sequential(Normalise(input_format), mgn.trunk)
        self.own = nn.Sequential(mgn.branches[0], mgn.reductions[0], nn.Flatten()) if mgn.config.own_heads else None

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it gives, by name."""
        return ("maps",) if self.own is None else ("maps", "features")

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        maps = self.trunk(crops)
        return (maps,) if self.own is None else (maps, self.own(maps))


def trunk_maps(mgn: MGN, input_format: InputFormat, paths: Sequence[Path], cache: Path) -> TrunkMaps:
    """The maps of all pictures, of which those that the cache has not are computed.

    The cache has a folder for each network and input, and in it files for some hundred pictures each; a picture is
    known by its path, size and time, as in `cached_inputs`. A run that was killed while it computed goes on with what
    is left. Raises DataError, which names a picture that cannot be read.
    """
    network = FrozenTrunk(mgn, input_format).eval()
    folder = cache / f"maps-{_network_digest(network, input_format)}"
    wanted = [picture_digest(path) for path in paths]
    known = _known(folder)
    missing = [number for number, digest in enumerate(wanted) if digest not in known]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        compute = fastest_runtime(network, input_format)
        for start in range(0, len(missing), PICTURES_A_CHUNK):
            some = missing[start : start + PICTURES_A_CHUNK]
            pictures = read_inputs([paths[number] for number in some], input_format)
            arrays = dict(zip(network.outputs, _both_sides(compute, pictures), strict=True))
            _write_chunk(folder, [wanted[number] for number in some], arrays)
        known = _known(folder)
    used = sorted({known[digest][0] for digest in wanted})
    number_of = {name: number for number, name in enumerate(used)}
    place = np.array([(number_of[known[digest][0]], known[digest][1]) for digest in wanted], dtype=np.int64)
    features = None
    if network.own is not None:
        stored = [np.load(_file(folder, name, "features")) for name in used]
        features = np.stack([stored[number][:, row] for number, row in place], axis=1)
    maps = tuple(np.load(_file(folder, name, "maps"), mmap_mode="r") for name in used)
    return TrunkMaps(maps, place, features)


def fastest_runtime(network: FrozenTrunk, input_format: InputFormat) -> Compute:
    """The network on the GPU that it is on; on the CPU in ONNX Runtime, which takes half of torch's time.

    There each thread that calls computes alone, so that as many batches as there are cores can be computed at once.
    """
    device = next(network.parameters()).device
    if device.type == "cuda":
        return lambda crops: _in_torch(network, device, crops)
    from model.export import export_graph

    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "trunk.onnx"
        export_graph(network, input_format.size, path, network.outputs)
        session = session_of(path, threads=1)
    return lambda crops: tuple(session.run(list(network.outputs), {"crops": crops}))


def _in_torch(network: FrozenTrunk, device: torch.device, crops: NDArray[np.uint8]) -> Arrays:
    with torch.inference_mode():
        return tuple(array.float().cpu().numpy() for array in network(torch.from_numpy(crops).to(device)))


def _both_sides(compute: Compute, pictures: NDArray[np.uint8]) -> Arrays:
    """What the network gives of pictures and of their mirror images: `(2, N, ...)` each."""
    sides = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for side in (pictures, pictures[:, :, ::-1]):
            batches = [np.ascontiguousarray(side[start : start + _BATCH]) for start in range(0, len(side), _BATCH)]
            outputs = pool.map(compute, batches)
            sides.append([np.concatenate(arrays) for arrays in zip(*outputs, strict=True)])
    return tuple(np.stack(arrays) for arrays in zip(*sides, strict=True))


def _write_chunk(folder: Path, digests: Sequence[str], arrays: dict[str, NDArray[np.float32]]) -> None:
    """Write the arrays, then the list of the pictures that they are of: only what is listed is ever read."""
    name = hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:20]
    for output, array in arrays.items():
        temporary = folder / f"{name}.{output}.{os.getpid()}.tmp"
        with temporary.open("wb") as file:
            np.save(file, array.astype(np.float16) if output == "maps" else array)
        temporary.replace(_file(folder, name, output))
    temporary = folder / f"{name}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(digests), encoding="utf-8")
    temporary.replace(folder / f"{name}.json")


def _file(folder: Path, name: str, output: str) -> Path:
    return folder / f"{name}.{output}.npy"


def _known(folder: Path) -> dict[str, tuple[str, int]]:
    """The chunk and the row of each picture that the cache has."""
    return {
        digest: (listing.stem, row)
        for listing in sorted(folder.glob("*.json"))
        for row, digest in enumerate(json.loads(listing.read_text(encoding="utf-8")))
    }


def _network_digest(network: FrozenTrunk, input_format: InputFormat) -> str:
    """Of everything that maps and features follow from but the pictures."""
    digest = hashlib.sha256(input_format.model_dump_json().encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]
