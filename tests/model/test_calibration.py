"""Calibration: fitted on half of the persons, evaluated on the rest, stored in the checkpoint."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from model.architecture import MGNConfig
from model.calibrate import Kind, Pairs, calibrate, fit_isotonic, fit_logistic, reliability
from model.calibration import Calibration, IsotonicMap, LogisticMap, at_prior
from model.checkpoint import BUNDLED, METADATA_KEY, load_checkpoint
from model.datasets.base import NO_CAMERA
from model.errors import CheckpointError, DataError
from model.evaluate import LabelledFeatures, read_features
from model.loading import read_metadata
from model.rewriting import rewrite_metadata
from tests.model.evaluation_factories import drawn_crops, embeddings, run_model
from tests.model.model_factories import metadata, write_checkpoint

TRUE = LogisticMap(slope=14, intercept=-7)
KINDS: tuple[Kind, ...] = ("isotonic", "logistic")
FITS = {"isotonic": fit_isotonic, "logistic": fit_logistic}


def drawn_pairs(seed: int, share: float = 0.5, count: int = 20_000) -> Pairs:
    """Pairs whose probability at the balanced prior is `TRUE`; `share` of them are same-person pairs."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(0, 1, 2001)
    same = rng.random(count) < share
    kinds = [weights / weights.sum() for weights in (1 - TRUE(grid), TRUE(grid))]
    similarities = np.where(same, rng.choice(grid, count, p=kinds[1]), rng.choice(grid, count, p=kinds[0]))
    return Pairs(similarities, same, rng.integers(0, 200, count), share)


def a_calibration(similarity_map: IsotonicMap | LogisticMap = TRUE) -> Calibration:
    return Calibration(
        map=similarity_map,
        data="drawn",
        fitted_identities=50,
        judged_identities=50,
        same_pairs=900,
        different_pairs=90_000,
        natural_prior=0.01,
        expected_calibration_error=0.01,
    )


def features_of(persons: int, cameras: int = 3, noise: float = 1.2) -> tuple[LabelledFeatures, LabelledFeatures]:
    pids = np.repeat(np.arange(1, persons + 1), 2 * cameras)
    seen_by = np.tile(np.repeat(np.arange(cameras), 2), persons)
    features, is_query = embeddings(pids, noise), np.arange(len(pids)) % 2 == 0
    sides = [LabelledFeatures(features[rows], pids[rows], seen_by[rows]) for rows in (is_query, ~is_query)]
    return sides[0], sides[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.03])
def test_known_probabilities_are_found_whatever_the_share_of_pairs(kind: str, share: float) -> None:
    fitted = FITS[kind](drawn_pairs(0, share))
    others = drawn_pairs(1, share)
    assert reliability(fitted(others.similarities), others).expected_calibration_error < 0.025
    middle = np.linspace(0.35, 0.65, 7)
    np.testing.assert_allclose(fitted(middle), TRUE(middle), atol=0.09)


def test_a_wrong_map_has_a_larger_error() -> None:
    pairs = drawn_pairs(0)
    right, shifted, bold = (
        reliability(candidate(pairs.similarities), pairs).expected_calibration_error
        for candidate in (TRUE, LogisticMap(slope=14, intercept=-9.5), LogisticMap(slope=60, intercept=-30))
    )
    assert right < 0.01
    assert shifted > 0.1
    assert bold > 0.05


def test_the_error_is_the_mean_distance_of_probability_and_share() -> None:
    """By hand: predicted 0.2 where a quarter is same-person, 0.9 where half is; both kinds have weight 1/2."""
    same = np.array([True, False, False, False, True, False])
    pairs = Pairs(np.zeros(6), same, np.arange(6), 1 / 3)
    given = np.array([0.2, 0.2, 0.2, 0.2, 0.9, 0.9])
    low, high = (1 / 4) / (1 / 4 + 3 / 8), (1 / 4) / (1 / 4 + 1 / 8)
    expected = (1 / 4 + 3 / 8) * abs(0.2 - low) + (1 / 4 + 1 / 8) * abs(0.9 - high)
    assert reliability(given, pairs).expected_calibration_error == pytest.approx(expected)


def test_intervals_contain_the_share_and_shrink_with_more_persons() -> None:
    few, many = (reliability(TRUE(pairs.similarities), pairs) for pairs in (drawn_pairs(0, count=2000), drawn_pairs(0)))
    assert (many.low <= many.observed).all()
    assert (many.observed <= many.high).all()
    assert (many.high - many.low).mean() < (few.high - few.low).mean()


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    similarities=st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=40),
    seed=st.integers(0, 99),
)
def test_an_isotonic_map_never_decreases_and_is_never_0_or_1(similarities: list[float], seed: int) -> None:
    same = np.random.default_rng(seed).random(len(similarities)) < 0.5
    same[:2] = True, False
    fitted = fit_isotonic(Pairs(np.array(similarities), same, np.arange(len(same)), 0.5))
    probabilities = fitted(np.linspace(-1.2, 1.2, 200))
    assert (np.diff(probabilities) >= 0).all()
    assert probabilities.min() > 0
    assert probabilities.max() < 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_survives_being_written_as_json(kind: str) -> None:
    calibration = a_calibration(FITS[kind](drawn_pairs(0)))
    read = Calibration.model_validate_json(calibration.model_dump_json())
    assert read == calibration
    along = np.linspace(-0.5, 1.5, 101)
    assert (read.probability(along) == calibration.probability(along)).all()


def test_probabilities_have_the_shape_of_the_similarities() -> None:
    assert a_calibration().probability(0.5).shape == ()
    assert a_calibration().probability([[0.1, 0.2], [0.3, 0.4]]).shape == (2, 2)


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "isotonic", "similarities": [0.1, 0.3], "probabilities": [0.4, 0.2]},
        {"kind": "isotonic", "similarities": [0.3, 0.1], "probabilities": [0.2, 0.4]},
        {"kind": "isotonic", "similarities": [0.3], "probabilities": [0.2, 0.4]},
        {"kind": "isotonic", "similarities": [], "probabilities": []},
        {"kind": "isotonic", "similarities": [0.3], "probabilities": [1.2]},
        {"kind": "logistic", "slope": -1.0, "intercept": 0.0},
        {"kind": "logistic", "slope": float("nan"), "intercept": 0.0},
        {"kind": "linear"},
    ],
)
def test_a_decreasing_or_invalid_map_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate(a_calibration().model_dump() | {"map": content})


def test_another_prior_moves_the_odds() -> None:
    """Bayes by hand: at a prior of 1/10, even evidence stays 1/10, and evidence of 9 to 1 gives 1/2."""
    np.testing.assert_allclose(at_prior(np.array([0.5, 0.9]), 0.5, 0.1), [0.1, 0.5])
    calibration = a_calibration()
    there = calibration.probability([0.4, 0.6], prior=0.02)
    np.testing.assert_allclose(at_prior(there, 0.02, 0.5), calibration.probability([0.4, 0.6]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration.probability(0.5, prior=0)


def test_probabilities_hold_at_the_prior_of_the_data_too() -> None:
    pairs = drawn_pairs(0, share=0.03)
    natural = at_prior(TRUE(pairs.similarities), 0.5, 0.03)
    assert reliability(natural, pairs, prior=0.03).expected_calibration_error < 0.01
    assert reliability(TRUE(pairs.similarities), pairs, prior=0.03).expected_calibration_error > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_the_persons_fit_and_the_rest_evaluate(kind: Kind) -> None:
    result = calibrate(*features_of(21), "drawn", kind)
    calibration = result.calibration
    assert (calibration.fitted_identities, calibration.judged_identities, calibration.held_out_identities) == (
        11,
        10,
        21,
    )
    assert len(set(result.pairs.persons)) == 10
    assert calibration.same_pairs == 11 * 3 * 2, "each of three crops meets those of two other cameras"
    assert calibration.different_pairs == 11 * 3 * 10 * 2
    assert calibration.natural_prior == pytest.approx(1 / 11)
    assert calibration.expected_calibration_error == pytest.approx(result.balanced.expected_calibration_error, abs=1e-6)
    assert calibrate(*features_of(21), "drawn", kind).calibration == calibration
    assert calibrate(*features_of(21), "drawn", kind, seed=1).calibration != calibration


@pytest.mark.shared
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_a_public_network_hold_for_persons_that_were_not_fitted(shared: Path, kind: Kind) -> None:
    result = calibrate(*read_features(shared / "data/golden/0287.npz"), "Market-1501", kind)
    assert result.balanced.expected_calibration_error < 0.005
    assert result.natural.expected_calibration_error < 0.001


def test_distractors_only_form_different_person_pairs_and_junk_forms_none() -> None:
    query, gallery = features_of(6)
    plain = calibrate(query, gallery, "drawn").calibration
    extra = LabelledFeatures(
        np.concatenate([gallery.features, gallery.features[:9]]),
        np.concatenate([gallery.pids, [0] * 6 + [-1] * 3]),
        np.concatenate([gallery.cameras, [7] * 9]),
    )
    asking_junk = LabelledFeatures(
        np.concatenate([query.features, query.features[:4]]),
        np.concatenate([query.pids, [-1] * 4]),
        np.concatenate([query.cameras, [8] * 4]),
    )
    with_distractors = calibrate(asking_junk, extra, "drawn")
    calibration, pairs = with_distractors.calibration, with_distractors.pairs
    assert calibration.same_pairs == plain.same_pairs
    assert calibration.different_pairs + (~pairs.same).sum() == 2 * plain.different_pairs + 6 * 9


def test_all_pairs_count_where_no_camera_is_known() -> None:
    nowhere = [
        LabelledFeatures(side.features, side.pids, np.full(len(side.pids), NO_CAMERA)) for side in features_of(6)
    ]
    calibration = calibrate(nowhere[0], nowhere[1], "drawn").calibration
    assert (calibration.same_pairs, calibration.different_pairs) == (3 * 3 * 3, 3 * 3 * 2 * 3)


def test_different_person_pairs_beyond_a_maximum_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = calibrate(*features_of(40), "drawn").calibration
    monkeypatch.setattr("model.calibrate.MAX_DIFFERENT_PAIRS", 1000)
    thinned = calibrate(*features_of(40), "drawn").calibration
    assert thinned.same_pairs == whole.same_pairs
    assert 400 < thinned.different_pairs < 1000 < whole.different_pairs
    assert thinned.natural_prior == whole.natural_prior


@pytest.mark.parametrize(("persons", "cameras"), [(3, 3), (8, 1)])
def test_too_few_persons_or_cameras_are_reported(persons: int, cameras: int) -> None:
    with pytest.raises(DataError, match="too few persons"):
        calibrate(*features_of(persons, cameras), "drawn")


def test_a_logistic_map_with_a_negative_slope_is_refused() -> None:
    pairs = drawn_pairs(0)
    turned = Pairs(-pairs.similarities, pairs.same, pairs.persons, pairs.natural_prior)
    with pytest.raises(DataError, match="no more similar"):
        fit_logistic(turned)


def test_rewriting_metadata_keeps_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    before = write_checkpoint(path)
    rewrite_metadata(path, path, before.metadata.model_copy(update={"calibration": a_calibration()}))
    after = load_checkpoint(path)
    assert after.metadata.calibration == a_calibration()
    assert after.metadata.model_id == before.metadata.model_id
    assert all((after.weights[name] == weights).all() for name, weights in before.weights.items())


def test_rewriting_metadata_of_onnx_keeps_the_graph(tmp_path: Path) -> None:
    out = tmp_path / "c.onnx"
    before, foreign = read_metadata(BUNDLED), onnx.load(BUNDLED)
    foreign.metadata_props.add(key="author", value="somebody")
    onnx.save(foreign, tmp_path / "foreign.onnx")
    rewrite_metadata(tmp_path / "foreign.onnx", out, before.model_copy(update={"calibration": a_calibration()}))
    after = read_metadata(out)
    assert after.calibration == a_calibration()
    assert after.model_id == before.model_id
    new = onnx.load(out)
    assert new.graph == foreign.graph
    assert {prop.key for prop in new.metadata_props} == {METADATA_KEY, "author"}


def test_metadata_of_a_damaged_or_missing_file_is_not_rewritten(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff" * 100)
    for path in (broken, tmp_path / "nowhere.onnx"):
        with pytest.raises(CheckpointError, match=path.name):
            rewrite_metadata(path, tmp_path / "out.onnx", metadata(MGNConfig()))
    assert not (tmp_path / "out.onnx").exists()


def test_rewriting_does_not_change_the_format(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="another format"):
        rewrite_metadata(BUNDLED, tmp_path / "c.safetensors", metadata(MGNConfig()))
    assert not list(tmp_path.iterdir())


def test_probabilities_need_neither_torch_nor_scikit_learn() -> None:
    text = a_calibration(fit_isotonic(drawn_pairs(0))).model_dump_json()
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'sklearn', 'matplotlib', 'scipy')));"
        "from model.checkpoint import Calibration;"
        "print(float(Calibration.model_validate_json(sys.argv[1]).probability(0.7)))"
    )
    ended = subprocess.run([sys.executable, "-c", program, text], capture_output=True, text=True, check=True)
    assert 0.8 < float(ended.stdout) < 1


def test_the_command_calibrates_a_checkpoint_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "c.onnx", f"manifest:{drawn_crops()}/manifest.csv"
    arguments = ("calibrate", "--checkpoint", BUNDLED, "--data", data, "--hold-out", 7, "--out", out)
    ended = run_model(monkeypatch, capsys, *arguments, "--kind", "logistic", "--diagram", tmp_path / "d.png")
    assert ended.code == 0, ended.err
    calibration = read_metadata(out).calibration
    assert calibration is not None
    assert calibration.data == f"{drawn_crops().name}, 7 identities held out of the training part"
    assert calibration.map.kind == "logistic"
    assert "expected calibration error" in ended.out
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--checkpoint": "nowhere.onnx"}, "no checkpoint at nowhere.onnx"),
        ({"--out": "c.safetensors"}, "it must end in .onnx"),
        ({"--data": "synthetic:nowhere"}, "no manifest of drawn crops"),
        ({"--hold-out": 99}, "cannot hold out 99"),
        ({"--hold-out": 2}, "too few persons"),
        ({"--diagram": "d.gif"}, "must end in one of"),
        ({"--kind": "linear"}, "is not one of"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_mistakes_get_one_sentence_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = f"manifest:{drawn_crops()}/manifest.csv"  # not `synthetic`, on which the checkpoint was trained
    options: dict[str, object] = {"--checkpoint": BUNDLED, "--data": data, "--hold-out": 7}
    options |= {"--out": "c.onnx"} | changes
    ended = run_model(monkeypatch, capsys, "calibrate", *(word for pair in options.items() for word in pair))
    assert ended.code == 2
    assert words in ended.err.replace("│ ", "")
    assert not list(tmp_path.iterdir())


def test_identities_that_were_trained_on_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.onnx"
    bundled = read_metadata(BUNDLED)
    seen = bundled.training_data.model_copy(update={"name": "synthetic", "held_out_identities": 3})
    rewrite_metadata(BUNDLED, path, bundled.model_copy(update={"training_data": seen}))
    options = ("--checkpoint", path, "--data", f"synthetic:{drawn_crops()}", "--hold-out", 6, "--out", path)
    ended = run_model(monkeypatch, capsys, "calibrate", *options)
    assert ended.code == 2
    assert "trained on these identities" in ended.err
