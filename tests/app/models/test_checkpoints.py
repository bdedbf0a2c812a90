"""The checkpoint store, local and remote: complete checkpoints, or errors."""

import os
from io import BytesIO
from pathlib import Path
from secrets import token_hex

import pytest

from app.kit.hashing import sha256_hex
from app.models.checkpoints import CheckpointStore
from model.errors import CheckpointError

CONTENT = b"weights" * 1000
NAME = f"{sha256_hex(CONTENT)}.onnx"


@pytest.fixture(params=["this disk", "another disk", "elsewhere"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointStore:
    folder = tmp_path / "own"
    urls = {
        "this disk": folder.as_uri(),
        "another disk": (tmp_path / "shared").as_uri(),
        "elsewhere": f"memory://{token_hex(4)}/checkpoints",
    }
    return CheckpointStore(urls[request.param], folder)


async def keep(store: CheckpointStore) -> None:
    async with store.received(BytesIO(CONTENT), ".onnx") as arrived:
        assert arrived.path.read_bytes() == CONTENT
        assert arrived.name == NAME
        await store.keep(arrived)


async def test_a_stored_checkpoint_is_found_by_its_name(store: CheckpointStore, tmp_path: Path) -> None:
    await keep(store)
    await keep(store)
    path = await store.path(NAME)
    assert path.read_bytes() == CONTENT
    assert path.suffix == ".onnx"
    assert not list(tmp_path.rglob(".arriving-*"))


async def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore((tmp_path / "shared").as_uri(), tmp_path / "own")

    await keep(store)
    (await store.path(NAME)).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="is damaged"):
        await store.path(NAME)


async def test_a_damaged_local_copy_is_fetched_again(tmp_path: Path) -> None:
    store = CheckpointStore(f"memory://{token_hex(4)}", tmp_path)

    await keep(store)
    (await store.path(NAME)).write_bytes(b"damaged")
    assert (await store.path(NAME)).read_bytes() == CONTENT


async def test_a_missing_checkpoint_is_an_error(store: CheckpointStore) -> None:
    with pytest.raises(CheckpointError, match="is gone"):
        await store.path(NAME)
    await keep(store)
    await store.delete(NAME)
    await store.delete(NAME)


async def test_old_partial_files_of_killed_processes_are_deleted(store: CheckpointStore) -> None:
    await keep(store)
    async with store.received(BytesIO(b"half"), ".onnx") as arrived:
        store.clear()
        assert arrived.path.exists(), "another process that shares the folder may be at it"
        os.utime(arrived.path, (0, 0))
        store.clear()
        assert not arrived.path.exists()
    assert (await store.path(NAME)).exists()
