"""The sources of imports, and the errors for others."""

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from app.client.errors import SourceError
from app.client.sources import SourceItem, camera_id_of, read_source
from tests.cases import CASES


def picture(path: Path, taken: str | None = None, offset: str | None = None, fraction: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Passerby"  # Pillow writes no EXIF into a PNG that has nothing but details
    details = exif.get_ifd(ExifTags.IFD.Exif)
    if taken:
        details[ExifTags.Base.DateTimeOriginal] = taken
    if offset:
        details[ExifTags.Base.OffsetTimeOriginal] = offset
    if fraction:
        details[ExifTags.Base.SubsecTimeOriginal] = fraction
    Image.new("RGB", (4, 8)).save(path, exif=exif)
    return path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def manifest(folder: Path, *lines: str) -> Path:
    touch(folder / "a.jpg", folder / "b.jpg")
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# Market-1501


def test_market_names_give_camera_person_and_order(tmp_path: Path) -> None:
    touch(tmp_path / "0002_c1s1_000451_03.jpg", tmp_path / "0007_c6s2_000025_01.jpg.jpg")
    first, second = read_source(tmp_path).items
    assert (first.camera_id, first.person_id, first.path.name) == ("c1", "0002", "0002_c1s1_000451_03.jpg")
    assert first.captured_at == datetime(2015, 1, 1, tzinfo=UTC) + timedelta(seconds=451 / 25)
    assert (second.camera_id, second.person_id) == ("c6", "0007")
    assert second.captured_at == datetime(2015, 1, 1, 2, 0, 1, tzinfo=UTC)


def test_market_distractors_have_no_person_and_junk_is_counted(tmp_path: Path) -> None:
    touch(tmp_path / "0000_c1s1_000001_00.jpg", tmp_path / "-1_c1s1_000001_00.jpg")
    source = read_source(tmp_path)
    assert [item.person_id for item in source.items] == [None]
    assert "left out: 1 crop of junk (person -1)" in source.notes
    assert "without a person: 1 crop of distractors (person 0000)" in source.notes


def test_market_names_of_many_cameras_and_persons_and_other_formats(tmp_path: Path) -> None:
    names = ("10002_c12s1_000451_03.PNG", "other.jpg", f"0001_c1s1_{'9' * 30}_01.jpg", f"0001_c1s{'9' * 30}_1_01.jpg")
    touch(*(tmp_path / name for name in names), tmp_path / "inner" / "2.jpg")
    source = read_source(tmp_path)
    assert [(item.camera_id, item.person_id) for item in source.items] == [("c12", "10002")]
    assert any("left out: 3 pictures not named as in Market-1501 (" in note for note in source.notes)
    assert "left out: 1 folder (inner)" in source.notes


def test_stray_files_are_counted_by_kind(tmp_path: Path) -> None:
    touch(tmp_path / "0002_c1s1_000451_03.jpg", tmp_path / "Thumbs.db", tmp_path / "._0002_c1s1_000451_03.jpg")
    notes = read_source(tmp_path).notes
    assert "left out: 1 file, no pictures (.db)" in notes
    assert "left out: 1 file, hidden (._0002_c1s1_000451_03.jpg)" in notes


def test_the_folders_of_market_are_not_cameras(tmp_path: Path) -> None:
    touch(tmp_path / "bounding_box_test" / "0002_c1s1_000451_03.jpg")
    with pytest.raises(SourceError, match=r"import .*bounding_box_test itself"):
        read_source(tmp_path)


# A folder per camera


def test_a_folder_per_camera_is_read_to_its_depth_in_order(tmp_path: Path) -> None:
    for name in ("Süd Tor/2.png", "Süd Tor/night/1.jpg", "gate_1/3.webp"):
        picture(tmp_path / name)
    items = read_source(tmp_path).items
    assert [(item.camera_id, item.path.name) for item in items] == [
        ("sud-tor", "2.png"),
        ("sud-tor", "1.jpg"),
        ("gate_1", "3.webp"),
    ]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_time_with_its_zone_is_used(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / "a" / f"1{suffix}", taken="2024:05:01 12:00:00", offset="+02:00")
    source = read_source(tmp_path)
    captured_at = source.items[0].captured_at
    assert captured_at == datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert captured_at.utcoffset() == timedelta(hours=2)
    assert source.notes == ("captured_at from EXIF DateTimeOriginal: 1",)


def test_exif_without_zone_is_in_this_computers(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.jpg", taken="2024:05:01 12:00:00")
    assert read_source(tmp_path).items[0].captured_at == datetime(2024, 5, 1, 12).astimezone()


@pytest.mark.parametrize("taken", [None, "0000:00:00 00:00:00"])
def test_without_a_usable_exif_time_the_modification_time_is_used(tmp_path: Path, taken: str | None) -> None:
    os.utime(picture(tmp_path / "a" / "1.jpg", taken=taken), (1_700_000_000, 1_700_000_000))
    source = read_source(tmp_path)
    assert source.items[0].captured_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert source.items[0].captured_at.tzinfo is not None
    assert source.items[0].time_guessed
    assert source.guessed_times == 1


@pytest.mark.parametrize("offset", ["   :  ", "\0", "local", "+25:99"])
def test_an_unreadable_offset_keeps_the_exif_time_as_local(tmp_path: Path, offset: str) -> None:
    picture(tmp_path / "a" / "1.jpg", taken="2024:05:01 12:00:00", offset=offset)
    source = read_source(tmp_path)
    assert source.items[0].captured_at == datetime(2024, 5, 1, 12).astimezone()
    assert not source.guessed_times
    assert "of these without a time zone, taken as this computer's: 1" in source.notes


def test_the_blank_offset_of_a_real_camera(tmp_path: Path) -> None:
    shutil.copytree(CASES, tmp_path / "gate", ignore=lambda _, names: set(names) - {"exif_blank_offset.jpg"})
    (item,) = read_source(tmp_path).items
    assert item.captured_at == datetime(2024, 5, 1, 12).astimezone()


def test_fractions_of_a_second_count(tmp_path: Path) -> None:
    shutil.copytree(CASES / "subsec", tmp_path / "gate")
    items = read_source(tmp_path).items
    assert sorted(item.captured_at.microsecond for item in items) == [50_000, 123_456, 520_000, 950_000]
    assert not any(item.time_guessed for item in items)


ASCII = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=20)
CLOCK = st.sampled_from(["2024:05:01 12:00:00", "2024:13:01 12:00:00", "    :  :     :  :  ", "9999:12:31 23:59:59"])


@given(taken=CLOCK | ASCII, offset=st.sampled_from(["+02:00", "-14:00", "+99:99"]) | ASCII, fraction=ASCII)
def test_any_exif_gives_a_time_with_a_zone(
    tmp_path_factory: pytest.TempPathFactory, taken: str, offset: str, fraction: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "exif" / "gate" / "1.jpg"
    picture(path, taken=taken, offset=offset, fraction=fraction)
    (item,) = read_source(path.parents[1]).items
    assert item.captured_at.utcoffset() is not None


def test_invalid_pictures_are_left_to_the_service(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "broken.jpg")
    assert len(read_source(tmp_path).items) == 1


def test_folders_of_one_camera_id_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "Cam 1" / "a.jpg", tmp_path / "cam-1" / "a.jpg")
    with pytest.raises(SourceError, match="'Cam 1' and 'cam-1' give the same camera id 'cam-1'"):
        read_source(tmp_path)


def test_names_of_cameras_are_kept_as_written(tmp_path: Path) -> None:
    names = ("Süd Eingang", "摄像头1", "摄像头2", "入口", "C1", "gate")
    touch(*(tmp_path / name / "a.jpg" for name in names))
    source = read_source(tmp_path)
    ids = {item.path.parent.name: item.camera_id for item in source.items}
    assert len(set(ids.values())) == len(names)
    assert (ids["Süd Eingang"], ids["C1"], ids["gate"]) == ("sud-eingang", "c1", "gate")
    assert ids["摄像头1"].startswith("1-")
    assert source.camera_names == {ids[name]: name for name in names if name != "gate"}
    assert f"camera {ids['入口']} is '入口'" in source.notes


def test_decomposed_and_composed_letters_are_one_name() -> None:
    assert camera_id_of(unicodedata.normalize("NFD", "Ærø 摄é")) == camera_id_of("Ærø 摄é")


@given(st.text(st.characters(exclude_categories=("Cc",)), min_size=1, max_size=100))
def test_every_camera_id_is_valid_or_the_name_is_refused(name: str) -> None:
    try:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", camera_id_of(name))
    except SourceError:
        assert not any(character.isascii() and character.isalnum() for character in name)


def test_a_camera_id_is_the_name_in_plain_letters() -> None:
    names = ("Café (East)", "C1", "a.b", "Straße")
    assert [camera_id_of(name) for name in names] == ["cafe-east", "c1", "a-b", "strasse"]
    with pytest.raises(SourceError, match="'--' has no letters or digits"):
        camera_id_of("--")


def test_hidden_and_system_folders_are_no_crops_at_any_depth(tmp_path: Path) -> None:
    for folder in ("gate", "gate/@eaDir", "gate/day/.thumbnails", ".Trash-1000/gate", "#recycle"):
        touch(tmp_path / folder / "1.jpg")
    source = read_source(tmp_path)
    assert [item.path for item in source.items] == [tmp_path / "gate" / "1.jpg"]
    assert any("4 folders, hidden or of the system" in note for note in source.notes)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    outside, root = tmp_path / "disk", tmp_path / "root"
    touch(outside / "1.jpg", root / "hall" / "2.jpg")
    (root / "gate").symlink_to(outside)
    (root / "hall" / "again").symlink_to(outside)
    (root / "hall" / "loop").symlink_to(root)
    (root / "a-hall").symlink_to(root / "hall")
    (root / "hall" / "gone").symlink_to(tmp_path / "nowhere")
    source = read_source(root)
    assert [(item.camera_id, item.path.name) for item in source.items] == [("gate", "1.jpg"), ("hall", "2.jpg")]
    assert any("3 links, to a folder that is read elsewhere (a-hall, again, loop)" in note for note in source.notes)
    assert any("1 name, a broken link or a device (gone)" in note for note in source.notes)


def test_links_into_hidden_folders_are_followed_and_nothing_is_read_twice(tmp_path: Path) -> None:
    outside, root = tmp_path / "disk", tmp_path / "root"
    touch(root / ".store" / "gate" / "1.jpg", outside / "deep" / "2.jpg", outside / "3.jpg")
    (root / "gate").symlink_to(root / ".store" / "gate")
    (root / "a").symlink_to(outside / "deep")
    (root / "b").symlink_to(outside)
    items = read_source(root).items
    assert [(item.camera_id, item.path.name) for item in items] == [("a", "2.jpg"), ("b", "3.jpg"), ("gate", "1.jpg")]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_names_that_are_not_utf_8_are_read(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"T\xfcr")
    touch(folder / os.fsdecode(b"b\xe4r.jpg"))
    source = read_source(tmp_path)
    (camera_id,) = {item.camera_id for item in source.items}
    assert camera_id.startswith("t-r-")
    assert source.camera_names == {camera_id: "T\\xfcr"}


# A flat folder


def test_a_flat_folder_needs_a_camera(tmp_path: Path) -> None:
    picture(tmp_path / "1.jpg")
    with pytest.raises(SourceError, match=r"1\.jpg.*--camera ID"):
        read_source(tmp_path)
    assert [item.camera_id for item in read_source(tmp_path, "gate").items] == ["gate"]


def test_folders_in_a_flat_folder_are_reported(tmp_path: Path) -> None:
    touch(tmp_path / "1.jpg", tmp_path / "night" / "2.jpg")
    assert "left out: 1 folder (night)" in read_source(tmp_path, "gate").notes


def test_loose_pictures_beside_camera_folders_are_reported(tmp_path: Path) -> None:
    touch(tmp_path / "1.jpg", tmp_path / "cam" / "2.jpg")
    with pytest.raises(SourceError, match=r"1\.jpg"):
        read_source(tmp_path)


# CSV


def test_a_manifest_has_all_metadata(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "\ufefffile,camera_id,captured_at,track_id,person_id,attributes,weather",
        'a.jpg,c1,2024-05-01T12:00:00Z,t1,p1,"{""lane"": 2}",rain',
        f"{tmp_path / 'b.jpg'},c2,2024-05-01T12:00:00+02:00,,,,",
    )
    source = read_source(path)
    first, second = source.items
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert first == SourceItem(tmp_path / "a.jpg", "c1", noon, "t1", "p1", {"lane": 2})
    assert second == SourceItem(tmp_path / "b.jpg", "c2", noon - timedelta(hours=2))
    assert second.captured_at.utcoffset() == timedelta(hours=2)
    assert source.notes == ("unknown columns ignored: weather",)


def test_a_folder_with_a_manifest_is_read_through_it(tmp_path: Path) -> None:
    manifest(tmp_path, "file,camera_id,captured_at", "b.jpg,c1,2024-05-01T12:00:00Z")
    assert [item.path.name for item in read_source(tmp_path).items] == ["b.jpg"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("gone.jpg,c1,2024-05-01T12:00:00Z,", r"line 3, column file: there is no file"),
        (",c1,2024-05-01T12:00:00Z,", r"line 3, column file: is empty"),
        ("a.jpg, ,2024-05-01T12:00:00Z,", r"line 3, column camera_id: is empty"),
        ("a.jpg,c1", r"line 3, column captured_at: is empty"),
        ("a.jpg,c1,noon,", r"line 3, column captured_at: 'noon' is no ISO 8601 time"),
        ("a.jpg,c1,2024-05-01T12:00:00,", r"line 3, column captured_at: .* has no zone"),
        ("a.jpg,c1,2024-05-01T12:00:00Z,{", r"line 3, column attributes: '{' is no JSON"),
        ("a.jpg,c1,2024-05-01T12:00:00Z,[1]", r"line 3, column attributes: .* is no JSON object"),
        ("a.jpg,c1,2024-05-01T12:00:00Z,,x", r"line 3: more values than there are columns"),
        ('a.jpg,c1,"2024', r"line 3: unexpected end of data"),
    ],
)
def test_an_invalid_line_is_reported(tmp_path: Path, line: str, complaint: str) -> None:
    path = manifest(tmp_path, "file,camera_id,captured_at,attributes", "a.jpg,c1,2024-05-01T12:00:00Z,", line)
    with pytest.raises(SourceError, match=f"manifest.csv, {complaint}"):
        read_source(path)


def test_missing_columns_are_reported(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="line 1: no column camera_id, captured_at in 'file, camera'"):
        read_source(manifest(tmp_path, "file;camera", "file"))


@pytest.mark.parametrize(
    "text",
    [
        "File,Camera ID,Captured-At\na.jpg, gate ,2024-05-01T12:00:00Z\n,,,\n , ,\n",
        "file;camera_id;captured_at;;\n a.jpg;gate;2024-05-01T12:00:00Z;;\n;;;;\n",
        'sep=;\r\n"file";"camera_id";"captured_at"\r\n"a.jpg"; "gate";2024-05-01T12:00:00Z\r\n',
        "file\tcamera_id\tcaptured_at\na.jpg\tgate\t2024-05-01T12:00:00Z",
        "file,camera_id,captured_at\nday\\..\\a.jpg,gate,2024-05-01T12:00:00Z",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_manifests_are_read_as_spreadsheets_write_them(tmp_path: Path, text: str, encoding: str) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "day" / "x")
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode(encoding))
    (item,) = read_source(path).items
    assert (item.path.resolve(), item.camera_id) == (tmp_path / "a.jpg", "gate")
    assert item.captured_at == datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="line 1: 2 columns are called 'file'"):
        read_source(manifest(tmp_path, "file,File,camera_id,captured_at", "a.jpg,b.jpg,c1,2024-05-01T12:00:00Z"))


def test_cameras_of_a_manifest_have_valid_ids(tmp_path: Path) -> None:
    rows = [f"a.jpg,{name},2024-05-01T12:00:00Z" for name in ("Süd Eingang", "Gate.1", "Gate.1")]
    source = read_source(manifest(tmp_path, "file,camera_id,captured_at", *rows))
    assert [item.camera_id for item in source.items] == ["sud-eingang", "Gate.1", "Gate.1"]
    assert source.camera_names == {"sud-eingang": "Süd Eingang"}


def test_a_manifest_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes("file,camera_id,captured_at\nTür.jpg".encode("latin-1"))
    with pytest.raises(SourceError, match="line 2: not encoded in UTF-8"):
        read_source(path)


# Other sources


def text_file(folder: Path) -> Path:
    path = folder / "crops.txt"
    touch(path)
    return path


def folder_of_texts(folder: Path) -> Path:
    touch(folder / "cam" / "notes.txt")
    return folder


@pytest.mark.parametrize(
    ("prepare", "complaint"),
    [
        (lambda folder: folder / "nowhere", "there is nothing at"),
        (text_file, "neither a folder nor a CSV file"),
        (lambda folder: folder, "holds no crop to import"),
        (folder_of_texts, r"holds no crop to import; left out: 1 file, no pictures \(.txt\)"),
    ],
)
def test_other_sources_are_refused_with_the_known_layouts(
    tmp_path: Path, prepare: Callable[[Path], Path], complaint: str
) -> None:
    with pytest.raises(SourceError, match=complaint):
        read_source(prepare(tmp_path))


def test_a_camera_is_refused_where_the_source_says_the_cameras(tmp_path: Path) -> None:
    path = manifest(tmp_path / "a", "file,camera_id,captured_at", "b.jpg,c1,2024-05-01T12:00:00Z")
    touch(tmp_path / "b" / "0002_c1s1_000451_03.jpg")
    for source in (path, tmp_path / "a", tmp_path / "b"):
        with pytest.raises(SourceError, match="leave out --camera"):
            read_source(source, "gate")
