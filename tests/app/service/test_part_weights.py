"""Searches with a model that weights its parts, on each kind of index."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest

from app.index.segment import Segment
from app.settings import Settings
from model.architecture import PARTS
from tests.app.running import embed, jpeg, running_service, search, stored
from tests.app.tiny_checkpoint import tiny_metadata, write_tiny_checkpoint
from tests.app.waiting import until

SHARES = np.array([0.3, 0.05, 0.05, 0.2, 0.1, 0.15, 0.1, 0.05])
"""The squares of the model's part weights."""

CROPS = 60


@pytest.fixture(scope="module", params=["exact", "segment", "milvus"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service with such a model and `CROPS` crops in that kind of index; the tests change nothing.

    Its database is of one kind, as the arithmetic does not depend on it.
    """
    folder = tmp_path_factory.mktemp("weights")
    metadata = tiny_metadata(name="unequal")
    checkpoint = write_tiny_checkpoint(folder / "unequal.onnx", metadata, part_weights=np.sqrt(SHARES).tolist())
    settings = Settings(data_dir=folder / "data", checkpoint=checkpoint, index_poll_seconds=0.05)
    if request.param == "milvus":
        settings = settings.model_copy(update={"index_url": request.getfixturevalue("milvus_lite")})
    if request.param == "segment":
        settings = settings.model_copy(update={"index_exact_limit": 20})
    with running_service(settings) as client:
        for seed in range(CROPS):
            stored(client, seed, camera="gate", person_id=f"p{seed}")
        if request.param == "segment":
            _wait_for_segment(client)
        yield client


def _wait_for_segment(client: httpx.Client) -> None:
    search_segment = Segment.search
    compared = []

    def counting(self: Segment, *asked: Any) -> Any:
        compared.append(asked)
        return search_segment(self, *asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segment, "search", counting)
        until(lambda: search(client, jpeg(0)).status_code == 200 and len(compared) > 0)


def embeddings(client: httpx.Client, *seeds: int) -> np.ndarray:
    """The embeddings of pictures, `(N, 8, 256)`."""
    answer = embed(client, *map(jpeg, seeds), store="false", include="parts").json()
    return np.array([list(item["embedding"]["parts"].values()) for item in answer["items"]])


def by_hand(query: np.ndarray, crops: np.ndarray, named: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """The similarity of each crop `(N,)`, and the cosines of its parts `(N, 8)`."""
    lengths = np.linalg.norm(query, axis=1) * np.linalg.norm(crops, axis=2)
    cosines = (query * crops).sum(axis=2) / lengths
    return np.average(cosines, axis=1, weights=SHARES * [named.get(part, 1) for part in PARTS]), cosines


@pytest.mark.parametrize("named", [{}, {"global": 0, "upper_half": 3}, {"bottom_third": 8, "lower_half": 0.5}])
def test_matches_are_ranked_with_the_weights_of_parts(client: httpx.Client, named: dict[str, float]) -> None:
    query, *crops = embeddings(client, 777, *range(CROPS))
    similarities, cosines = by_hand(query, np.stack(crops), named)
    answer = search(client, jpeg(777), part_weights=json.dumps(named), top_k=CROPS).json()
    matches = answer["matches"]
    assert len(matches) == CROPS
    for match in matches:
        seed = int(match["crop"]["person_id"][1:])
        assert list(match["parts"].values()) == pytest.approx(cosines[seed].tolist(), abs=5e-4)
        assert match["similarity"] == pytest.approx(similarities[seed], abs=5e-4)
        mean = np.average(list(match["parts"].values()), weights=SHARES * [named.get(part, 1) for part in PARTS])
        assert match["similarity"] == pytest.approx(mean, abs=2e-6)
    ranked = [similarities[int(match["crop"]["person_id"][1:])] for match in matches]
    assert all(better > worse - 1e-3 for better, worse in pairwise(ranked))
    least = matches[9]["similarity"] - 1e-5
    cut = search(client, jpeg(777), part_weights=json.dumps(named), top_k=CROPS, min_similarity=least).json()["matches"]
    assert cut == [match for match in matches if match["similarity"] >= least]


def test_queries_of_pictures_and_of_crops_use_the_same_shares(client: httpx.Client) -> None:
    one, other, *crops = embeddings(client, 5, 777, *range(CROPS))
    query = (one + other) / 2
    query *= (np.sqrt(SHARES) / np.linalg.norm(query, axis=1))[:, np.newaxis]
    similarities, _ = by_hand(query, np.stack(crops), {})
    matches = search(client, jpeg(5), jpeg(777), top_k=CROPS).json()["matches"]
    for match in matches:
        assert match["similarity"] == pytest.approx(similarities[int(match["crop"]["person_id"][1:])], abs=5e-4)
    crop_id = next(match["crop"]["id"] for match in matches if match["crop"]["person_id"] == "p5")
    by_crop = client.post("/search", data={"crop_ids": [crop_id], "top_k": 1}).json()["matches"]
    by_picture = search(client, jpeg(5), top_k=2).json()["matches"]
    assert by_picture[0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert by_crop[0]["crop"]["id"] == by_picture[1]["crop"]["id"]
    assert by_crop[0]["similarity"] == pytest.approx(by_picture[1]["similarity"], abs=5e-4)
