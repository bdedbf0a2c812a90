"""Pages of ranked results and of the gallery map are right and complete, and fetch nothing."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.architecture import PARTS
from model.checkpoint import BUNDLED
from model.datasets.base import NO_CAMERA, EvaluationSplit, Sample
from model.errors import DataError
from model.evaluate import LabelledFeatures, evaluate
from model.loading import read_metadata
from model.visualize.activations import activation_maps
from model.visualize.folder import PageOptions, write_folder
from model.visualize.gallery_map import SIDE, choose_crops, gallery_map, project
from model.visualize.ranks import MAX_JUNK, Ranking, Verdict, choose_queries, part_cosines
from model.visualize.sheets import build_sheets
from model.visualize.thumbnails import overlaid
from tests.model.evaluation_factories import Element, Page, drawn_crops, drawn_ranking, ranking_of, read_page, run_model
from tests.model.model_factories import write_checkpoint


def folder_of(tmp_path: Path, ranking: Ranking, options: PageOptions | None = None) -> Path:
    return write_folder(tmp_path / "out", ranking, read_metadata(BUNDLED), "drawn", options or PageOptions(map_crops=0))


def cards_of(page: Page, sheet: Element) -> list[Element]:
    return [element for element in page.inside(sheet) if element.tag == "figure"]


def verdict_of(card: Element) -> str:
    (verdict,) = set(card.attributes["class"].split()) - {"card"}
    return verdict


def renamed(ranking: Ranking, name: str, folder: Path) -> Ranking:
    """The ranking with its first query's file under another name."""
    first, *others = ranking.split.query
    path = folder / name
    path.write_bytes(first.path.read_bytes())
    query = (Sample(path, first.pid, first.camera), *others)
    return Ranking(EvaluationSplit(query, ranking.split.gallery), ranking.query, ranking.gallery)


def test_a_crop_is_right_wrong_or_junk_and_junk_has_no_rank() -> None:
    ranking = ranking_of([(1, 1)], [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (0, 1)])
    crops = ranking.ranked(0, top=10).crops
    by_file = {crop.sample.path.name: crop.verdict for crop in crops}
    assert by_file == {
        "g0.jpg": Verdict.JUNK,
        "g1.jpg": Verdict.RIGHT,
        "g2.jpg": Verdict.WRONG,
        "g3.jpg": Verdict.WRONG,
        "g4.jpg": Verdict.RIGHT,
        "g5.jpg": Verdict.WRONG,
    }
    assert [crop.rank for crop in crops if crop.rank] == [1, 2, 3, 4, 5]
    similarities = [crop.similarity for crop in crops]
    assert similarities == sorted(similarities, reverse=True)


def test_crops_of_unknown_cameras_are_no_junk() -> None:
    ranking = ranking_of([(1, -1)], [(1, -1), (2, -1)], noise=0.1)
    assert [crop.verdict for crop in ranking.ranked(0, top=5).crops] == [Verdict.RIGHT, Verdict.WRONG]


def test_an_unknown_camera_is_labelled_unknown(tmp_path: Path) -> None:
    ranking = drawn_ranking()
    query = tuple(Sample(sample.path, sample.pid, NO_CAMERA) for sample in ranking.split.query)
    nowhere = np.full(len(query), NO_CAMERA)
    asking = LabelledFeatures(ranking.query.features, ranking.query.pids, nowhere)
    unknown = Ranking(EvaluationSplit(query, ranking.split.gallery), asking, ranking.gallery)
    page = read_page(folder_of(tmp_path, unknown, PageOptions(queries=1, map_crops=0)))
    (facts,) = page.of_class("facts")
    assert "camera unknown" in facts.text


def test_scores_are_those_of_the_evaluation() -> None:
    ranking = drawn_ranking(noise=6.0)
    scores, metrics = ranking.scores(), evaluate(ranking.query, ranking.gallery).metrics
    assert 0.2 < metrics.rank1 < 0.95, "some queries find well and some do not"
    assert np.nanmean(scores.step) == pytest.approx(metrics.map_step)
    assert scores.cmc(10)[[0, 4, 9]].tolist() == pytest.approx([metrics.rank1, metrics.rank5, metrics.rank10])
    for query in range(len(scores.first)):
        ranked = ranking.ranked(query, top=100)
        assert ranked.average_precision == scores.step[query]
        right = [crop.rank for crop in ranked.crops if crop.verdict is Verdict.RIGHT]
        assert (right[0], len(right)) == (scores.first[query], scores.right_answers[query])


def test_the_parts_of_a_match_add_up_to_its_similarity() -> None:
    ranking = drawn_ranking()
    for crop in ranking.ranked(0, top=10).crops:
        assert len(crop.parts) == len(PARTS)
        assert np.mean(crop.parts) == pytest.approx(crop.similarity, abs=1e-5)
    itself = ranking.query.features[0]
    np.testing.assert_allclose(part_cosines(itself, itself), 1, atol=1e-5)
    heavier = itself.reshape(8, 256) * np.array([2, 2, 2, 1, 1, 0.5, 0.5, 0.5], dtype=np.float32)[:, None]
    np.testing.assert_allclose(part_cosines(heavier.reshape(-1), itself), 1, atol=1e-5)


def test_parts_are_listed_in_their_order() -> None:
    embedding = np.zeros(2048, np.float32)
    embedding[256 * 3 + 5] = 1 / np.sqrt(8)
    cosines = dict(zip(PARTS, part_cosines(embedding, embedding), strict=True))
    assert cosines.pop("upper_half") == pytest.approx(1)
    assert not any(cosines.values())


def test_a_right_answer_beyond_the_ranks_shown_is_added() -> None:
    ranking = ranking_of([(1, 1)], [(1, 2)] + [(2, 2)] * 6, noise=0.1)
    features = ranking.gallery.features.copy()
    features[1:] = ranking.query.features[0]
    gallery = LabelledFeatures(features, ranking.gallery.pids, ranking.gallery.cameras)
    ranked = Ranking(ranking.split, ranking.query, gallery).ranked(0, top=4)
    assert [crop.rank for crop in ranked.crops] == [1, 2, 3, 4]
    assert ranked.beyond is not None
    assert (ranked.beyond.rank, ranked.beyond.verdict, ranked.first_right) == (7, Verdict.RIGHT, 7)


def test_junk_beyond_a_maximum_is_counted_instead_of_listed() -> None:
    ranked = ranking_of([(1, 1)], [(1, 1)] * 8 + [(1, 2), (2, 2)], noise=0.1).ranked(0, top=2)
    junk = [crop for crop in ranked.crops if crop.verdict is Verdict.JUNK]
    assert len(junk) == MAX_JUNK
    assert 0 <= ranked.junk_unlisted <= 8 - MAX_JUNK
    assert [crop.rank for crop in ranked.crops if crop.rank] == [1, 2]


def test_junk_after_the_last_rank_shown_is_not_listed() -> None:
    ranking = ranking_of([(1, 1)], [(1, 2), (1, 1)], noise=0.1)
    features = np.stack([ranking.query.features[0], -ranking.query.features[0]])
    gallery = LabelledFeatures(features, ranking.gallery.pids, ranking.gallery.cameras)
    ranked = Ranking(ranking.split, ranking.query, gallery).ranked(0, top=5)
    assert [crop.verdict for crop in ranked.crops] == [Verdict.RIGHT]


def test_queries_are_chosen_by_average_precision() -> None:
    ranking = drawn_ranking(noise=4.0)
    scores = ranking.scores()
    precision = scores.step
    worst, best = (choose_queries(scores, order, 5) for order in ("worst", "best"))  # type: ignore[arg-type]
    assert precision[worst].tolist() == sorted(precision.tolist())[:5]
    assert precision[best].tolist() == sorted(precision.tolist(), reverse=True)[:5]
    assert choose_queries(scores, "random", 5, seed=1) == choose_queries(scores, "random", 5, seed=1)
    assert choose_queries(scores, "random", 5, seed=1) != choose_queries(scores, "random", 5, seed=2)
    assert len(choose_queries(scores, "random", 1000)) == len(precision)


def test_a_query_without_right_answer_is_never_chosen() -> None:
    ranking = ranking_of([(1, 1), (2, 1)], [(1, 2), (2, 1), (3, 1)])
    for order in ("worst", "best", "random"):
        assert choose_queries(ranking.scores(), order, 5) == [0]  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"no right answer to q1\.jpg"):
        ranking.ranked(1, top=5)


def test_features_of_other_crops_are_refused() -> None:
    ranking = ranking_of([(1, 1)], [(1, 2), (2, 2)])
    with pytest.raises(DataError, match="do not belong to 2 crops"):
        Ranking(ranking.split, ranking.query, ranking.query)


def test_the_page_shows_every_query_with_the_right_colours(tmp_path: Path) -> None:
    ranking = drawn_ranking(noise=4.0)
    page = read_page(folder_of(tmp_path, ranking, PageOptions("worst", queries=6, top=4, map_crops=0)))
    sheets = page.of_class("sheet")
    chosen = choose_queries(ranking.scores(), "worst", 6)
    assert len(sheets) == 6
    verdicts = set()
    for sheet, query in zip(sheets, chosen, strict=True):
        (panel,) = [element for element in page.inside(sheet) if element.has_class("query")]
        assert panel.attributes["title"] == ranking.split.query[query].path.name
        ranked = ranking.ranked(query, top=4)
        expected = [crop.verdict for crop in ranked.crops] + ([Verdict.RIGHT] if ranked.beyond else [])
        assert [verdict_of(card) for card in cards_of(page, sheet)] == expected
        verdicts |= set(expected)
    assert verdicts == set(Verdict), "the example shows all three kinds"
    style = next(element.text for element in page.elements if element.tag == "style")
    for verdict in Verdict:
        assert f".{verdict} {{ --verdict: var(--{verdict}); }}" in style


def test_the_length_of_bars_is_the_similarity_of_parts(tmp_path: Path) -> None:
    ranking = drawn_ranking()
    page = read_page(folder_of(tmp_path, ranking, PageOptions("random", queries=1, top=3, map_crops=0)))
    (query,) = choose_queries(ranking.scores(), "random", 1)
    cards = cards_of(page, page.of_class("sheet")[0])
    for card, crop in zip(cards, ranking.ranked(query, top=3).crops, strict=True):
        bars = [element for element in page.inside(card) if element.tag == "i"]
        assert len(bars) == len(PARTS)
        lengths = [float(re.search(r"width: ([\d.]+)%", bar.attributes["style"])[1]) for bar in bars]  # type: ignore[index]
        starts = [float(re.search(r"left: ([\d.]+)%", bar.attributes["style"])[1]) for bar in bars]  # type: ignore[index]
        assert (np.corrcoef(np.array(lengths), np.abs(crop.parts))[0, 1]) > 0.999
        assert all(start + length <= 100.01 for start, length in zip(starts, lengths, strict=True))


def test_negative_bars_end_where_the_others_begin() -> None:
    ranking = drawn_ranking(noise=9.0)
    (sheet,) = build_sheets([ranking.ranked(0, top=30)], None)
    bars = [bar for card in sheet.cards for bar in card.bars]
    zero = {round(bar.start + bar.length, 1) for bar in bars if bar.cosine < 0}
    assert len(zero) == 1, "the example has negative parts"
    assert {round(bar.start, 1) for bar in bars if bar.cosine >= 0} == zero


def test_file_names_are_escaped(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>&\"'_c1.jpg"
    ranking = renamed(drawn_ranking(), name, tmp_path)
    options = PageOptions("random", queries=100, map_crops=0)
    page = read_page(folder_of(tmp_path, ranking, options))
    assert name in [panel.attributes["title"] for panel in page.of_class("query")]
    assert not [element for element in page.elements if "onerror" in element.attributes]


def test_file_names_are_escaped_on_the_map(tmp_path: Path) -> None:
    ranking = drawn_ranking()
    first, *others = ranking.split.gallery
    name = "</script><b>\"'&.jpg"
    (tmp_path / "<").mkdir()
    path = tmp_path / "<" / "script><b>\"'&.jpg"
    path.write_bytes(first.path.read_bytes())
    gallery = (Sample(path, first.pid, first.camera), *others)
    ranking = Ranking(EvaluationSplit(ranking.split.query, gallery), ranking.query, ranking.gallery)
    folder_of(tmp_path, ranking, PageOptions(queries=1))
    page = read_page(tmp_path / "out" / "map.html")
    facts = next(element for element in page.elements if element.attributes.get("id") == "points")
    assert name.removeprefix("</") in [point["name"] for point in json.loads(facts.text)["points"]]
    assert not [element for element in page.elements if element.tag == "b"]


def test_the_map_shows_each_crop_once_with_its_picture(tmp_path: Path) -> None:
    ranking = drawn_ranking()
    folder_of(tmp_path, ranking, PageOptions(queries=1))
    page = read_page(tmp_path / "out" / "map.html")
    points = page.of_class("point")
    assert len(points) == len(ranking.gallery.pids)
    pictures = [element for element in page.elements if element.tag == "image"]
    assert all(picture.attributes["href"].startswith("data:image/jpeg") for picture in pictures)
    facts = json.loads(next(e.text for e in page.elements if e.attributes.get("id") == "points"))
    assert [point["name"] for point in facts["points"]] == [sample.path.name for sample in ranking.split.gallery]
    colours = {point["pid"]: facts["byPerson"][str(point["pid"])] for point in facts["points"]}
    assert len(set(colours.values())) == len(colours), "each person has a colour of its own"


def test_similar_crops_are_close_on_a_map_and_maps_are_deterministic() -> None:
    ranking = drawn_ranking(noise=0.5)
    plane = project(ranking.gallery.features)
    assert ((plane >= 0) & (plane <= SIDE)).all()
    distance = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    same = ranking.gallery.pids[:, None] == ranking.gallery.pids
    np.fill_diagonal(distance, np.inf)
    assert same[np.arange(len(plane)), distance.argmin(axis=1)].mean() > 0.9
    np.testing.assert_array_equal(plane, project(ranking.gallery.features))


def test_a_map_shows_all_crops_of_its_persons_and_no_distractors() -> None:
    pids = np.array([1] * 4 + [2] * 4 + [3] * 4 + [0] * 9)
    gallery = LabelledFeatures(np.zeros((21, 2048), np.float32), pids, np.zeros(21, np.int64))
    chosen = choose_crops(gallery, max_crops=10)
    assert len(chosen) == 8
    assert all((pids[chosen] == pid).sum() in (0, 4) for pid in (1, 2, 3))
    assert 0 not in pids[chosen]
    assert len(choose_crops(gallery, max_crops=100)) == 12


def test_a_map_of_too_few_crops_is_refused() -> None:
    ranking = drawn_ranking()
    with pytest.raises(DataError, match="needs 5 crops"):
        gallery_map(ranking.gallery, ranking.split.gallery, max_crops=3)


def test_there_is_a_map_of_activations_for_each_branch_and_crop(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c.safetensors")
    paths = [sample.path for sample in drawn_ranking().split.query[:3]]
    maps = activation_maps(checkpoint, [*paths, paths[0]])
    assert list(maps) == paths
    shapes = {tuple(branch.shape for branch in branches) for branches in maps.values()}
    assert shapes == {((2, 1), (4, 2), (4, 2))}, "the last two branches keep their height and width"
    assert all((branch >= 0).all() and branch.any() for branches in maps.values() for branch in branches)
    first, second = (maps[path][1] / maps[path][1].max() for path in paths[:2])
    assert not np.allclose(first, second)


def test_an_overlay_is_red_where_the_network_looks_and_blue_where_not() -> None:
    picture = Image.new("RGB", (40, 80), (128, 128, 128))
    drawn = np.asarray(overlaid(picture, np.array([[1.0], [0.0]], np.float32))).astype(int)
    above, below = drawn[5, 20], drawn[-5, 20]
    assert above[0] > above[2]
    assert below[2] > below[0]
    flat = np.asarray(overlaid(picture, np.zeros((2, 1), np.float32)))
    assert (flat == flat[0, 0]).all()


def test_the_command_writes_pages_with_maps_of_activations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "c.safetensors")
    options = ("--checkpoint", tmp_path / "c.safetensors", "--data", f"synthetic:{drawn_crops()}", "--hold-out", 6)
    ended = run_model(monkeypatch, capsys, "visualize", *options, "--out", tmp_path / "out", "--queries", 3)
    assert ended.code == 0, ended.err
    assert "index.html" in ended.out
    page = read_page(tmp_path / "out" / "index.html")
    assert len(page.of_class("sheet")) == 3
    card = cards_of(page, page.of_class("sheet")[0])[0]
    assert len([element for element in page.inside(card) if element.tag == "img"]) == 4
    assert [element.text for element in page.elements if element.tag == "label"][1:] == [
        "global branch", "part-2 branch", "part-3 branch",
    ]  # fmt: skip
    assert (tmp_path / "out" / "map.html").exists()


def test_an_onnx_checkpoint_gives_a_note_instead_of_activation_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--checkpoint", BUNDLED, "--data", f"synthetic:{drawn_crops()}", "--hold-out", 6, "--map-crops", 0)
    ended = run_model(monkeypatch, capsys, "visualize", *options, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "need the torch form" in " ".join(ended.out.split())
    page = read_page(tmp_path / "out" / "index.html")
    assert "need the torch form" in page.text
    assert not [element for element in page.elements if element.tag == "label"]
    assert not (tmp_path / "out" / "map.html").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--checkpoint": "nowhere.safetensors"}, "there is no checkpoint at nowhere.safetensors"),
        ({"--data": "synthetic:nowhere"}, "no manifest of drawn crops"),
        ({"--data": f"nonsense:{BUNDLED}"}, "KIND"),
        ({"--hold-out": 99}, "cannot hold out 99"),
        ({"--order": "middle"}, "is not one of"),
        ({"--queries": 0}, "greater than or equal to 1"),
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
    options: dict[str, object] = {"--checkpoint": BUNDLED, "--data": f"synthetic:{drawn_crops()}", "--hold-out": 6}
    options |= {"--out": "out"} | changes
    ended = run_model(monkeypatch, capsys, "visualize", *(word for pair in options.items() for word in pair))
    assert ended.code == 2
    assert words in ended.err.replace("│ ", "")
    assert not (tmp_path / "out").exists()
