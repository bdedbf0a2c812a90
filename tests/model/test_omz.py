"""Converted networks of Open Model Zoo give their source's features; unknown graphs are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from model.__main__ import commands
from model.conversion.networks import check_network, convert_network
from model.conversion.omz import convert_omz
from model.errors import CheckpointError
from model.plain_network import is_plain_network, load_network, save_network
from tests.model.ir_factories import TINY, IRWriter, random_network, write_ir

SHARED = Path(__file__).parents[3] / "shared" / "data" / "omz"


def test_a_network_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    network = random_network()
    read = convert_omz(write_ir(tmp_path / "net.xml", network))
    assert read.channels == TINY
    assert read.mean == pytest.approx((120 / 255,) * 3, abs=1e-6)
    assert read.std == pytest.approx((64 / 255,) * 3, abs=1e-6)
    for name, tensor in network.state_dict().items():
        assert torch.equal(read.weights[name], tensor), name


def test_a_converted_network_embeds_as_its_source(tmp_path: Path) -> None:
    network = random_network()
    converted = convert_network(write_ir(tmp_path / "net.xml", network), "tiny")
    saved = save_network(tmp_path / "net.safetensors", converted.weights, converted.metadata)
    assert is_plain_network(tmp_path / "net.safetensors")
    loaded = load_network(tmp_path / "net.safetensors")
    assert loaded.metadata == saved
    crops = np.random.default_rng(1).integers(0, 256, (3, 256, 128, 3), dtype=np.uint8)
    images = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() - 120) / 64
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(network(images)).numpy()
    assert np.abs(loaded.embed(crops) - expected).max() < 1e-4


@pytest.mark.shared
@pytest.mark.parametrize("number", ["0277", "0287"])
def test_the_published_networks_give_their_own_numbers(tmp_path: Path, number: str) -> None:
    with np.load(SHARED / "parity.npz") as arrays:
        np.savez(tmp_path / "p.npz", crops=arrays["pictures"], features=arrays[f"features_{number}"])
    converted = convert_network(SHARED / f"person-reidentification-retail-{number}.xml", number)
    assert converted.constants == 342
    assert check_network(converted.weights, converted.metadata, tmp_path / "p.npz").lowest_cosine > 0.99999


def test_another_version_is_refused(tmp_path: Path) -> None:
    writer = IRWriter()
    writer.network({name: tensor.numpy() for name, tensor in random_network().state_dict().items()})
    writer.save(tmp_path / "net.xml", version="10")
    with pytest.raises(CheckpointError, match=r"no OpenVINO IR of version 11: its root is <net version='10'>"):
        convert_omz(tmp_path / "net.xml")


def test_a_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    weights = write_ir(tmp_path / "net.xml", random_network()).with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"net\.bin is too short: constant \S+ ends at byte"):
        convert_omz(tmp_path / "net.xml")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    write_ir(tmp_path / "net.xml", random_network()).with_suffix(".bin").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*net\.bin"):
        convert_omz(tmp_path / "net.xml")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('type="Sigmoid"', 'type="HSwish"', "operation HSwish .*: Sigmoid is expected here"),
        ('strides="2, 2" pads_begin="3, 3"', 'strides="1, 1" pads_begin="3, 3"', "its strides is '1, 1', not '2, 2'"),
        ('eps_mode="INSIDE_SQRT"', 'eps_mode="OUTSIDE_SQRT"', "its eps_mode is 'OUTSIDE_SQRT'"),
        ('element_type="f16"', 'element_type="u4"', "is of type 'u4'"),
        ("<net ", "<!DOCTYPE net><net ", "declares a document type"),
        ("</net>", "", "is no XML"),
        ('from-layer="0"', 'from-layer="9999"', "not found"),
    ],
)
def test_another_graph_is_refused(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = write_ir(tmp_path / "net.xml", random_network())
    content = path.read_text()
    assert before in content
    path.write_text(content.replace(before, after, 1))
    with pytest.raises(CheckpointError, match=message):
        convert_omz(path)


def test_a_constant_that_nothing_uses_is_named(tmp_path: Path) -> None:
    writer = IRWriter()
    writer.network({name: tensor.numpy() for name, tensor in random_network().state_dict().items()})
    unused = writer.numbers(7)
    writer.save(tmp_path / "net.xml")
    with pytest.raises(CheckpointError, match=f"1 constants that no operation uses, for instance Const_{unused}"):
        convert_omz(tmp_path / "net.xml")


def test_streams_that_do_not_share_their_gate_are_refused(tmp_path: Path) -> None:
    writer = IRWriter()
    state = {name: tensor.numpy() for name, tensor in random_network().state_dict().items()}
    writer.network(state)
    shared = state["conv2.0.gate.fc1.weight"].astype("<f2").tobytes()
    second = bytes(writer.weights).index(shared, bytes(writer.weights).index(shared) + 1)
    writer.weights[second] ^= 1
    writer.save(tmp_path / "net.xml")
    with pytest.raises(CheckpointError, match=r"its streams do not share conv2\.0\.gate\.fc1\.weight"):
        convert_omz(tmp_path / "net.xml")


def test_the_command_reports_an_error_in_one_sentence(tmp_path: Path) -> None:
    path = write_ir(tmp_path / "net.xml", random_network())
    out = tmp_path / "net.safetensors"
    done = CliRunner().invoke(commands, ["convert", str(path), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "constants used; channels (16, 64, 128, 192)" in " ".join(done.output.split())
    path.with_suffix(".bin").write_bytes(b"")
    again = CliRunner().invoke(commands, ["convert", str(path), "--out", str(out)])
    assert isinstance(again.exception, CheckpointError)
    assert is_plain_network(out), "what was there stays"


def test_a_damaged_network_is_refused(tmp_path: Path) -> None:
    converted = convert_network(write_ir(tmp_path / "net.xml", random_network()), "tiny")
    path = tmp_path / "net.safetensors"
    save_network(path, converted.weights, converted.metadata)
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="do not match their SHA-256"):
        load_network(path)
