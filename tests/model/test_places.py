"""A checkpoint is evaluated on several data sets; every result names its relation to the training data."""

import json
import re
from pathlib import Path

import pytest

from model.architecture import MGNConfig
from model.checkpoint import CheckpointMetadata, TrainingData, load_checkpoint, save_checkpoint
from model.provenance import Part, Relation, relation, relation_of_result, training_summary
from tests.model.evaluation_factories import drawn_crops, run_model
from tests.model.model_factories import RESULT, metadata
from tests.model.places import MARKET, Place, described_checkpoint
from tests.model.training_factories import command


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, monkeypatch, capsys)


def test_several_data_sets_give_one_table_with_a_row_for_each(place: Place) -> None:
    ended = place.evaluate(place.market, place.drawn, options=("--rerank",))
    assert ended.code == 0, ended.err
    rows = [line.split() for line in ended.out.splitlines() if re.search(r"\d\.\d\d +\d", line)]
    first, first_reranked, second, second_reranked = (" ".join(row) for row in rows)
    counts, shares = r" \d+ \d+", r"( \d{1,3}\.\d\d){4}"
    assert re.fullmatch(f"Market-1501, 2 held out in-domain{counts}{shares}", first)
    assert re.fullmatch(f"synthetic, all 8 persons unseen place{counts}{shares}", second)
    assert all(re.fullmatch(f"re-ranked{shares}", row) for row in (first_reranked, second_reranked))


def test_a_sentence_under_the_table_names_each_split_and_the_training_data(place: Place) -> None:
    lines = [line for line in place.evaluate(place.market, place.drawn).out.splitlines() if "was trained on" in line]
    assert len(lines) == 2
    assert "same cameras as in training, other persons; says nothing of other cameras" in lines[0]
    assert "an unseen place, neither these persons nor these cameras were trained on" in lines[1]
    trained = "was trained on Market-1501 (4 persons) without 2 held out of Market-1501"
    assert all(line.endswith(trained) for line in lines)


def test_several_sets_as_json_are_a_list(place: Place) -> None:
    results = json.loads(place.evaluate(place.market, place.drawn, options=("--json", "--rerank")).out)
    assert [(result["data"], result["trained_on_this_place"]) for result in results] == [
        ("Market-1501", "in-domain"),
        ("synthetic", "unseen place"),
    ]
    assert results[0]["queries"] == 6
    assert all(result["gallery_crops"] > 0 and 0 <= result["reranked"]["map_step"] <= 1 for result in results)


def test_a_single_data_set_is_shown_with_details_and_split(place: Place) -> None:
    ended = place.evaluate(place.market)
    assert "verification: FNMR" in ended.out
    assert "query camera" in ended.out
    assert "same cameras as in training, other persons; says nothing of other cameras" in ended.out
    result = json.loads(place.evaluate(place.market, options=("--json",)).out)
    assert {"verification", "camera_pairs", "map_step"} <= result.keys()


def test_an_unseen_place_is_evaluated_on_all_its_persons(place: Place) -> None:
    result = json.loads(place.evaluate(place.drawn, options=("--json",)).out)
    assert result["queries"] + result["unanswerable"] > 8
    assert "synthetic, all 8 persons seen by two cameras or more: an unseen place, neither" in result["notes"][0]


def test_a_data_set_that_was_trained_on_is_named_as_such(place: Place) -> None:
    described_checkpoint(place.checkpoint, MARKET.model_copy(update={"name": "Market-1501 + synthetic"}))
    results = json.loads(place.evaluate(place.market, place.drawn, options=("--json",)).out)
    assert [result["trained_on_this_place"] for result in results] == ["in-domain", "in-domain, these persons"]
    assert "the checkpoint was trained on these persons; says nothing of others" in results[1]["notes"][0]


def test_results_are_recorded_with_their_data_set(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_checkpoint(place.checkpoint).metadata
    results = json.loads(place.evaluate(place.market, place.drawn, options=("--record", "--json", "--rerank")).out)
    after = load_checkpoint(place.checkpoint).metadata
    assert after.model_id == before.model_id
    assert [result.data for result in after.results] == ["Market-1501", "synthetic"]
    assert [result.map_step for result in after.results] == pytest.approx(
        [result["map_step"] for result in results], abs=1e-4
    )
    shown = run_model(monkeypatch, capsys, "info", place.checkpoint).out
    assert "Market-1501 (in-domain)" in shown
    assert "synthetic (unseen place)" in shown


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (("market", "drawn"), ("--export", "x.npz"), "--export writes the features of one data set, and 2 are given"),
        (("market", "drawn"), ("--hold-out", 99), "cannot hold out 99 identities"),
        (("market", "other:/x"), (), "write KIND:FOLDER"),
        (("market", "market1501:/nowhere"), (), "/nowhere is missing"),
        (("market",), ("--record", "--same-camera"), "--record stores results of the usual protocol"),
        (("synthetic:/nowhere",), (), "no manifest of drawn crops"),
        ((), (), "give either --features FILE.npz, or --checkpoint FILE"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_2(
    place: Place, data: tuple[str, ...], options: tuple[object, ...], words: str
) -> None:
    ended = place.evaluate(
        *({"market": place.market, "drawn": place.drawn}.get(name, name) for name in data), options=options
    )
    assert ended.code == 2
    assert words in ended.err
    assert "Traceback" not in ended.err


def test_results_on_persons_that_were_trained_on_are_not_recorded(place: Place) -> None:
    described_checkpoint(place.checkpoint, MARKET.model_copy(update={"held_out_identities": 0}))
    ended = place.evaluate(place.market, options=("--record",))
    assert ended.code == 2
    assert "--record stores no result on Market-1501, all 6 persons" in ended.err


def test_a_data_set_without_persons_seen_by_two_cameras_cannot_be_evaluated(place: Place, tmp_path: Path) -> None:
    (tmp_path / "alone.csv").write_text("file,pid,camera\na.jpg,1,1\nb.jpg,2,2\n")
    ended = place.evaluate(f"manifest:{tmp_path / 'alone.csv'}")
    assert ended.code == 2
    assert "none of 2 persons is seen by two cameras" in ended.err


HELD_OUT = Part("held out", 100)
JOINED = TrainingData(name="A + B", terms="x", identities=1, crops=1, held_out_identities=100)


@pytest.mark.parametrize(
    ("name", "part", "expected"),
    [
        ("A", HELD_OUT, Relation.IN_DOMAIN),
        ("A", Part("held out", 50), Relation.IN_DOMAIN),
        ("A", Part("held out", 101), Relation.SEEN),
        ("A", Part("held out", 100, seed=1), Relation.SEEN),
        ("A", Part("all"), Relation.SEEN),
        ("B", HELD_OUT, Relation.SEEN),
        ("B", Part("test"), Relation.IN_DOMAIN),
        ("C", Part("all"), Relation.UNSEEN),
        ("A + B", HELD_OUT, Relation.IN_DOMAIN),
    ],
)
def test_only_the_first_of_joined_sets_holds_persons_out(name: str, part: Part, expected: Relation) -> None:
    assert relation(JOINED, name, part) is expected


def test_training_data_of_the_starting_checkpoint_counts_as_trained_on() -> None:
    adapted = TrainingData(
        name="site", terms="ours", identities=9, crops=9, started_from="first-1", started_from_data=JOINED
    )
    assert relation(adapted, "B", Part("all")) is Relation.SEEN
    assert relation(adapted, "A", HELD_OUT) is Relation.IN_DOMAIN
    assert relation(adapted, "C", Part("all")) is Relation.UNSEEN
    assert "starting from first-1, which was trained on A + B" in training_summary(described(adapted))


def described(data: TrainingData) -> CheckpointMetadata:
    return metadata(MGNConfig("mobilenet_v2")).model_copy(update={"training_data": data})


def test_a_place_is_not_called_unseen_where_the_training_data_is_not_recorded() -> None:
    unknown = TrainingData(name="unknown", terms="unknown", identities=0, crops=0)
    without = JOINED.model_copy(update={"started_from": "first-1"})
    for data in (unknown, without):
        assert relation(data, "C", Part("all")) is Relation.UNKNOWN
    assert relation(without, "A", HELD_OUT) is Relation.IN_DOMAIN


def test_labelled_and_detected_boxes_count_as_the_same_data_set() -> None:
    data = JOINED.model_copy(update={"name": "CUHK03-NP (labeled)"})
    assert relation_of_result(data, "CUHK03-NP (detected)") is Relation.IN_DOMAIN
    assert relation(data, "CUHK03-NP (detected)", Part("all")) is Relation.SEEN


def test_a_run_on_two_data_sets_is_evaluated_on_held_out_persons_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, object] = {"schedule.iterations": 1, "schedule.warm_up": 0}
    _, _, _, *line = command(tmp_path, "run", changes, "--data", f"synthetic:{drawn_crops()}", "--hold-out", "2")
    ended = run_model(monkeypatch, capsys, *line)
    assert ended.code == 0, ended.err
    trained = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").metadata
    data = trained.training_data
    assert data.name == "Market-1501 + synthetic"
    assert (data.identities, data.held_out_identities) == (4 + 8, 2)
    (result,) = trained.results
    assert (result.data, result.queries) == ("Market-1501", 6)
    assert "same cameras as in training, other persons" in result.protocol


def test_stored_results_are_shown_with_their_relation_to_the_training_data(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(place.checkpoint)
    results = (RESULT.model_copy(update={"data": "Market-1501"}), RESULT)
    save_checkpoint(place.checkpoint, checkpoint.weights, checkpoint.metadata.model_copy(update={"results": results}))
    shown = run_model(monkeypatch, capsys, "info", place.checkpoint).out
    assert "Market-1501 (in-domain)" in shown
    assert "Drawn (unseen place)" in shown
