"""Converted public checkpoints give their source's features; every tensor is used or listed as dropped."""

from collections.abc import Callable
from copy import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet50
from typer.testing import CliRunner

from model.__main__ import commands
from model.architecture import MGNConfig
from model.checkpoint import load_checkpoint, save_checkpoint
from model.conversion.convert import Conversion, check_parity, convert
from model.conversion.plain_backbones import read_backbone
from model.errors import CheckpointError
from model.initialisation import initial_backbone
from model.mgn import MGN, load_embedder
from model.osnet import OSNet
from model.recipe import Initialisation
from tests.model.source_models import FastReid, PaperStyle, pooling_windows, randomise

SOURCES: dict[str, Callable[[], nn.Module]] = {
    "seathiefwang/MGN-pytorch": lambda: PaperStyle("backone", False, False, nn.AvgPool2d),
    "GNAYUOHZ/ReID-MGN": lambda: PaperStyle("backbone", True, False, nn.MaxPool2d),
    "levyfan/reid-mgn": lambda: PaperStyle("backbone", False, True, nn.MaxPool2d),
    "JDAI-CV/fast-reid 0.1.1": lambda: FastReid(old=True, ibn=True),
    "JDAI-CV/fast-reid 1.0": lambda: FastReid(old=False, ibn=False),
}


Sources = Callable[[str], nn.Module]


@pytest.fixture(scope="module")
def sources() -> Sources:
    """The network of a layout, which tests do not change; drawing its 70 million weights takes seconds."""
    return cache(lambda layout: randomise(SOURCES[layout]()))


def images() -> torch.Tensor:
    return torch.randn(1, 3, 384, 128, generator=torch.Generator().manual_seed(1))


def saved(folder: Path, state: dict[str, torch.Tensor], wrapper: str | None = None) -> Path:
    path = folder / "theirs.pt"
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    return path


@pytest.mark.parametrize(
    "layout",
    [
        "seathiefwang/MGN-pytorch",
        "JDAI-CV/fast-reid 1.0",
        *(pytest.param(layout, marks=pytest.mark.slow) for layout in list(SOURCES)[1:4]),
    ],
)
def test_the_converted_network_gives_the_same_2048_numbers(tmp_path: Path, sources: Sources, layout: str) -> None:
    source = sources(layout)
    wrapper = "model" if "fast-reid" in layout else None
    conversion = convert(saved(tmp_path, source.state_dict(), wrapper), "test")
    assert conversion.layout == layout
    saved_checkpoint = save_checkpoint(tmp_path / "ours.safetensors", *conversion.checkpoint)
    network = load_embedder(load_checkpoint(tmp_path / "ours.safetensors")).mgn
    with torch.inference_mode():
        source_features, converted_features = source(images()), network(images()).parts
    assert (converted_features - source_features).abs().max() < 1e-5 * source_features.abs().max()
    assert saved_checkpoint.metadata.recipe["converted_from"] == layout
    source_names = set(source.state_dict())
    assert conversion.used + sum(conversion.dropped.values()) == len(source_names)
    assert saved_checkpoint.metadata.training_data.identities == (0 if layout.endswith("0.1.1") else 5)


def test_the_prefix_of_data_parallel_is_removed(tmp_path: Path, sources: Sources) -> None:
    state = {f"module.{name}": value for name, value in sources("seathiefwang/MGN-pytorch").state_dict().items()}
    assert convert(saved(tmp_path, state, "state_dict"), "test").layout == "seathiefwang/MGN-pytorch"


@pytest.mark.slow
def test_a_pooling_that_a_file_does_not_determine_can_be_given(tmp_path: Path, sources: Sources) -> None:
    source = copy(sources("seathiefwang/MGN-pytorch"))
    source.windows = pooling_windows(nn.MaxPool2d)
    theirs = saved(tmp_path, source.state_dict())
    checkpoint = convert(theirs, "test", pooling="max").checkpoint
    with torch.inference_mode():
        features = load_embedder(checkpoint).mgn(images()).parts
        assert (features - source(images())).abs().max() < 1e-4
    (assumed,) = convert(theirs, "test").assumed
    assert assumed.startswith("pooling: average, that code's default")
    with pytest.raises(CheckpointError, match="no exponents of GeM"):
        convert(theirs, "test", pooling="gem")


def test_mean_and_std_inside_the_file_become_metadata(tmp_path: Path, sources: Sources) -> None:
    state = sources("JDAI-CV/fast-reid 1.0").state_dict()
    state["pixel_mean"] = torch.full_like(state["pixel_mean"], 102)
    form = convert(saved(tmp_path, state, "model"), "test").checkpoint.metadata.input
    assert form.mean == pytest.approx((0.4, 0.4, 0.4))
    assert form.std == pytest.approx((0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("reduction_4.0.weight"), r"lacks the tensors of reductions\.4\.0\.weight"),
        (lambda state: state.update({"extra.weight": torch.zeros(1)}), r"does not have: extra\.weight"),
        (lambda state: state.update({"p1.0.0.conv9.weight": torch.zeros(1)}), r"branches\.0\.0\.0\.conv9\.weight"),
        (
            lambda state: state.update({"reduction_0.0.weight": torch.zeros(128, 2048, 1, 1)}),
            r"reductions\.0\.0\.weight has shape \(128, 2048, 1, 1\), not \(256, 2048, 1, 1\)",
        ),
    ],
    ids=["missing", "extra", "left over", "shape"],
)
def test_missing_unknown_and_misshapen_tensors_are_errors(
    tmp_path: Path, sources: Sources, change: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    state = sources("seathiefwang/MGN-pytorch").state_dict()
    change(state)
    torch.save(state, tmp_path / "theirs.pt")
    with pytest.raises(CheckpointError, match=words):
        convert(tmp_path / "theirs.pt", "test")


def write_truncated(path: Path) -> None:
    torch.save({"a.weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_truncated, "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_text("hello"), "is damaged"),
        (lambda path: torch.save(resnet50(weights=None).state_dict(), path), "no MGN in a known layout"),
        (lambda path: torch.save([1, 2], path), "holds no state dict"),
        (lambda path: torch.save(Path("x"), path), "could run any code"),
        (lambda path: torch.save(Path("x"), path, _use_new_zipfile_serialization=False), "could run any code"),
        (lambda path: None, "there is no file"),
    ],
    ids=["truncated", "empty", "text", "another network", "no state", "objects", "old objects", "missing"],
)
def test_a_file_without_a_state_dict_is_reported_in_one_sentence(
    tmp_path: Path, write: Callable[[Path], object], words: str
) -> None:
    write(tmp_path / "theirs.pt")
    with pytest.raises(CheckpointError, match=words) as error:
        convert(tmp_path / "theirs.pt", "test")
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, sources: Sources) -> tuple[Path, Conversion]:
    folder = tmp_path_factory.mktemp("converted")
    return folder, convert(saved(folder, sources("levyfan/reid-mgn").state_dict()), "test")


def test_the_command_says_what_was_used_and_dropped(converted: tuple[Path, Conversion], tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    line = ["convert", str(converted[0] / "theirs.pt"), "--out", str(out), "--trained-on", "Duke", "--terms", "none"]
    result = CliRunner().invoke(commands, line)
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "of levyfan/reid-mgn: " in words
    assert "16 dropped, each classifies the training identities" in words
    written = load_checkpoint(out).metadata
    assert (written.training_data.name, written.name) == ("Duke", "theirs")


def test_info_tells_which_layout_a_file_has_and_how_to_convert_it(converted: tuple[Path, Conversion]) -> None:
    result = CliRunner().invoke(commands, ["info", str(converted[0] / "theirs.pt")])
    words = " ".join(result.output.split())
    assert "is an MGN of levyfan/reid-mgn" in words
    assert "python -m model convert" in words


def test_parity_with_features_of_the_source(
    converted: tuple[Path, Conversion], sources: Sources, tmp_path: Path
) -> None:
    checkpoint = converted[1].checkpoint
    source = sources("levyfan/reid-mgn")
    crops = np.random.default_rng(0).integers(0, 256, (2, 384, 128, 3), dtype=np.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        pictures = ((torch.from_numpy(crops) / 255 - mean) / std).permute(0, 3, 1, 2)
        features = source(pictures).flatten(1).numpy()
    np.savez(tmp_path / "right.npz", crops=crops, features=features)
    parity = check_parity(checkpoint, tmp_path / "right.npz")
    assert parity.lowest_cosine > 0.999999
    assert parity.largest_difference < 1e-5
    np.savez(tmp_path / "wrong.npz", crops=crops, features=features[:, ::-1])
    with pytest.raises(CheckpointError, match="differs from its source: lowest cosine"):
        check_parity(checkpoint, tmp_path / "wrong.npz")
    np.savez(tmp_path / "small.npz", crops=crops[:, :64], features=features)
    with pytest.raises(CheckpointError, match=r"expected are uint8 \(N, 384, 128, 3\)"):
        check_parity(checkpoint, tmp_path / "small.npz")
    np.savez(tmp_path / "none.npz", crops=crops[:0], features=features[:0])
    with pytest.raises(CheckpointError, match="holds no crops"):
        check_parity(checkpoint, tmp_path / "none.npz")
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "right.npz").read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="no NPZ file"):
        check_parity(checkpoint, tmp_path / "damaged.npz")


def test_a_backbone_is_read_from_a_plain_network(tmp_path: Path) -> None:
    net = randomise(resnet50(weights=None))
    state = {f"module.{name}": value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    torch.save({"state_dict": state | {"module.classifier.weight": torch.zeros(5, 2048)}}, tmp_path / "r50.pth")
    trunk = read_backbone(tmp_path / "r50.pth", "resnet50", "padded").trunk.eval()
    with torch.inference_mode():
        picture = torch.randn(1, 3, 64, 32)
        stages = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3[0])
        assert torch.equal(trunk(picture), stages(picture))
    with pytest.raises(CheckpointError, match="is no osnet_x1_0: it lacks"):
        read_backbone(tmp_path / "r50.pth", "osnet_x1_0", "padded")
    with pytest.raises(CheckpointError, match="no common layout"):
        read_backbone(tmp_path / "r50.pth", "mobilenet_v2", "padded")


def test_osnet_weights_initialise_a_backbone(tmp_path: Path) -> None:
    osnet = randomise(OSNet())
    torch.save({**osnet.state_dict(), "fc.0.weight": torch.zeros(512, 512)}, tmp_path / "osnet.pth")
    how = Initialisation(weights=f"file:{tmp_path / 'osnet.pth'}")
    backbone = initial_backbone(MGNConfig(backbone="osnet_x1_0"), how)
    picture = torch.randn(1, 3, 64, 32)
    with torch.inference_mode():
        shared = backbone.trunk.eval()(picture)
        assert torch.equal(backbone.new_tail(False).eval()(shared), osnet(picture))
        assert backbone.new_tail(True).eval()(shared).shape[2:] == (2, 1)


def test_osnet_has_as_many_parameters_as_its_authors_count() -> None:
    """2,193,616, with the layer fc and the four uses of each shared gate counted."""
    osnet = OSNet()
    gates = sum(p.numel() for name, p in osnet.named_parameters() if ".gate." in name)
    fc = 512 * 512 + 512 + 2 * 512
    assert sum(p.numel() for p in osnet.parameters()) + 3 * gates + fc == 2_193_616


def test_a_paper_network_is_the_hand_written_one(sources: Sources) -> None:
    """The paper's architecture gives the same features as plain torch."""
    from model.architecture import MGNConfig
    from model.backbones import build_backbone

    source = sources("levyfan/reid-mgn")
    ours = MGN(build_backbone(MGNConfig()), MGNConfig()).eval()
    ours_of = {"backbone.": "trunk.", "p1.": "branches.0.", "p2.": "branches.1.", "p3.": "branches.2."}
    ours_of |= {f"reduction_{part}.": f"reductions.{part}." for part in range(8)}
    theirs = {
        name.replace(prefix, own, 1): value
        for name, value in source.state_dict().items()
        for prefix, own in ours_of.items()
        if name.startswith(prefix)
    }
    ours.load_state_dict(theirs)
    with torch.inference_mode():
        assert (ours(images()).parts - source(images())).abs().max() < 1e-5
