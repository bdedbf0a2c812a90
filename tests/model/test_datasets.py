"""Data sets are read in their layouts; stray files are ignored."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.datasets import open_data_set, open_data_sets
from model.datasets.base import NO_CAMERA, EvaluationSplit, PartName, PartSize, Sample, size_notes
from model.datasets.joined import Joined
from model.datasets.reading import numbers_of
from model.errors import DataError
from tests.cases import CASES
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
    data_set = open_data_set(f"market1501:{root}")
    gallery = data_set.test().gallery
    assert len(gallery) == before
    assert {sample.pid for sample in gallery} >= {0, 7}
    assert -1 not in {sample.pid for sample in gallery}
    assert data_set.notes("test") == (
        "bounding_box_test: left out: 2 files, no pictures (.db, .txt)",
        "bounding_box_test: left out: 1 file, hidden (.DS_Store)",
        "left out: 1 crop of junk (person -1)",
    )


@pytest.mark.parametrize(
    ("kind", "name", "label"),
    [
        ("market1501", "0007_c12s3_077419_03.png", (7, 12)),
        ("market1501", "10007_c3s1_000001_01.JPG", (10007, 3)),
        ("market1501", "0007_c3s12_000001_01.JPEG.JPG", (7, 3)),
        ("dukemtmc", "12345_c10_f0044158.PNG", (12345, 10)),
        ("cuhk03-labeled", "12345_c10_21.JPG", (12345, 10)),
    ],
)
def test_names_of_many_cameras_and_persons_and_of_other_formats_are_read(
    tmp_path: Path, kind: str, name: str, label: tuple[int, int]
) -> None:
    picture(tmp_path / "bounding_box_train" / name)
    assert labels(open_data_set(f"{kind}:{tmp_path}").train()) == {label}


def test_what_a_reader_leaves_out_is_counted_with_the_reason(tmp_path: Path) -> None:
    train = tmp_path / "bounding_box_train"
    for name in ("0002_c1s1_000451_03.jpg", "00002_c2s1_000451_03.jpg", "0000_c1s1_000001_01.jpg", "holiday.jpg"):
        picture(train / name)
    picture(train / "more" / "0003_c1s1_000451_03.jpg")
    stray(train)
    data_set = open_data_set(f"market1501:{tmp_path}")
    assert {sample.pid for sample in data_set.train()} == {2}
    assert data_set.notes("train") == (
        "bounding_box_train: left out: 2 files, no pictures (.db, .txt)",
        "bounding_box_train: left out: 1 file, hidden (.DS_Store)",
        "bounding_box_train: left out: 1 picture not named like 0002_c1s1_000451_03.jpg (holiday.jpg)",
        "bounding_box_train: left out: 1 folder in it (more)",
        "bounding_box_train: persons written in several ways count as one: 00002, 0002",
        "left out: 1 crop of distractors (person 0)",
    )


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


def test_names_that_are_uuids_have_no_camera() -> None:
    data_set = open_data_set(f"folder:{CASES / 'uuid_names'}")
    assert {sample.camera for sample in data_set.train()} == {NO_CAMERA}
    assert any("cameras unknown" in note for note in data_set.notes("train"))


@pytest.mark.parametrize("name", ["c0001", "c3261d48-0a52-4f31", "a-c3-b", "mac3_1", "1_c3a", "x_cam1a", "abc12"])
def test_a_camera_is_not_guessed_from_a_part_of_a_word(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "p1" / f"{name}.jpg")
    assert labels(open_data_set(f"folder:{tmp_path}").train()) == {(1, NO_CAMERA)}


@pytest.mark.parametrize("name", ["0001_c3s1_000151_01", "x_c3_1", "x_c3", "C3_1", "cam3", "p-cam3-1", "x_Camera3_y"])
def test_a_camera_in_a_name_stands_by_itself(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "p1" / f"{name}.jpg")
    assert labels(open_data_set(f"folder:{tmp_path}").train()) == {(1, 3)}


def test_hidden_and_system_folders_are_no_persons_and_no_cameras(tmp_path: Path) -> None:
    for folder in ("anna/gate", "anna/hall", ".Trash-1000/x", "@eaDir/x", "anna/gate/@eaDir", "anna/.thumbnails"):
        picture(tmp_path / folder / "1.jpg")
    picture(tmp_path / "loose.jpg")
    data_set = open_data_set(f"folder:{tmp_path}")
    assert labels(data_set.train()) == {(1, 1), (1, 2)}
    assert len(data_set.train()) == 2
    (folders,) = (note for note in data_set.notes("train") if "of the system" in note)
    assert "left out: 4 folders, hidden or of the system (.Trash-1000, @eaDir, .thumbnails)" in folders
    assert any("1 picture in no person's folder, such as loose.jpg" in note for note in data_set.notes("train"))


def test_crops_without_cameras(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.jpg")
    picture(tmp_path / "b" / "1.jpg")
    assert labels(open_data_set(f"folder:{tmp_path}").train()) == {(1, NO_CAMERA), (2, NO_CAMERA)}
    picture(tmp_path / "b" / "2_c1.jpg")
    with pytest.raises(DataError, match=r"2_c1\.jpg has a camera .*a/1\.jpg has none: give it in all"):
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
    assert data_set.train() == (Sample(tmp_path / "a.jpg", 7, 1), Sample(tmp_path / "b.jpg", 10, 1))
    assert labels(data_set.test().query) == {(9, 2)}
    assert labels(data_set.test().gallery) == {(9, 1), (10, 2)}
    assert data_set.notes("train") == ("pid 0 is a person like any other: 1 row; leave rows of distractors out",)
    assert data_set.notes("test")[0] == "left out: 1 row of junk (pid -1)"


def test_labels_of_a_manifest_are_names_as_written() -> None:
    data_set = open_data_set(f"manifest:{CASES / 'manifest_ids.csv'}")
    assert len({sample.pid for sample in data_set.train()}) == 4, "1_11, 11_1, 0 and 5"


@pytest.mark.parametrize(
    "names", [("1_11", "11_1"), ("01", "1"), ("\uff11", "1"), ("7 x", "7"), ("1e1", "10"), ("0", "5"), ("1" * 30, "2")]
)
def test_different_names_are_different_persons_and_cameras(tmp_path: Path, names: tuple[str, str]) -> None:
    one, other = names
    persons = open_data_set(manifest(tmp_path, f"file,pid\na.jpg,{one}\nb.jpg,{other}\n")).train()
    assert len({sample.pid for sample in persons}) == 2
    assert all(sample.pid > 0 for sample in persons)
    cameras = open_data_set(manifest(tmp_path, f"file,pid,camera\na.jpg,1,{one}\nb.jpg,1,{other}\n")).train()
    assert len({sample.camera for sample in cameras}) == 2


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1), min_size=1))
def test_labels_never_merge_and_never_become_junk(names: list[str]) -> None:
    numbers = numbers_of(names)
    assert len(set(zip(names, numbers, strict=True))) == len(set(names)) == len(set(numbers))
    assert min(numbers) > 0


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
        ("manifest:/nowhere.csv", "cannot read /nowhere.csv"),
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

    def notes(self, part: PartName) -> tuple[str, ...]:
        return (f"{part} is whole",)


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
