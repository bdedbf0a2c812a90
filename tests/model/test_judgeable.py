"""A split is judged by a stated rule, or it is said what is missing before anything is embedded or trained."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.checkpoint import TrainingData, load_checkpoint
from model.datasets import open_data_set
from model.datasets.base import NO_CAMERA, Sample, evaluation_split, hold_out
from model.errors import DataError
from model.evaluate import LabelledFeatures, Protocol, evaluate
from model.splits import QueryRule, all_persons, have_answers, judgeable, labels_of, require_held_out, split_of_all
from tests.cases import CASES
from tests.model.evaluation_factories import CommandResult, read_page, run_model
from tests.model.model_factories import write_checkpoint, write_market
from tests.model.places import MARKET, described_checkpoint
from tests.model.small_sites import Seen, one_crop_a_camera, write_site
from tests.model.training_factories import QUICK

VIPER = CASES / "one_crop_a_camera"


def samples(*seen: tuple[int, int | None, int]) -> list[Sample]:
    return [
        Sample(Path(f"{pid:04}_c{camera}_{i}.jpg"), pid, NO_CAMERA if camera is None else camera)
        for pid, camera, count in seen
        for i in range(count)
    ]


def answerable(split: Any) -> int:
    return sum(have_answers(labels_of(split.query), labels_of(split.gallery)))


class Commands:
    """Runs commands in this process with a tiny checkpoint."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.checkpoint = folder / "c.safetensors"
        write_checkpoint(self.checkpoint)
        self._tools = monkeypatch, capsys
        monkeypatch.setenv("COLUMNS", "120")

    def run(self, *arguments: object) -> CommandResult:
        return run_model(*self._tools, *arguments)

    def evaluate(self, data: str, *options: object) -> CommandResult:
        return self.run("evaluate", "--checkpoint", self.checkpoint, "--data", data, *options)

    def calibrate(self, data: str, *options: object) -> CommandResult:
        line = ("calibrate", "--checkpoint", self.checkpoint, "--data", data, "--out", self.folder / "k.safetensors")
        return self.run(*line, *options)

    def visualize(self, data: str, *options: object) -> CommandResult:
        line = ("visualize", "--checkpoint", self.checkpoint, "--data", data, "--out", self.folder / "pages")
        return self.run(*line, *options)

    def train(self, data: str, *options: object, changes: dict[str, object] | None = None) -> CommandResult:
        line: list[object] = ["train", "mobile", "--data", data, "--out", self.folder / "run"]
        line += ["--cache", self.folder / "cache"]
        for name, value in (QUICK | {"schedule.iterations": 2, "batch.identities": 2} | (changes or {})).items():
            line += ["--set", f"{name}={json.dumps(value)}"]
        return self.run(*line, *options)

    def adapt(self, data: str, *options: object) -> CommandResult:
        line: list[object] = ["adapt", "--from", self.checkpoint, "--data", data, "--out", self.folder / "adapted"]
        line += ["--cache", self.folder / "cache"]
        for setting in ("schedule.iterations=2", "schedule.warm_up=1", "batch.crops=2", "augmentation.jitter=0.0"):
            line += ["--set", setting]
        return self.run(*line, *options)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path, monkeypatch, capsys)


def test_a_split_that_works_stays_as_it_is() -> None:
    data = samples(*((pid, camera, 1 + (pid + camera) % 3) for pid in range(1, 30) for camera in (1, 2, 3)))
    for split in (hold_out(data, 10)[1], evaluation_split(data)):
        judged = judgeable(split)
        assert judged.split is split
        assert judged.rule is QueryRule.CAMERA


def test_with_one_crop_a_camera_one_crop_of_each_person_is_a_query() -> None:
    data = samples(*one_crop_a_camera(40))
    _, held_out = hold_out(data, 20)
    judged = judgeable(held_out)
    assert judged.rule is QueryRule.PERSON
    persons = {sample.pid for sample in held_out.query}
    assert Counter(sample.pid for sample in judged.split.query) == dict.fromkeys(persons, 1)
    assert sorted((*judged.split.query, *judged.split.gallery), key=str) == sorted(held_out.query, key=str)
    assert answerable(judged.split) == 20
    assert {sample.camera for sample in judged.split.query} == {1, 2}, "wrong answers by the query's camera count, too"
    assert judgeable(held_out) == judged
    assert judgeable(held_out, seed=1) != judged


def test_the_usual_rule_holds_if_it_can_find_half_of_the_persons() -> None:
    twice = [(pid, camera, 2) for pid in range(1, 6) for camera in (1, 2)]
    half = samples(*twice, *((pid, camera, 1) for pid in range(6, 11) for camera in (1, 2)))
    assert judgeable(evaluation_split(half)).rule is QueryRule.CAMERA
    fewer = judgeable(evaluation_split([*half, *samples((11, 1, 1), (11, 2, 1))]))
    assert fewer.rule is QueryRule.PERSON
    assert answerable(fewer.split) == 11


LABELS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from([NO_CAMERA, 1, 2])), min_size=1, max_size=8)


@given(query=LABELS, gallery=LABELS, same_camera=st.booleans())
def test_a_query_has_an_answer_where_the_evaluation_finds_one(
    query: list[tuple[int, int]], gallery: list[tuple[int, int]], same_camera: bool
) -> None:
    sides = []
    for labels in (query, gallery):
        pids, cameras = (np.array(column) for column in zip(*labels, strict=True))
        sides.append(LabelledFeatures(np.ones((len(labels), 1), np.float32), pids, cameras))
    answers = have_answers(query, gallery, same_camera)
    assert sum(answers) == evaluate(sides[0], sides[1], Protocol(cameras=not same_camera)).metrics.queries


@pytest.mark.parametrize("run", ["evaluate", "calibrate", "visualize"])
def test_one_crop_a_camera_can_be_judged(commands: Commands, tmp_path: Path, run: str) -> None:
    site = write_site(tmp_path / "site", one_crop_a_camera(12))
    ended: CommandResult = getattr(commands, run)(f"folder:{site}", "--hold-out", 8)
    assert ended.code == 0, ended.err
    output = " ".join(ended.out.split())
    assert "site, 8 identities held out of the training part, one query a person" in output
    assert "one crop of each person is a query" in output
    assert "nan" not in output.lower()


def test_the_case_of_three_persons_is_evaluated_and_shown(commands: Commands) -> None:
    data = f"folder:{VIPER}"
    ended = commands.evaluate(data, "--json")
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert (result["queries"], result["unanswerable"], result["gallery_crops"]) == (3, 0, 3)
    assert result["part"] == "all 3 persons seen by two cameras or more, one query a person"
    shown = commands.visualize(data)
    assert shown.code == 0, shown.err
    assert "no map is drawn: a map needs 5 crops" in " ".join(shown.out.split())
    page = read_page(commands.folder / "pages" / "index.html")
    assert "one query a person" in page.text
    assert not (commands.folder / "pages" / "map.html").exists()


def test_a_run_on_one_crop_a_camera_is_judged_and_its_result_says_how(commands: Commands, tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", one_crop_a_camera(8))
    ended = commands.train(f"folder:{site}", "--hold-out", 4)
    assert ended.code == 0, ended.err
    (result,) = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").metadata.results
    assert result.queries == 4
    assert result.protocol.startswith("4 identities held out of the training part, one query a person (same cameras")
    assert "one query a person" in read_page(tmp_path / "run" / "report.html").text
    again = commands.run("report", tmp_path / "run", "--data", f"folder:{site}")
    assert again.code == 0, again.err
    assert "4 identities held out of the training part, one query a person" in " ".join(again.out.split())


def test_a_checkpoint_adapts_to_one_crop_a_camera(commands: Commands, tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", one_crop_a_camera(12))
    ended = commands.adapt(f"folder:{site}", "--hold-out", 4)
    assert ended.code == 0, ended.err
    assert "one query a person" in " ".join(ended.out.split())


def test_a_single_held_out_person_is_noted(commands: Commands) -> None:
    ended = commands.evaluate(f"folder:{VIPER}", "--hold-out", 1)
    assert ended.code == 0, ended.err
    assert "so there is no wrong answer" in " ".join(ended.out.split())


BY_ONE_CAMERA = [(pid, 1, 3) for pid in range(1, 12)]
ONE_CROP_EACH = [(pid, None, 1) for pid in range(1, 12)]
BY_ANOTHER_CAMERA_EACH = [(pid, pid, 2) for pid in range(1, 12)]


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (BY_ONE_CAMERA, "site: all crops are by one camera, so no query has a right answer: add crops of the same"),
        (ONE_CROP_EACH, "none of 11 persons is on two crops, so no query has a right answer: add more crops"),
        (BY_ANOTHER_CAMERA_EACH, "none of 11 persons is seen by two cameras, so no query has a right answer"),
    ],
    ids=["one camera", "one crop each", "a camera each"],
)
@pytest.mark.parametrize("run", ["evaluate", "calibrate", "visualize", "train", "report"])
def test_data_that_cannot_be_judged_is_refused_before_a_picture_is_read(
    commands: Commands, tmp_path: Path, run: str, seen: Seen, words: str
) -> None:
    site = f"folder:{write_site(tmp_path / 'site', seen, pictures=False)}"
    if run == "report":
        described_checkpoint(tmp_path / "checkpoint.safetensors")
        ended = commands.run("report", tmp_path, "--data", site)
    else:
        ended = getattr(commands, run)(site, "--hold-out", 4)
    assert ended.code == 2
    assert words in ended.err
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "pages").exists()


def test_crops_by_one_camera_are_judged_where_the_camera_does_not_count(commands: Commands, tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", BY_ONE_CAMERA)
    ended = commands.evaluate(f"folder:{site}", "--same-camera", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["queries"] == 11
    assert (
        json.loads(commands.evaluate(f"folder:{site}", "--same-camera", "--hold-out", 5, "--json").out)["queries"] == 5
    )


def test_data_without_cameras_is_judged_and_says_so(commands: Commands, tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", [(pid, None, 2) for pid in range(1, 9)])
    for run in (commands.evaluate, commands.calibrate, commands.visualize):
        ended = run(f"folder:{site}")
        assert ended.code == 0, ended.err
        assert "all 8 persons on two crops or more" in " ".join(ended.out.split())


def test_too_many_held_out_persons_are_refused_with_the_most_there_can_be() -> None:
    data = samples(*((pid, camera, 2) for pid in range(1, 7) for camera in (1, 2)), (7, 1, 3))
    with pytest.raises(DataError, match=r"cannot hold out 7 identities: site has 7, 6 of them .*: hold out 6 or fewer"):
        require_held_out(data, 7, "site")
    with pytest.raises(DataError, match=r"hold out 5 or fewer"):
        require_held_out([sample for sample in data if sample.pid != 7], 6, "site")
    with pytest.raises(DataError, match=r"add persons"):
        require_held_out(samples((1, 1, 2), (1, 2, 2)), 1, "site")


@pytest.mark.parametrize(
    ("gallery", "words"),
    [
        ([(3, 2, 2)], "no person of the queries is in it: add crops of the queries' persons"),
        ([(1, 1, 2), (2, 1, 2)], "its crops of each query's person are by the query's own camera"),
    ],
)
def test_a_test_part_without_right_answers_is_refused_before_a_picture_is_read(
    commands: Commands, tmp_path: Path, gallery: Seen, words: str
) -> None:
    site = tmp_path / "site"
    write_site(site / "train", [(8, 1, 1)], pictures=False)
    write_site(site / "query", [(1, 1, 1), (2, 1, 1)], pictures=False)
    write_site(site / "gallery", gallery, pictures=False)
    for run in (commands.evaluate, commands.calibrate, commands.visualize):
        ended = run(f"folder:{site}")
        assert ended.code == 2
        assert "site, test part: no query has a right answer in the gallery" in ended.err
        assert words in ended.err


def parted_site(folder: Path) -> Path:
    """Two persons to train on, four to test on."""
    write_site(folder / "train", [(pid, camera, 2) for pid in (1, 2) for camera in (1, 2)])
    write_site(folder / "query", [(pid, 1, 1) for pid in range(3, 7)])
    write_site(folder / "gallery", [(pid, 2, 2) for pid in range(3, 7)])
    return folder


def test_all_judges_every_person_of_the_data(commands: Commands, tmp_path: Path) -> None:
    data = f"folder:{parted_site(tmp_path / 'site')}"
    assert json.loads(commands.evaluate(data, "--json").out)["part"] == "test part"
    result = json.loads(commands.evaluate(data, "--all", "--json").out)
    assert result["part"] == "all 6 persons seen by two cameras or more"
    assert result["queries"] + result["unanswerable"] == 12
    for run in (commands.calibrate, commands.visualize):
        ended = run(data, "--all")
        assert ended.code == 0, ended.err
        output = " ".join(ended.out.split())
        assert "site, all 6 persons seen by two cameras or more: an unseen place, neither these persons" in output
    calibrated = load_checkpoint(tmp_path / "k.safetensors").metadata.calibration
    assert calibrated is not None
    assert calibrated.data == "site, all 6 persons seen by two cameras or more"


def test_all_says_that_the_checkpoint_was_trained_on_some_of_the_persons(commands: Commands, tmp_path: Path) -> None:
    described_checkpoint(commands.checkpoint, MARKET)
    data = f"market1501:{write_market(tmp_path / 'market')}"
    result = json.loads(commands.evaluate(data, "--all", "--json").out)
    assert result["part"] == "all 12 persons seen by two cameras or more"
    assert result["trained_on_this_place"] == "in-domain, these persons"
    assert "the checkpoint was trained on some of these persons; says nothing of others" in result["notes"][0]
    for run in (commands.calibrate, commands.evaluate):
        ended = run(data, "--all", *(["--record"] if run == commands.evaluate else []))
        assert ended.code == 2
        assert "trained on some of these" in ended.err


@pytest.mark.parametrize("run", ["evaluate", "calibrate", "visualize"])
def test_all_excludes_hold_out(commands: Commands, run: str) -> None:
    ended = getattr(commands, run)(f"folder:{VIPER}", "--all", "--hold-out", 2)
    assert ended.code == 2
    assert "--all judges all persons of the data, --hold-out N some of them: give one of the two" in ended.err


def test_all_persons_keep_distractors_in_the_gallery_and_out_of_the_queries(tmp_path: Path) -> None:
    root = write_market(tmp_path / "market", crops=3)
    picture = next((root / "bounding_box_test").iterdir()).read_bytes()
    for camera in (1, 2):
        (root / "bounding_box_test" / f"0000_c{camera}s1_000000_01.jpg").write_bytes(picture)
    split = split_of_all(all_persons(open_data_set(f"market1501:{root}")), "Market-1501").split
    assert {sample.pid for sample in split.query} == set(range(1, 13))
    assert sum(sample.pid == 0 for sample in split.gallery) == 2
    assert len(split.query) + len(split.gallery) == 12 * 3 * 3 + 2


def test_the_lists_of_msmt17_count_persons_of_each_part_from_zero(tmp_path: Path) -> None:
    for part, names in {"train": ("train", "val"), "test": ("query", "gallery")}.items():
        (tmp_path / part).mkdir()
        for name in names:
            lines = [f"0000/000{pid}_{name}_{camera:02}_x.jpg {pid}" for pid in (0, 1) for camera in (1, 2)]
            (tmp_path / f"list_{name}.txt").write_text("\n".join(lines) + "\n")
    assert {sample.pid for sample in all_persons(open_data_set(f"msmt17:{tmp_path}"))} == {1, 2, 3, 4}


def test_what_training_held_out_is_judged_by_the_same_split(commands: Commands, tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", one_crop_a_camera(8))
    data = TrainingData(name="site", terms="ours", identities=4, crops=8, held_out_identities=4)
    described_checkpoint(commands.checkpoint, data)
    result = json.loads(commands.evaluate(f"folder:{site}", "--json").out)
    assert result["part"] == "4 identities held out of the training part, one query a person"
    assert result["trained_on_this_place"] == "in-domain"
