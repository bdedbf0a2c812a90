"""Galleries of earlier versions: their tables and their files."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from alembic import command
from alembic.config import Config
from sqlalchemy import (
    JSON,
    Connection,
    LargeBinary,
    TableClause,
    column,
    create_engine,
    delete,
    insert,
    select,
    table,
)

from app.database import MIGRATIONS, database_url_of
from app.kit.times import now_microseconds
from app.settings import Settings
from tests.app.running import jpeg

FIRST = "0001"
"""The revision of the first version, which did not store the active model."""

LAST = "0005"
"""The latest revision."""

OLD_MODEL = "old-0123456789ab"


def write_old_gallery(
    settings: Settings, tables: str, seeds: Sequence[int], model_id: str = OLD_MODEL, checkpoint: bytes | None = None
) -> list[str]:
    """Write a gallery of the crops `jpeg(seed)`, embedded by a model; returns their ids.

    checkpoint: the stored checkpoint of the active model, for revisions that have one; None: the file is missing.
    """
    images = [jpeg(seed) for seed in seeds]
    hashes = [hashlib.sha256(image).hexdigest() for image in images]
    for sha256, image in zip(hashes, images, strict=True):
        path = picture_path(settings, sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    with _connected(settings) as connection:
        _migrate(connection, tables)
        ids = _fill(connection, hashes, model_id)
        if tables != FIRST:
            name = f"{hashlib.sha256(checkpoint or b'gone').hexdigest()}.onnx"
            _insert(
                connection,
                "models",
                [{"model_id": model_id, "checkpoint": name, "state": "answers", "created_at": 0, "lossy": False}],
            )
            if checkpoint is not None:
                settings.checkpoints_dir.mkdir(parents=True)
                (settings.checkpoints_dir / name).write_bytes(checkpoint)
        connection.commit()
    return ids


def add_old_search(settings: Settings, seed: int, crop_id: str, with_pictures: bool = False) -> str:
    """Store a search by the picture `jpeg(seed)` that found one crop; returns its id.

    with_pictures: the search has a picture of its own, as since 0.2; otherwise it is an image of the gallery.
    """
    search_id = "01e".ljust(26, "0")
    match = {"crop_id": crop_id, "similarity": 0.5, "parts": {}}
    search = {"id": search_id, "created_at": now_microseconds(), "model_id": OLD_MODEL, "gallery_size": 1}
    with _connected(settings) as connection:
        row = {**search, "compared": 1, "filters": {}, "query_crop_ids": [], "matches": [match]}
        _insert(connection, "searches", [row])
        if with_pictures:
            _insert(connection, "search_pictures", [{"search_id": search_id, "position": 0, "content": jpeg(seed)}])
        else:
            use = {"owner_id": search_id, "position": 0, "image_sha256": hashlib.sha256(jpeg(seed)).hexdigest()}
            _insert(connection, "image_uses", [use])
        connection.commit()
    return search_id


def delete_crop_as_before(settings: Settings, key: int) -> None:
    """Delete a crop as versions before 0.3 did, whose searches kept its picture."""
    with _connected(settings) as connection:
        for name, column_name in (("embeddings", "crop_key"), ("crops", "key")):
            rows = table(name, column(column_name))
            connection.execute(delete(rows).where(rows.c[column_name] == key))
        connection.commit()


def picture_path(settings: Settings, sha256: str) -> Path:
    """The path of a picture with the default settings."""
    return settings.data_dir / "images" / sha256[:2] / sha256[2:4] / sha256


def lose_pictures(settings: Settings, seeds: Sequence[int]) -> dict[Path, bytes]:
    """Delete the files of crops, as a broken disk does; returns their contents by path."""
    lost = {}
    for seed in seeds:
        path = picture_path(settings, hashlib.sha256(jpeg(seed)).hexdigest())
        lost[path] = path.read_bytes()
        path.unlink()
    return lost


@contextmanager
def unread(settings: Settings, seed: int) -> Iterator[None]:
    """Reading a crop's picture blocks until the end of the context, and must then be retried.

    So a reindex stops there, on a machine of any speed: it reads crops in the order of their keys, in batches.
    """
    path = picture_path(settings, hashlib.sha256(jpeg(seed)).hexdigest())
    whole, pipe = path.with_suffix(".whole"), path.with_suffix(".pipe")
    path.rename(whole)
    os.mkfifo(path)
    try:
        yield
    finally:
        path.rename(pipe)
        whole.rename(path)
        with suppress(OSError):  # no reader waits
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        pipe.unlink()


def embedded_crops(settings: Settings, model_id: str) -> list[int]:
    """The keys of crops that a model has embedded, from the change log, with repetitions."""
    with _connected(settings) as connection:
        changes = _changes()
        query = select(changes.c.crop_key).where(changes.c.model_id == model_id, changes.c.what == 1)
        return sorted(connection.execute(query).scalars())


def forget_embeddings(settings: Settings, model_id: str, kept: int) -> None:
    """Delete a model's embeddings and changes except for the first crops, as if it had never embedded the rest."""
    with _connected(settings) as connection:
        for rows in (table("embeddings", column("model_id"), column("crop_key")), _changes()):
            connection.execute(delete(rows).where(rows.c.model_id == model_id, rows.c.crop_key > kept))
        connection.commit()


@contextmanager
def _connected(settings: Settings) -> Iterator[Connection]:
    url = database_url_of(settings)
    if url.get_backend_name() == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    else:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _migrate(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _fill(connection: Connection, hashes: Sequence[str], model_id: str) -> list[str]:
    rng = np.random.default_rng(1)
    ids = [f"01d{number:023}" for number in range(len(hashes))]
    _insert(connection, "cameras", [{"id": "gate", "name": "gate", "created_at": 0}])
    facts = {"media_type": "image/jpeg", "width": 64, "height": 128, "bytes": 1}
    _insert(connection, "images", [{"sha256": sha256, **facts} for sha256 in hashes])
    crop = {"camera_id": "gate", "utc_offset": 0, "attributes": {}, "created_at": 0}
    crops = [
        {"key": number, "id": crop_id, "captured_at": number, "image_sha256": sha256, **crop}
        for number, (crop_id, sha256) in enumerate(zip(ids, hashes, strict=True), start=1)
    ]
    _insert(connection, "crops", crops)
    vectors = rng.standard_normal((len(hashes), 2048))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [{"model_id": model_id, "crop_key": number} for number in range(1, len(hashes) + 1)]
    embeddings = [{**row, "vector": vector.astype("<f2").tobytes()} for row, vector in zip(rows, vectors, strict=True)]
    _insert(connection, "embeddings", embeddings)
    _insert(connection, "changes", [{**row, "what": 1} for row in rows])
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "SELECT setval(pg_get_serial_sequence('crops', 'key'), (SELECT max(key) FROM crops))"
        )
    return ids


def _insert(connection: Connection, name: str, rows: list[dict[str, object]]) -> None:
    lists = ("attributes", "filters", "query_crop_ids", "matches")
    types = {**dict.fromkeys(lists, JSON()), "vector": LargeBinary(), "content": LargeBinary()}
    connection.execute(insert(table(name, *(column(key, types.get(key)) for key in rows[0]))), rows)


def _changes() -> TableClause:
    return table("changes", column("model_id"), column("crop_key"), column("what"))
