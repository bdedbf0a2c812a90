"""The sources of imports, and the errors for others."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from app.client.errors import SourceError
from app.client.sources import SourceItem, read_source, slug


def picture(path: Path, taken: str | None = None, offset: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Passerby"  # Pillow writes no EXIF into a PNG that has nothing but details
    details = exif.get_ifd(ExifTags.IFD.Exif)
    if taken:
        details[ExifTags.Base.DateTimeOriginal] = taken
    if offset:
        details[ExifTags.Base.OffsetTimeOriginal] = offset
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
    assert "left out as junk (person -1): 1" in source.notes


def test_stray_files_are_counted_by_kind(tmp_path: Path) -> None:
    touch(tmp_path / "0002_c1s1_000451_03.jpg", tmp_path / "Thumbs.db", tmp_path / "._0002_c1s1_000451_03.jpg")
    assert "ignored files: 2 (.jpg, .db)" in read_source(tmp_path).notes


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
    assert "captured_at from the last modification" in source.notes[0]


def test_invalid_pictures_are_left_to_the_service(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "broken.jpg")
    assert len(read_source(tmp_path).items) == 1


def test_folders_of_one_camera_id_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "Cam 1" / "a.jpg", tmp_path / "cam-1" / "a.jpg")
    with pytest.raises(SourceError, match="'Cam 1' and 'cam-1'"):
        read_source(tmp_path)


def test_a_folder_name_without_letters_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "入口" / "a.jpg")
    with pytest.raises(SourceError, match="gives no camera id"):
        read_source(tmp_path)


def test_slugs_are_letters_digits_and_dashes() -> None:
    assert [slug(name) for name in ("Café (East)", "C1", "--", "a.b")] == ["cafe-east", "c1", "", "a-b"]


# A flat folder


def test_a_flat_folder_needs_a_camera(tmp_path: Path) -> None:
    picture(tmp_path / "1.jpg")
    with pytest.raises(SourceError, match=r"1\.jpg.*--camera ID"):
        read_source(tmp_path)
    assert [item.camera_id for item in read_source(tmp_path, "gate").items] == ["gate"]


def test_folders_in_a_flat_folder_are_reported(tmp_path: Path) -> None:
    touch(tmp_path / "1.jpg", tmp_path / "night" / "2.jpg")
    assert "ignored files: 1 (night)" in read_source(tmp_path, "gate").notes


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
    with pytest.raises(SourceError, match="line 1: no column file, camera_id, captured_at in 'file;camera'"):
        read_source(manifest(tmp_path, "file;camera", "file"))


def test_a_manifest_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes("file,camera_id,captured_at\nTür.jpg".encode("latin-1"))
    with pytest.raises(SourceError, match="UTF-8"):
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
        (folder_of_texts, r"holds no crop to import; ignored files: 1 \(.txt\)"),
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
