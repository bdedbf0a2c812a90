"""Over HTTP, the service has the figures of its checkpoint's evaluation."""

from pathlib import Path

import pytest

from app.settings import Settings
from bench.retrieval import metrics_over_http
from model.checkpoint import BUNDLED
from model.datasets import open_data_set
from model.datasets.base import EvaluationSplit, hold_out
from model.datasets.synthetic import DRAWN_PEOPLE, Synthetic
from model.evaluate import embed_split, evaluate
from model.loading import load_for_inference
from tests.app.running import running_service

pytestmark = pytest.mark.slow


def assert_same_figures(split: EvaluationSplit, tmp_path: Path) -> None:
    offline = evaluate(*embed_split(split, load_for_inference(BUNDLED))).metrics
    with running_service(Settings(data_dir=tmp_path / "data")) as client:
        over_http = metrics_over_http(client, split)
    for name, value in offline.as_dict().items():
        assert over_http.as_dict()[name] == pytest.approx(value, abs=1e-3), name
    assert offline.rank1 > 0.9


def test_figures_over_http_equal_the_evaluation_of_drawn_people(tmp_path: Path) -> None:
    _, split = hold_out(Synthetic(DRAWN_PEOPLE).train(), 10)
    assert_same_figures(split, tmp_path)


@pytest.mark.shared
def test_figures_over_http_equal_the_evaluation_of_held_out_persons(shared: Path, tmp_path: Path) -> None:
    _, split = hold_out(open_data_set(f"market1501:{shared / 'data' / 'market1501'}").train(), 10)
    assert_same_figures(split, tmp_path)
