"""The report of a training run contains its log and checkpoint in one file that fetches nothing."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.calibration import Calibration, LogisticMap
from model.checkpoint import Checkpoint, TrainingData, save_checkpoint
from model.errors import ModelError
from model.report import EvaluatedSplit, curves_of, read_log, write_report
from model.visualize.charts import cmc_figure, losses_figure
from tests.model.evaluation_factories import (
    Page,
    drawn_crops,
    drawn_ranking,
    ranking_of,
    read_page,
    run_model,
    write_log,
)
from tests.model.model_factories import RESULT, write_checkpoint


def log_lines(count: int = 5, **losses: float) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for iteration in range(10, 10 * count + 1, 10):
        figures = losses or {"softmax": 6.0, "triplet": 0.4}
        lines.append({"iteration": iteration, **figures, "learning_rate": 1e-3, "crops_per_second": 60.0})
    return [*lines, {"iteration": 10 * count, "validation": {"rank1": 0.5, "map_step": 0.4}}]


def write_described_checkpoint(path: Path, **changes: Any) -> Checkpoint:
    plain = write_checkpoint(path)
    recipe = {"seed": 3, "loss": {"margin": 1.2, "kinds": ["softmax", "<triplet>"]}, "average": None}
    metadata = plain.metadata.model_copy(update={"results": (RESULT,), "recipe": recipe} | changes)
    return save_checkpoint(path, plain.weights, metadata)


def charts_of(page: Page) -> list[str]:
    return [e.attributes["alt"] for e in page.elements if e.attributes.get("src", "").startswith("data:image/svg")]


def tiles_of(page: Page) -> dict[str, str]:
    tiles = [page.inside(tile) for tile in page.of_class("tile")]
    return {name.text: figure.text for figure, name in tiles}


def test_the_report_of_an_unfinished_run_has_only_curves(tmp_path: Path) -> None:
    page = read_page(write_report(write_log(tmp_path / "run", log_lines())))
    assert [title.removesuffix(" over iterations") for title in charts_of(page)] == [
        "Losses", "On the held-out identities", "Learning rate", "Crops per second",
    ]  # fmt: skip
    assert "The run is not finished" in page.text


def test_a_report_contains_results_recipe_and_data(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "run", log_lines())
    facts = TrainingData(name="Drawn", terms="free", identities=1234, crops=9, held_out_identities=6, teacher="T <1>")
    page = read_page(write_report(folder, write_described_checkpoint(folder / "c.safetensors", training_data=facts)))
    tiles = tiles_of(page)
    assert tiles["rank-1"] == "91.2 %"
    assert tiles["mAP (step)"] == "83.4 %"
    assert "6 identities held out; 11 queries" in page.text
    assert "1,234 identities" in page.text
    cells = [element.text for element in page.elements if element.tag == "td"]
    assert dict(zip(cells[::2], cells[1::2], strict=True)) | {
        "seed": "3", "margin": "1.2", "kinds": "softmax, <triplet>", "average": "none", "teacher": "T <1>",
        "held out": "6", "terms": "free",
    } == dict(zip(cells[::2], cells[1::2], strict=True))  # fmt: skip


def test_a_calibration_is_reported(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "run", log_lines())
    calibration = Calibration(
        map=LogisticMap(slope=14, intercept=-7), data="Drawn", fitted_identities=3, judged_identities=4, same_pairs=5,
        different_pairs=6, natural_prior=0.1, expected_calibration_error=0.0123,
    )  # fmt: skip
    page = read_page(
        write_report(folder, write_described_checkpoint(folder / "c.safetensors", calibration=calibration))
    )
    assert "logistic, on Drawn; expected calibration error 1.23 %" in page.text


def test_given_features_are_used_for_the_ranked_examples(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "run", log_lines())
    ranking = drawn_ranking(noise=4.0)
    evaluated = EvaluatedSplit("Drawn, held out", ranking.split, (ranking.query, ranking.gallery))
    page = read_page(write_report(folder, write_described_checkpoint(folder / "c.safetensors"), evaluated))
    assert "CMC curve on Drawn, held out" in charts_of(page)
    shown = [panel.attributes["title"] for panel in page.of_class("query")]
    assert len(shown) == len(set(shown)) == 10
    by_name = {sample.path.name: sample.pid for sample in ranking.split.query}
    assert len({by_name[name] for name in shown[:5]}) == 5, "examples are of different persons"
    precision = dict(zip(by_name, ranking.scores().step, strict=True))
    assert max(precision[name] for name in shown[:5]) <= min(precision[name] for name in shown[5:])


def test_missing_features_are_computed(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "run", log_lines())
    evaluated = EvaluatedSplit("Drawn", drawn_ranking().split)
    page = read_page(write_report(folder, write_described_checkpoint(folder / "c.safetensors"), evaluated))
    assert page.of_class("sheet")


def test_a_split_without_right_answers_is_reported(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "run", log_lines())
    ranking = ranking_of([(1, 1)], [(1, 1), (2, 1)])
    evaluated = EvaluatedSplit("Drawn", ranking.split, (ranking.query, ranking.gallery))
    page = read_page(write_report(folder, write_described_checkpoint(folder / "c.safetensors"), evaluated))
    assert "No query of Drawn has a right answer" in page.text
    assert not page.of_class("sheet")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"iteration": 1, "softmax": 5.0}],
        log_lines(3, arcface=2.0, circle=0.0, center=-1.0),
        log_lines(300),
        [{"iteration": 1, "softmax": float("nan")}, {"iteration": 2, "softmax": 3.0, "note": "text"}],
        [{"iteration": 4, "validation": {}}],
    ],
    ids=["empty", "one line", "other losses", "many lines", "not a number", "empty validation"],
)
def test_any_log_gives_a_report(tmp_path: Path, lines: list[dict[str, object]]) -> None:
    read_page(write_report(write_log(tmp_path / "run", lines)))


def test_curves_contain_the_logged_values_by_name() -> None:
    curves = curves_of(
        [
            {"iteration": 1, "softmax": 5.0},
            {"iteration": 2, "softmax": float("inf"), "circle": 1},
            {"iteration": 3, "softmax": 4.0, "validation": {"rank1": 1.0}, "note": "x"},
        ]
    )
    assert curves == {"softmax": ([1, 3], [5.0, 4.0]), "circle": ([2], [1.0])}


def test_long_loss_curves_are_drawn_with_their_moving_mean() -> None:
    few, many = (list(np.linspace(6, 1, count)) for count in (10, 200))
    (axes,) = losses_figure("Losses", {"softmax": (range(10), few)}).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [few]
    (axes,) = losses_figure("Losses", {"softmax": (range(200), many)}).axes
    raw, mean = (np.asarray(line.get_ydata()) for line in axes.lines)
    assert raw.tolist() == many
    assert len(mean) < 200
    assert mean.max() < raw.max()


def test_losses_of_zero_are_drawn_on_a_plain_scale() -> None:
    scales = [
        losses_figure("Losses", {"a": ([1, 2], values)}).axes[0].get_yscale() for values in ([1.0, 2.0], [1.0, 0.0])
    ]
    assert scales == ["log", "linear"]


def test_a_cmc_curve_shows_its_numbers() -> None:
    (axes,) = cmc_figure(np.array([0.8, 0.9, 1.0])).axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 0.8], [2, 0.9], [3, 1.0]]


def test_a_report_is_the_same_when_it_is_written_again(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "run", log_lines())
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    svg = first.split(b"data:image/svg+xml;base64,")[1].split(b'"')[0]
    assert b"<svg" in base64.b64decode(svg)


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "run", log_lines(2))
    path = folder / "log.jsonl"
    path.write_text(path.read_text() + '{"iteration": 30, "soft')
    assert [line["iteration"] for line in read_log(path)] == [10, 20, 20]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read the log"),
        ('{"iteration": 1}\nnonsense\n{"iteration": 2}\n', "line 2 of .* is not JSON"),
        ('{"iteration": 1}\n[1]\n', "line 2 of .* is not a line of a training log"),
        ('{"step": 1}\n', "line 1 of .* is not a line of a training log"),
    ],
)
def test_a_file_that_is_not_a_log_is_reported(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises(ModelError, match=words):
        write_report(tmp_path)


def test_the_command_writes_the_report_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_log(tmp_path / "run", log_lines())
    write_described_checkpoint(folder / "checkpoint.safetensors")
    ended = run_model(monkeypatch, capsys, "report", folder, "--data", f"synthetic:{drawn_crops()}", "--hold-out", 6)
    assert ended.code == 0, ended.err
    assert "report.html" in ended.out
    page = read_page(folder / "report.html")
    assert "CMC curve on synthetic, 6 identities held out of the training part" in charts_of(page)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("nowhere",), "cannot read the log"),
        (("run", "--hold-out", 6), "needs --data"),
        (("run", "--data", "synthetic:nowhere"), "there is no run/checkpoint.safetensors yet"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "run", log_lines())
    ended = run_model(monkeypatch, capsys, "report", *options)
    assert ended.code == 2
    assert words in ended.err
