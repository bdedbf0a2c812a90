"""Embedding in a separate process: equal embeddings, bad files fail alone, the process ends with its parent."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from app.embedding.background import NICENESS, BackgroundEmbedder
from app.embedding.engine import EngineError, load_engines
from model.decoding import PictureLimits, decode
from model.errors import CheckpointError
from tests.app.factories import encoded, picture
from tests.app.reindexing import embedding_processes
from tests.app.waiting import until

LIMITS = PictureLimits()


def embedder(checkpoint: Path) -> BackgroundEmbedder:
    return BackgroundEmbedder(checkpoint, "auto", 2, LIMITS)


async def test_it_embeds_as_the_service_does_and_a_bad_file_fails_alone(tiny_checkpoint: Path) -> None:
    contents = [encoded(picture(seed)) for seed in range(9)]
    contents[4] = b"no picture"

    async with embedder(tiny_checkpoint) as background:
        embedded = await background.embed(contents)
        engine = load_engines(tiny_checkpoint).workers[0]
        for content, one in zip(contents, embedded, strict=True):
            if content == b"no picture":
                assert isinstance(one, str)
                continue
            pixels = decode(content, LIMITS, engine.metadata.input).pixels
            assert not isinstance(one, str)
            np.testing.assert_allclose(one, engine.embed(pixels[None])[0], atol=1e-5)


async def test_a_checkpoint_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"damaged")

    with pytest.raises(CheckpointError, match="is no ONNX file that can be run"):
        async with embedder(path):
            pass


async def test_a_killed_process_ends_a_running_call(tiny_checkpoint: Path) -> None:
    async with embedder(tiny_checkpoint) as background:
        assert background.metadata.model_id == "tiny-0123456789ab"
        embedding = asyncio.create_task(background.embed([encoded(picture(1))] * 5000))
        await asyncio.sleep(0)
        background.kill()
        with pytest.raises(EngineError, match="ended"):
            await embedding


@pytest.mark.parametrize("already", [False, True])
async def test_a_process_that_ended_is_an_error(tiny_checkpoint: Path, already: bool) -> None:
    before = embedding_processes()
    async with embedder(tiny_checkpoint) as background:
        (child,) = embedding_processes() - before
        assert child.nice() == psutil.Process().nice() + NICENESS
        child.kill()
        if already:
            await asyncio.to_thread(wait_until_ended, child)
        with pytest.raises(EngineError, match="ended"):
            await background.embed([encoded(picture(1))])


def test_it_ends_when_its_parent_is_killed(tiny_checkpoint: Path) -> None:
    program = f"""
import asyncio, os
from pathlib import Path
from app.embedding.background import BackgroundEmbedder
from model.decoding import PictureLimits

async def main():
    async with BackgroundEmbedder(Path({str(tiny_checkpoint)!r}), "auto", 1, PictureLimits()):
        print("running", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"running\n"
        (child,) = embedding_processes(parent.pid)
        os.kill(parent.pid, signal.SIGKILL)
    wait_until_ended(child)


def wait_until_ended(process: psutil.Process) -> None:
    """Wait without reaping: its parent may reap it at any moment."""

    def ended() -> bool:
        try:
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    until(ended, 60)
