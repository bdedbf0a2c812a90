"""Where a service keeps its files: folders as paths or fsspec URLs, and what earlier versions kept elsewhere."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

_FILE_SCHEME = "file://"
_SQLITE_HEADER = b"SQLite format 3\0"


class MisplacedGallery(Exception):
    """An earlier version kept the database in a place that other galleries share."""


class FolderInUse(Exception):
    """Another service uses the data folder."""


@contextmanager
def exclusive_use(data_folder: Path) -> Iterator[None]:
    """Keep other services out of a data folder; the lock ends with the process. Raises FolderInUse, OSError.

    Two services would damage each other's snapshots and working files.
    """
    lock, owner = FileLock(data_folder / "passerby.lock", timeout=0), data_folder / "passerby.pid"
    try:
        lock.acquire()
    except Timeout as error:
        pid = owner.read_text(encoding="ascii").strip() if owner.exists() else ""
        raise FolderInUse(
            f"another service (process {pid or 'unknown'}) uses the data folder {data_folder}: stop it, or choose "
            "another folder by PASSERBY_DATA_DIR or --data-dir"
        ) from error
    try:
        with suppress(OSError):  # for a message alone, and a full disk keeps no service from starting
            owner.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        lock.release()


def local_folder(place: str) -> Path | None:
    """The folder that a path or a file:// URL names; None for the URLs of other file systems."""
    if place.startswith(_FILE_SCHEME):
        return Path(unquote(place.removeprefix(_FILE_SCHEME)))
    return None if "://" in place else Path(place)


def file_system(place: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system of a path or URL, and the path in it.

    Local paths are taken as they are, whatever characters they have. Raises what fsspec raises for unknown URLs.
    """
    folder = local_folder(place)
    if folder is not None:
        return LocalFileSystem(), str(folder.resolve())
    files, path = fsspec.core.url_to_fs(place)
    return files, str(path)


def adopt_misplaced_files(folder: Path) -> None:
    """Move files to a folder that versions before 0.3 stored in one of the percent-encoded name, such as My%20Data.

    A second call continues after an interruption. Raises OSError.
    """
    misplaced = Path(folder.as_uri().removeprefix(_FILE_SCHEME))
    if misplaced == folder or not misplaced.is_dir():
        return
    for file in misplaced.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(misplaced)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, target)
    shutil.rmtree(misplaced)


def adopt_misplaced_data(data_folder: Path) -> None:
    """`adopt_misplaced_files` for the pictures and checkpoints in a data folder.

    A folder of the percent-encoded name that holds anything else is another gallery's, and is left as it is.
    """
    misplaced = Path(data_folder.as_uri().removeprefix(_FILE_SCHEME))
    if misplaced == data_folder or not misplaced.is_dir():
        return
    names = {path.name for path in misplaced.iterdir()}
    if names <= {"images", "checkpoints"}:
        for name in sorted(names):
            adopt_misplaced_files(data_folder / name)
        misplaced.rmdir()


def check_database_place(database: Path) -> None:
    """Raise MisplacedGallery where a version before 0.3 cut the path of the database at a question mark."""
    shared = Path(str(database.resolve()).partition("?")[0])
    if shared == database.resolve() or database.exists() or not shared.is_file():
        return
    with shared.open("rb") as file:
        if file.read(len(_SQLITE_HEADER)) != _SQLITE_HEADER:
            return
    raise MisplacedGallery(
        f"versions before 0.3 kept the database of this data folder in {shared}, together with those of other folders "
        f"of that beginning: move it to {database} to use it here, or move it elsewhere to start with an empty gallery"
    )
