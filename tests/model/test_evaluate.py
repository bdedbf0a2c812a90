"""An evaluation equals plain definitions of its metrics, and notes its caveats."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bootstrap import confidence_intervals
from model.datasets.base import NO_CAMERA, EvaluationSplit, Sample
from model.errors import DataError
from model.evaluate import LabelledFeatures, Protocol, evaluate, read_features, write_features
from model.metrics import QueryScores
from model.neighbours import lowest_similarities, nearest
from model.queries import expand_queries, multi_query
from model.verification import BINS, PairCounts


def unit(features: np.ndarray) -> np.ndarray:
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def people(
    seed: int, queries: int = 12, gallery: int = 60, cameras: int = 3
) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Crops of six persons, with features around a centre for each person."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(7, 16))
    sides = []
    for count in (queries, gallery):
        pids = rng.integers(1, 7, count)
        features = unit(centres[pids] + 0.8 * rng.normal(size=(count, 16)))
        sides.append(LabelledFeatures(features, pids, rng.integers(1, cameras + 1, count)))
    return sides[0], sides[1]


@pytest.mark.parametrize("seed", range(3))
def test_error_rates_are_those_of_all_pairs(seed: int) -> None:
    query, gallery = people(seed, 40, 400)
    verification = evaluate(query, gallery).verification
    similarities = query.features @ gallery.features.T
    same = query.pids[:, None] == gallery.pids
    valid = ~(same & (query.cameras[:, None] == gallery.cameras))
    positive, negative = similarities[same & valid], np.sort(similarities[~same])[::-1]
    assert (verification.same_pairs, verification.different_pairs) == (len(positive), len(negative))
    for rate, fnmr in verification.fnmr.items():
        threshold = negative[int(rate * len(negative))]  # so many are above it
        low, high = (np.mean(positive < threshold + step) for step in (-2 / BINS, 2 / BINS))
        assert low <= fnmr <= high + 1e-9
    rates, matches = zip(*verification.roc, strict=True)
    assert rates[-1] == 1
    assert matches[-1] == 1
    assert list(matches) == sorted(matches)


def test_too_few_pairs_give_no_rate() -> None:
    counts = PairCounts()
    counts.add_block(np.array([[0.9, 0.1, 0.2]], dtype=np.float32))
    counts.add_query(np.array([0.9], dtype=np.float32), np.empty(0, dtype=np.float32))
    verification = counts.verification((1e-3, 0.5))
    assert np.isnan(verification.fnmr[1e-3])
    assert verification.fnmr[0.5] == 0


@pytest.mark.parametrize("seed", range(3))
def test_camera_pairs_are_rankings_within_one_camera(seed: int) -> None:
    query, gallery = people(seed)
    for pair in evaluate(query, gallery).camera_pairs:
        asked, seen = query.cameras == pair.query_camera, gallery.cameras == pair.gallery_camera
        assert pair.query_camera != pair.gallery_camera
        alone = evaluate(
            LabelledFeatures(query.features[asked], query.pids[asked], query.cameras[asked]),
            LabelledFeatures(gallery.features[seen], gallery.pids[seen], gallery.cameras[seen]),
        ).metrics
        assert (pair.queries, pair.rank1) == (alone.queries, pytest.approx(alone.rank1))
        assert pair.map_step == pytest.approx(alone.map_step)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25)
def test_the_order_of_the_gallery_changes_nothing(seed: int) -> None:
    query, gallery = people(seed)
    order = np.random.default_rng(seed).permutation(len(gallery.pids))
    shuffled = LabelledFeatures(gallery.features[order], gallery.pids[order], gallery.cameras[order])
    for protocol in (Protocol(), Protocol(rerank=True), Protocol(expansion=3), Protocol(multi_query=True)):
        metrics, shuffled_metrics = (evaluate(query, side, protocol).metrics.as_dict() for side in (gallery, shuffled))
        assert metrics == pytest.approx(shuffled_metrics, abs=1e-6)


def test_without_cameras_every_crop_of_the_person_is_right() -> None:
    query, gallery = people(0)
    known = evaluate(query, gallery)
    nameless = LabelledFeatures(query.features, query.pids, np.full_like(query.cameras, NO_CAMERA))
    unknown = evaluate(nameless, LabelledFeatures(gallery.features, gallery.pids, np.full(60, NO_CAMERA)))
    asked = evaluate(query, gallery, Protocol(cameras=False))
    assert unknown.metrics == asked.metrics
    assert unknown.verification.same_pairs > known.verification.same_pairs
    assert "cameras are not known" in unknown.notes[0]
    assert not known.notes


def test_a_single_camera_is_explained() -> None:
    query, gallery = people(0, cameras=1)
    evaluation = evaluate(query, gallery)
    assert evaluation.metrics.queries == 0
    assert "all crops are from one camera" in evaluation.notes[0]
    assert "12 of 12 queries have no right answer" in evaluation.notes[1]


def test_multi_query_averages_all_crops_of_a_person_from_a_camera() -> None:
    query, gallery = people(1)
    joined = multi_query(query.features, (query.pids, query.cameras), gallery.features, (gallery.pids, gallery.cameras))
    for number, (pid, camera) in enumerate(zip(query.pids, query.cameras, strict=True)):
        own = [side.features[(side.pids == pid) & (side.cameras == camera)] for side in (query, gallery)]
        assert joined[number] == pytest.approx(unit(np.concatenate(own).mean(axis=0)[None])[0], abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_queries_are_expanded_by_their_nearest(alpha: float) -> None:
    query, gallery = people(2)
    widened = expand_queries(query.features, gallery.features, 5, alpha)
    similarities = query.features @ gallery.features.T
    for number, row in enumerate(similarities):
        near = np.argsort(-row)[:5]
        weights = np.maximum(row[near], 0) ** alpha
        expected = query.features[number] + (weights[:, None] * gallery.features[near]).sum(axis=0)
        assert widened[number] == pytest.approx(unit(expected[None])[0], abs=1e-5)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 30))
def test_nearest_neighbours_equal_a_full_sort(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    gallery = unit(rng.normal(size=(30, 4)))
    gallery[7] = gallery[3]
    queries = unit(rng.normal(size=(9, 4)))
    similarities, positions = nearest(queries, gallery, count)
    lowest = lowest_similarities(queries, gallery)
    full = queries @ gallery.T
    for number, row in enumerate(full):
        assert similarities[number] == pytest.approx(np.sort(row)[::-1][:count], abs=1e-6)
        assert row[positions[number]] == pytest.approx(similarities[number], abs=1e-6)
        assert len(set(positions[number])) == count
        assert lowest[number] == pytest.approx(row.min(), abs=1e-6)


def test_intervals_contain_the_mean_and_depend_on_the_seed_only() -> None:
    rng = np.random.default_rng(0)
    precision = rng.random(500)
    precision[:20] = np.nan
    scores = QueryScores(
        np.where(np.isnan(precision), np.nan, 1.0), precision, precision, precision, np.ones(500, np.int64)
    )
    low, high = confidence_intervals(scores, 400)["map_step"]
    mean = np.nanmean(precision)
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * np.nanstd(precision) / np.sqrt(480), rel=0.15)
    assert confidence_intervals(scores, 400) == confidence_intervals(scores, 400)
    assert confidence_intervals(scores, 400) != confidence_intervals(scores, 400, seed=1)
    assert confidence_intervals(scores, 400)["rank1"] == (1, 1)


def test_features_are_written_as_they_are_read(tmp_path: Path) -> None:
    query, gallery = people(3)
    samples = [tuple(Sample(Path(f"{p}.jpg"), int(p), 1) for p in side.pids) for side in (query, gallery)]
    write_features(tmp_path / "f.npz", query, gallery, EvaluationSplit(*samples))
    for before, after in zip((query, gallery), read_features(tmp_path / "f.npz"), strict=True):
        assert after.features == pytest.approx(before.features, abs=1e-3)
        assert np.array_equal(after.pids, before.pids)
        assert np.array_equal(after.cameras, before.cameras)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fq": np.ones((2, 3))}, r"fq has shape \(2, 3\), with 12 pids"),
        ({"fq": np.full((12, 16), np.nan)}, "not finite"),
        ({"fq": np.ones((12, 5))}, "have 5 numbers, those of the gallery 16"),
        ({"gp": None}, "gp.*must hold"),
    ],
)
def test_an_error_in_a_features_file_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    query, gallery = people(4)
    arrays = {"fq": query.features, "fg": gallery.features, "qp": query.pids, "gp": gallery.pids}
    arrays = {name: value for name, value in (arrays | change).items() if value is not None}  # type: ignore[dict-item]
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(DataError, match=words):
        read_features(tmp_path / "f.npz")


def test_features_without_cameras_can_be_evaluated(tmp_path: Path) -> None:
    query, gallery = people(5)
    np.savez(tmp_path / "f.npz", fq=query.features, fg=gallery.features, qp=query.pids, gp=gallery.pids)
    evaluation = evaluate(*read_features(tmp_path / "f.npz"))
    assert evaluation.metrics.queries == 12
    assert json.dumps(evaluation.notes)
