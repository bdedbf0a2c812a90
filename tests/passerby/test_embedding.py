"""The library embeds as the service does, in all forms in which a picture can be given."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

import passerby
from model.checkpoint import BUNDLED
from passerby.embedding import BATCH_SIZE
from tests.app.factories import encoded, exif, laid, picture, random_pixels

CASES = sorted((Path(__file__).parents[1] / "cases" / "train_serve").iterdir())


@pytest.fixture(scope="module")
def bundled() -> passerby.Model:
    return passerby.load_model()


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> passerby.Model:
    return passerby.load_model(tiny_checkpoint)


def test_the_cases_are_there() -> None:
    assert {path.name for path in CASES} == {"alpha.png", "exif_orientation_6.jpg", "grey_16_bit.png", "plain.jpg"}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
@pytest.mark.parametrize("form", [Path, str, Path.read_bytes, Image.open], ids=["path", "str", "bytes", "pillow"])
def test_an_embedding_is_the_one_that_the_service_answers(
    bundled: passerby.Model, bundled_service: str, path: Path, form: Callable[[Path], Any]
) -> None:
    with passerby.Client(bundled_service) as client:
        answer = client.embed(path, store=False, include=["embedding"])
    assert answer.model_id == bundled.model_id
    embedding = answer.items[0].embedding
    assert embedding is not None
    assert embedding.vector is not None
    assert embedding.parts is not None
    own = bundled(form(path))
    assert float(own[0] @ np.array(embedding.vector)) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(own.parts[0], list(embedding.parts.values()), atol=1e-5)


def test_a_picture_in_memory_is_posted_without_loss(bundled: passerby.Model, bundled_service: str) -> None:
    turned = Image.open(BytesIO(encoded(laid(picture(3), 6), exif=exif(6))))
    grey = (random_pixels(4)[:, :, 0].astype(np.uint16) << 8) + 7
    with passerby.Client(bundled_service) as client:
        answer = client.embed([turned, random_pixels(5), grey], store=False, include=["vector"])
    own = bundled([turned, random_pixels(5), grey])
    for row, item in zip(own, answer.items, strict=True):
        assert item.embedding is not None
        assert float(row @ np.array(item.embedding.vector)) == pytest.approx(1.0, abs=1e-5)


def test_torch_gives_the_same_embeddings(bundled: passerby.Model) -> None:
    pytest.importorskip("torch")
    torch_form = passerby.load_model(BUNDLED.with_suffix(".safetensors"))
    assert torch_form.model_id == bundled.model_id
    assert float((torch_form(CASES) * bundled(CASES)).sum(axis=1).min()) > 0.999


def test_embeddings_have_norm_1_and_eight_parts(tiny: passerby.Model) -> None:
    embeddings = tiny([picture(seed) for seed in range(3)])
    assert (embeddings.shape, embeddings.dtype) == ((3, 2048), np.float32)
    assert embeddings.parts.shape == (3, 8, 256)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(embeddings.parts.reshape(3, -1), embeddings)


def test_a_slice_has_parts_and_a_result_is_a_plain_array(tiny: passerby.Model) -> None:
    embeddings = tiny([picture(seed) for seed in range(3)])
    assert embeddings[1:].parts.shape == (2, 8, 256)
    assert embeddings[0].parts.shape == (8, 256)
    similarities = embeddings @ embeddings.T
    assert type(similarities) is np.ndarray
    assert type(embeddings.mean(axis=0)) is np.ndarray
    assert isinstance(embeddings[0] @ embeddings[1], np.float32)
    assert type(embeddings.parts) is np.ndarray


def test_one_picture_is_a_row_and_none_are_no_rows(tiny: passerby.Model) -> None:
    assert tiny(picture(1)).shape == (1, 2048)
    assert tiny(random_pixels(1)).shape == (1, 2048)
    assert tiny([]).shape == (0, 2048)
    assert tiny([]).parts.shape == (0, 8, 256)


def test_arrays_are_rgb_rgba_or_grey(tiny: passerby.Model) -> None:
    colours = random_pixels(1)
    opaque = np.dstack([colours, np.full(colours.shape[:2], 255, dtype=np.uint8)])
    np.testing.assert_array_equal(tiny(colours), tiny(Image.fromarray(colours)))
    np.testing.assert_array_equal(tiny(opaque), tiny(colours))
    grey = colours[:, :, 0]
    as_rgb = tiny(np.dstack([grey] * 3))
    for form in (grey, grey[:, :, np.newaxis], grey.astype(np.uint16) << 8, np.asfortranarray(grey)):
        np.testing.assert_array_equal(tiny(form), as_rgb)


def test_many_pictures_may_be_an_array_or_come_one_by_one(tiny: passerby.Model) -> None:
    count = 2 * BATCH_SIZE + 3
    arrays = np.stack([random_pixels(seed) for seed in range(count)])
    taken = []

    def one_by_one() -> Iterator[np.ndarray[Any, Any]]:
        for array in arrays:
            taken.append(1)
            yield array

    embeddings = tiny(one_by_one())
    assert len(taken) == count
    np.testing.assert_allclose(embeddings, tiny(arrays), atol=1e-6)
    np.testing.assert_allclose(embeddings[-1:], tiny(arrays[-1]), atol=1e-6)


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        (b"", "empty", "no bytes"),
        (b"no picture", "not-a-picture", "is no picture"),
        (encoded(picture(1))[:500], "damaged", "damaged or cut off"),
        (encoded(picture(1), "GIF"), "unsupported-format", "GIF files are not read"),
        (picture(1, 8, 8), "too-small", "8 x 8 pixels"),
        (Path("gone.jpg"), "unreadable", r"pictures\[1\] \(gone.jpg\): cannot be read: No such file"),
        ("gone\0.jpg", "unreadable", "null"),
        (Path(), "unreadable", "Is a directory"),
        (np.zeros((64, 32, 3), dtype=np.float32), "not-a-picture", r"\(64, 32, 3\) of float32"),
        (np.zeros((3, 64, 32), dtype=np.uint8), "not-a-picture", r"\(3, 64, 32\) of uint8"),
        (np.zeros((0, 32, 3), dtype=np.uint8), "not-a-picture", r"\(0, 32, 3\)"),
        (Image.new("F", (32, 64)), "unsupported-format", "mode F"),
        (None, "not-a-picture", "NoneType"),
        (7, "not-a-picture", "int is no picture"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named_by_its_position(
    tiny: passerby.Model, bad: Any, kind: str, words: str
) -> None:
    with pytest.raises(passerby.PictureError, match=words) as raised:
        tiny([picture(1), bad, picture(2)])
    assert (raised.value.position, raised.value.kind) == (1, kind)
    assert str(raised.value).startswith("pictures[1]")
    assert isinstance(raised.value, passerby.PasserbyError)


def test_what_is_no_picture_and_no_list_is_an_error(tiny: passerby.Model) -> None:
    with pytest.raises(passerby.PictureError, match="NoneType is no picture"):
        tiny(cast(Any, None))


@pytest.mark.parametrize("name", ["gone.onnx", "gone.safetensors", "damaged.onnx", "damaged.safetensors", "damaged.pt"])
def test_a_checkpoint_that_cannot_be_used_is_one_error(tmp_path: Path, name: str) -> None:
    if name.startswith("damaged"):
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(passerby.CheckpointError, match=name):
        passerby.load_model(tmp_path / name)


_WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is not installed")

sys.meta_path.insert(0, Blocked())
import passerby
{work}
"""


def run_without(blocked: set[str], work: str) -> subprocess.CompletedProcess[str]:
    program = _WITHOUT.format(blocked=blocked, work=work)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_an_onnx_checkpoint_needs_no_torch_and_nothing_of_the_service(tiny_checkpoint: Path) -> None:
    heavy = {"torch", "torchvision", "fastapi", "starlette", "uvicorn", "sqlalchemy", "faiss", "scipy", "onnx"}
    work = f"print(passerby.load_model({str(tiny_checkpoint)!r})({str(CASES[-1])!r}).shape)"
    ran = run_without(heavy, work)
    assert ran.stdout == "(1, 2048)\n", ran.stderr


def test_a_missing_runtime_is_named(tiny_checkpoint: Path) -> None:
    ran = run_without({"onnxruntime"}, f"passerby.load_model({str(tiny_checkpoint)!r})")
    assert "passerby.errors.CheckpointError" in ran.stderr
    assert "pip install 'passerby[cpu]'" in ran.stderr
