"""Batches of any size with a network prepared for a few sizes, as on GPUs; here its steps run on the CPU."""

import numpy as np
import pytest

from model.checkpoint import BUNDLED, load_checkpoint
from model.reference import patches
from tests.app.tiny_checkpoint import tiny_metadata

torch = pytest.importorskip("torch")

from app.embedding.fixed_batches import FixedBatches  # noqa: E402
from model.backbones import build_backbone  # noqa: E402
from model.mgn import MGN, Embedder, load_embedder  # noqa: E402


class EagerStep:
    """Runs the network and records the batch size of each call."""

    def __init__(self, embedder: Embedder, size: int, called: list[int]) -> None:
        self.inputs = torch.zeros((size, 64, 32, 3), dtype=torch.uint8)
        self._outputs = torch.empty((size, 8, 256))
        self._embedder = embedder
        self._called = called

    def __call__(self) -> torch.Tensor:
        self._called.append(len(self.inputs))
        return self._outputs.copy_(self._embedder(self.inputs))


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    metadata = tiny_metadata()
    torch.manual_seed(1)
    return Embedder(MGN(build_backbone(metadata.architecture), metadata.architecture), metadata.input).eval()


@pytest.mark.parametrize(
    ("count", "steps"), [(1, [1]), (2, [4]), (4, [4]), (5, [8]), (8, [8]), (9, [8, 1]), (19, [8, 8, 4])]
)
def test_any_number_of_crops_is_embedded_as_each_alone(embedder: Embedder, count: int, steps: list[int]) -> None:
    called: list[int] = []
    batches = FixedBatches({size: EagerStep(embedder, size, called) for size in (8, 1, 4)})
    crops = torch.from_numpy(np.ascontiguousarray(patches(count, (64, 32), seed=3)))
    with torch.inference_mode():
        batches(torch.full_like(crops, 255))  # old content of the buffers must not matter
        called.clear()
        found = batches(crops)
        alone = torch.cat([embedder(crops[i : i + 1]) for i in range(count)])
    assert called == steps
    assert found.shape == (count, 8, 256)
    assert (found - alone).abs().max() < 1e-5


def test_float16_is_closer_to_the_reference_embeddings_than_bfloat16() -> None:
    checkpoint = load_checkpoint(BUNDLED.with_suffix(".safetensors"))
    network = load_embedder(checkpoint)
    crops = torch.from_numpy(np.ascontiguousarray(patches(4, checkpoint.metadata.input.size, seed=5)))

    def lowest_cosine(precision: torch.dtype) -> float:
        with torch.inference_mode(), torch.autocast("cpu", precision):
            return float((network(crops) * exact).sum(dim=(1, 2)).min())

    with torch.inference_mode():
        exact = network(crops)
    assert lowest_cosine(torch.float16) > 0.9999
    assert lowest_cosine(torch.bfloat16) < lowest_cosine(torch.float16)
