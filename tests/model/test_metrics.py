"""Metrics equal their definitions and published figures."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.evaluate import Protocol, evaluate, read_features
from model.metrics import Metrics, average_precision, rank_queries, score_ranking


def rank(similarities: list[float], pids: list[int], cameras: list[int]) -> list[int]:
    """The ranks of the right answers to a query of person 1 from camera 1."""
    block, person = np.array([similarities], dtype=np.float32), np.array([1])
    (ranked,) = rank_queries([block], person, person, np.array(pids), np.array(cameras))
    return ranked.ranks.tolist()


def test_both_average_precisions_of_an_example_are_right() -> None:
    step, trapezoid = average_precision(np.array([1, 2, 4, 7]))
    assert step == pytest.approx(0.8304, abs=5e-5)
    assert trapezoid == pytest.approx(0.8110, abs=5e-5)


def test_the_same_person_by_the_same_camera_does_not_count() -> None:
    assert rank([0.9, 0.8, 0.7], pids=[1, 2, 1], cameras=[1, 1, 2]) == [2]


def test_another_person_by_the_same_camera_and_distractors_count() -> None:
    assert rank([0.9, 0.8, 0.7], pids=[2, 0, 1], cameras=[1, 3, 2]) == [3]


def test_equal_similarities_keep_the_order_of_the_gallery() -> None:
    assert rank([0.5, 0.5, 0.5, 0.5], pids=[2, 1, 3, 1], cameras=[2, 2, 2, 2]) == [2, 4]


def test_a_query_without_right_answer_is_left_out_and_counted() -> None:
    similarities = np.array([[0.9, 0.1], [0.9, 0.1]], dtype=np.float32)
    metrics = score_ranking(
        iter([similarities]), np.array([1, 5]), np.array([1, 1]), np.array([1, 2]), np.array([2, 2])
    ).means()
    assert (metrics.queries, metrics.unanswerable, metrics.rank1) == (1, 1, 1.0)


def test_queries_without_other_cameras_are_unanswerable() -> None:
    metrics = score_ranking(
        iter([np.ones((1, 2), dtype=np.float32)]), np.array([1]), np.array([1]), np.array([1, 2]), np.array([1, 1])
    ).means()
    assert metrics.queries == 0
    assert metrics.unanswerable == 1


def brute_force(similarities: np.ndarray, qp: np.ndarray, qc: np.ndarray, gp: np.ndarray, gc: np.ndarray) -> Metrics:
    """The metrics by their definitions, with full sorting."""
    rows = []
    for row, pid, camera in zip(similarities, qp, qc, strict=True):
        keep = ~((gp == pid) & (gc == camera))
        order = np.argsort(-row[keep], kind="stable")
        right = (gp[keep] == pid)[order]
        if right.any():
            ranks = np.flatnonzero(right) + 1
            precision = np.arange(1, len(ranks) + 1) / ranks
            rows.append((ranks[0] <= 1, ranks[0] <= 5, ranks[0] <= 10, precision.mean(), len(ranks) / ranks[-1]))
    means = np.mean(rows, axis=0) if rows else np.full(5, np.nan)
    return Metrics(len(rows), len(qp) - len(rows), means[0], means[1], means[2], np.nan, means[3], np.nan, means[4])


@given(seed=st.integers(0, 10_000))
def test_metrics_equal_brute_force_also_with_many_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    similarities = rng.integers(0, 6, (5, 30)).astype(np.float32)
    qp, qc, gp, gc = (rng.integers(1, 5, n) for n in (5, 5, 30, 30))
    ours = score_ranking(iter([similarities[:2], similarities[2:]]), qp, qc, gp, gc).means()
    theirs = brute_force(similarities, qp, qc, gp, gc)
    for name in ("queries", "unanswerable", "rank1", "rank5", "rank10", "map_step", "minp"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), nan_ok=True), name


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(("network", "kind"), [("0287", "plain"), ("0288", "plain"), ("0287", "reranked")])
def test_golden_features_give_the_published_figures(shared: Path, network: str, kind: str) -> None:
    golden = shared / "data" / "golden"
    expected = json.loads((golden / "expected.json").read_text())["files"][f"{network}.npz"][kind]
    protocol = Protocol(rerank=kind == "reranked")
    ours = evaluate(*read_features(golden / f"{network}.npz"), protocol).metrics.as_dict()
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-4), name
