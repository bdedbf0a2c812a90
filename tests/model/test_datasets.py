"""Data sets are read in their layouts; stray files are ignored."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.datasets import open_data_set, open_data_sets
from model.datasets.base import NO_CAMERA, EvaluationSplit, PartSize, Sample, size_notes
from model.datasets.joined import Joined
from model.errors import DataError
from tests.model.model_factories import write_market


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 16)).save(path)
    return path


def stray(folder: Path) -> None:
    """Write stray files, as they occur in data sets."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "readme.txt").write_text("hello")


def labels(samples: tuple[Sample, ...]) -> set[tuple[int, int]]:
    return {(sample.pid, sample.camera) for sample in samples}


def write_three_folders(root: Path, name: Callable[[int, int, int], str]) -> Path:
    """Persons 1 and 2 for training, 3 and 4 for the test, two cameras."""
    for pid in (1, 2, 3, 4):
        for camera in (1, 2):
            parts = ("bounding_box_train",) if pid < 3 else ("query", "bounding_box_test")
            for number, part in enumerate(parts):
                picture(root / part / name(pid, camera, number))
    for part in ("bounding_box_train", "query", "bounding_box_test"):
        stray(root / part)
    return root


def test_market1501_is_read_with_irregular_file_names(tmp_path: Path) -> None:
    root = write_market(tmp_path / "m")
    test = root / "bounding_box_test"
    crop = next(test.iterdir())
    for name in ("-1_c1s1_000401_03.jpg", "0000_c2s1_000151_01.jpg", "0007_c3s3_077419_03.jpg.jpg"):
        (test / name).write_bytes(crop.read_bytes())
    stray(test)
    before = len(list(test.glob("00*.jpg")))
    gallery = open_data_set(f"market1501:{root}").test().gallery
    assert len(gallery) == before
    assert {sample.pid for sample in gallery} >= {0, 7}
    assert -1 not in {sample.pid for sample in gallery}


@pytest.mark.parametrize(
    ("kind", "inner", "name"),
    [
        ("market1501", "Market-1501-v15.09.15", lambda p, c, n: f"{p:04}_c{c}s1_{n:06}_01.jpg"),
        ("dukemtmc", "DukeMTMC-reID", lambda p, c, n: f"{p:04}_c{c}_f{n:07}.jpg"),
        ("cuhk03-labeled", "cuhk03-np/labeled", lambda p, c, n: f"{p:04}_c{c}_{n}.png"),
        ("cuhk03-detected", "cuhk03-np/detected", lambda p, c, n: f"{p:04}_c{c}_{n}.png"),
    ],
)
def test_data_sets_of_three_folders_are_read(
    tmp_path: Path, kind: str, inner: str, name: Callable[[int, int, int], str]
) -> None:
    root = write_three_folders(tmp_path / inner, name)
    for place in (tmp_path, root):
        data_set = open_data_set(f"{kind}:{place}")
        assert labels(data_set.train()) == {(1, 1), (1, 2), (2, 1), (2, 2)}
        assert data_set.has_test()
        assert labels(data_set.test().query) == labels(data_set.test().gallery) == {(3, 1), (3, 2), (4, 1), (4, 2)}
    assert data_set.terms
    assert "cannot be compared" in size_notes(data_set, {"train": data_set.train()})[0]
    with pytest.raises(DataError, match="is one part of the data set: give its parent folder"):
        open_data_set(f"{kind}:{root / 'query'}")
    shutil.rmtree(root / "query")
    assert not open_data_set(f"{kind}:{root}").has_test()
    with pytest.raises(DataError, match="query is missing: a folder of"):
        open_data_set(f"{kind}:{root}").test()


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17(tmp_path: Path, folders: tuple[str, str]) -> None:
    root = tmp_path / "MSMT17_V1"
    for part, folder, persons in (
        ("train", 0, (0, 1)), ("val", 0, (0, 1)), ("query", 1, (0, 1, 2)), ("gallery", 1, (0, 1, 2)),
    ):  # fmt: skip
        lines = []
        for pid in persons:
            name = f"{pid:04}/{pid:04}_{len(part):03}_{pid + 5:02}_0303morning_0015_0.jpg"
            picture(root / folders[folder] / name)
            lines.append(f"{name} {pid}")
        (root / f"list_{part}.txt").write_text("\n".join(lines) + "\n")
    data_set = open_data_set(f"msmt17:{tmp_path}")
    assert labels(data_set.train()) == {(1, 5), (2, 6)}, "persons count from 1: 0 are distractors"
    assert len(data_set.train()) == 4, "list_train and list_val together"
    assert data_set.has_test()
    assert labels(data_set.test().query) == {(1, 5), (2, 6), (3, 7)}
    assert all(sample.path.is_file() for sample in data_set.train() + data_set.test().gallery)
    (root / "list_query.txt").write_text("0000/no_camera.jpg 0\n")
    with pytest.raises(DataError, match=r"line 1 of .*list_query\.txt"):
        data_set.test()
    with pytest.raises(DataError, match="holds no lists: a folder of MSMT17 holds"):
        open_data_set(f"msmt17:{root / folders[0]}")


def test_a_folder_for_each_person(tmp_path: Path) -> None:
    for person in ("anna", "bert"):
        picture(tmp_path / person / "x_c2_1.jpg")
        picture(tmp_path / person / "cam7-b.PNG")
        stray(tmp_path / person)
    stray(tmp_path)
    data_set = open_data_set(f"folder:{tmp_path}")
    assert labels(data_set.train()) == {(1, 2), (1, 7), (2, 2), (2, 7)}
    assert not data_set.has_test()
    assert data_set.name == tmp_path.name


def test_a_folder_for_each_camera_of_a_person(tmp_path: Path) -> None:
    for person in ("a", "b"):
        for camera in ("gate", "hall"):
            picture(tmp_path / person / camera / "1.jpg")
    assert labels(open_data_set(f"folder:{tmp_path}").train()) == {(1, 1), (1, 2), (2, 1), (2, 2)}


def test_crops_without_cameras(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.jpg")
    picture(tmp_path / "b" / "1.jpg")
    assert labels(open_data_set(f"folder:{tmp_path}").train()) == {(1, NO_CAMERA), (2, NO_CAMERA)}
    picture(tmp_path / "b" / "2_c1.jpg")
    with pytest.raises(DataError, match=r"a/1\.jpg has none: give it in all names or in none"):
        open_data_set(f"folder:{tmp_path}").train()


def test_folders_with_a_test_part(tmp_path: Path) -> None:
    for part, persons in (("train", "ab"), ("query", "cd"), ("gallery", "cde")):
        for person in persons:
            picture(tmp_path / part / person / f"{part}_c1.jpg")
    data_set = open_data_set(f"folder:{tmp_path}")
    assert {sample.pid for sample in data_set.train()} == {1, 2}
    assert {sample.pid for sample in data_set.test().query} == {3, 4}
    assert {sample.pid for sample in data_set.test().gallery} == {3, 4, 5}


def manifest(folder: Path, text: str) -> str:
    (folder / "crops.csv").write_text(text, encoding="utf-8-sig")
    return f"manifest:{folder / 'crops.csv'}"


def test_a_manifest(tmp_path: Path) -> None:
    spec = manifest(
        tmp_path,
        "file,pid,camera,split\na.jpg,7,gate,train\nb.jpg,0,gate,train\nc.jpg,9,hall,query\nd.jpg,9,gate,gallery\n"
        "e.jpg,-1,gate,gallery\nf.jpg,0,hall,gallery\n",
    )
    data_set = open_data_set(spec)
    assert data_set.train() == (Sample(tmp_path / "a.jpg", 7, 1),)
    assert labels(data_set.test().query) == {(9, 2)}
    assert labels(data_set.test().gallery) == {(9, 1), (0, 2)}


def test_a_manifest_without_cameras_and_with_names(tmp_path: Path) -> None:
    data_set = open_data_set(manifest(tmp_path, "file,pid\na.jpg,bert\nb.jpg,anna\n"))
    assert [(sample.pid, sample.camera) for sample in data_set.train()] == [(2, NO_CAMERA), (1, NO_CAMERA)]
    assert not data_set.has_test()


def test_the_manifest_of_an_import_works_too(tmp_path: Path) -> None:
    data_set = open_data_set(manifest(tmp_path, "file,camera_id,captured_at,person_id\nx/a.jpg,gate,2026,p1\n"))
    assert data_set.train() == (Sample(tmp_path / "x" / "a.jpg", 1, 1),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column 'file'"),
        ("file\na.jpg\n", "no column 'pid'"),
        ("file,pid\n", "has no rows"),
        ("file,pid\na.jpg,\n", "line 2 of .* has no pid"),
        ("file,pid,split\na.jpg,1,tset\n", "line 2 of .* has split 'tset'; it must be one of train, query, gallery"),
        ("file,pid,camera\na.jpg,1,2\nb.jpg,1,\n", "line 3 of .* has no camera, but others have"),
    ],
)
def test_an_error_in_a_manifest_names_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_data_set(manifest(tmp_path, text))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nonsense", "write KIND:FOLDER"),
        ("other:/x", "one of market1501, dukemtmc"),
        ("market1501:/nowhere", "is missing"),
        ("msmt17:/nowhere", "is missing"),
        ("folder:/nowhere", "is missing"),
        ("manifest:/nowhere.csv", "cannot read the manifest"),
        ("synthetic:/nowhere", "no manifest of drawn crops"),
    ],
)
def test_a_wrong_data_option_says_what_to_do(spec: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_data_set(spec).train()


def test_an_empty_part_is_reported(tmp_path: Path) -> None:
    (tmp_path / "bounding_box_train").mkdir()
    with pytest.raises(DataError, match="holds no crop named like"):
        open_data_set(f"market1501:{tmp_path}").train()


class InMemory:
    """A data set of given labels."""

    terms = "ours"
    official = {"train": PartSize(2, 1)}  # noqa: RUF012

    def __init__(self, name: str, labelled: list[tuple[int, int]]) -> None:
        self.name = name
        self._labelled = labelled

    def train(self) -> tuple[Sample, ...]:
        return tuple(Sample(Path(f"{self.name}{i}.jpg"), pid, camera) for i, (pid, camera) in enumerate(self._labelled))

    def has_test(self) -> bool:
        return False

    def test(self) -> EvaluationSplit:
        raise DataError("none")


LABELS = st.lists(st.tuples(st.integers(1, 5), st.sampled_from([NO_CAMERA, 0, 1, 2])), min_size=1, max_size=8)


@given(st.lists(LABELS, min_size=2, max_size=4))
def test_joined_sets_share_no_person_and_no_camera(sets: list[list[tuple[int, int]]]) -> None:
    data_sets = [InMemory(f"set{i}-", labelled) for i, labelled in enumerate(sets)]
    joined = Joined(data_sets).train()
    assert [sample.path for sample in joined] == [s.path for data_set in data_sets for s in data_set.train()]
    by_set = [[s for s in joined if s.path.name.startswith(data_set.name)] for data_set in data_sets]
    persons = [{sample.pid for sample in own} for own in by_set]
    cameras = [{sample.camera for sample in own} - {NO_CAMERA} for own in by_set]
    assert len(set().union(*persons)) == sum(map(len, persons))
    assert len(set().union(*cameras)) == sum(map(len, cameras))
    for own, labelled in zip(by_set, sets, strict=True):
        assert len({s.pid for s in own}) == len({pid for pid, _ in labelled})
        assert [s.camera == NO_CAMERA for s in own] == [camera == NO_CAMERA for _, camera in labelled]


def test_several_sets_are_joined(tmp_path: Path) -> None:
    market = f"market1501:{write_market(tmp_path / 'm')}"
    picture(tmp_path / "f" / "a" / "1_c1.jpg")
    joined = open_data_sets([market, f"folder:{tmp_path / 'f'}"])
    assert joined.name == "Market-1501 + f"
    assert "Market-1501: research use only" in joined.terms
    assert len({sample.pid for sample in joined.train()}) == 7
    with pytest.raises(DataError, match="evaluate on each alone"):
        joined.test()


def test_sizes_that_are_official_need_no_note() -> None:
    data_set = InMemory("x", [(1, 1), (1, 2)])
    assert not size_notes(data_set, {"train": data_set.train(), "query": ()})


@pytest.mark.shared
def test_market1501_training_part_has_its_official_size(shared: Path) -> None:
    data_set = open_data_set(f"market1501:{shared / 'data' / 'market1501'}")
    train = data_set.train()
    assert PartSize.of(train) == PartSize(12_936, 751)
    assert not size_notes(data_set, {"train": train})
    assert {sample.camera for sample in train} == {1, 2, 3, 4, 5, 6}
