"""Uploads of the clients to a real service."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import passerby
from passerby.uploading import CROPS_PER_REQUEST, REQUESTS_IN_FLIGHT
from tests.app.running import jpeg
from tests.passerby.new_crops import NOON, crops


def test_an_upload_reports_each_crop_once_and_a_bad_one_fails_alone(client: passerby.Client, tmp_path: Path) -> None:
    given = crops(2 * CROPS_PER_REQUEST + 5)
    given[7] = passerby.NewCrop(b"no picture", "gate", NOON)
    given[40] = passerby.NewCrop(tmp_path / "gone.jpg", "gate", NOON)
    given[41] = passerby.NewCrop(jpeg(41), "no camera's id", NOON)
    outcomes: list[passerby.UploadedCrop] = []
    summary = client.upload(given, outcomes.append)
    assert sorted(outcome.position for outcome in outcomes) == list(range(len(given)))
    assert all(outcome.crop is given[outcome.position] for outcome in outcomes)
    assert all(outcome.stored for outcome in outcomes if outcome.status == "created")
    assert (summary.created, summary.existing, summary.failed.keys()) == (len(given) - 3, 0, {7, 40, 41})
    assert "is no picture" in summary.failed[7]
    assert summary.failed[40] == "cannot be read: No such file or directory"
    assert "camera_id" in summary.failed[41]
    again = client.upload(given)
    assert (again.created, again.existing, len(again.failed)) == (0, len(given) - 3, 3)


def test_an_upload_of_a_generator_has_few_pictures_in_memory(client: passerby.Client) -> None:
    made, reported, most = 0, 0, 0

    def one_by_one() -> Iterator[passerby.NewCrop]:
        nonlocal made, most
        for crop in crops(12 * CROPS_PER_REQUEST):
            made += 1
            most = max(most, made - reported)
            yield crop

    def progress(_: passerby.UploadedCrop) -> None:
        nonlocal reported
        reported += 1

    client.upload(one_by_one(), progress)
    assert reported == 12 * CROPS_PER_REQUEST
    assert most <= (REQUESTS_IN_FLIGHT + 1) * CROPS_PER_REQUEST + 1


def test_a_guessed_time_does_not_make_another_crop(client: passerby.Client) -> None:
    for moment in (NOON, NOON + timedelta(hours=1)):
        client.upload([passerby.NewCrop(jpeg(1), "gate", moment, time_guessed=True)])
    (crop,) = client.crops()
    assert (crop.captured_at, crop.time_guessed) == (NOON, True)


def test_an_upload_corrects_labels_where_it_is_asked_to(client: passerby.Client) -> None:
    client.upload(crops(2))
    corrected = [replace(crop, person_id="anna") for crop in crops(2)]
    assert client.upload(corrected).existing == 2
    assert client.upload(corrected, update=True).updated == 2
    assert {crop.person_id for crop in client.crops()} == {"anna"}


def test_an_error_of_the_caller_ends_an_upload(client: passerby.Client) -> None:
    def broken() -> Iterator[passerby.NewCrop]:
        yield from crops(3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.upload(broken())
