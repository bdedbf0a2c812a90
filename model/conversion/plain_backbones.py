"""Reading backbones from files of plain re-ID networks, such as torchreid's ResNet-50 and OSNet."""

from pathlib import Path

from torchvision.models import resnet50

from model.architecture import BackboneName, Stem
from model.backbones import Backbone, add_instance_norms, cut_osnet, cut_resnet50
from model.conversion.files import State, read_state
from model.errors import CheckpointError, shortened
from model.osnet import OSNet

_HEADS = ("fc.", "classifier.")


def read_backbone(path: Path, name: BackboneName, stem: Stem) -> Backbone:
    """The backbone with a file's weights; the file's heads and classifiers are ignored.

    Raises CheckpointError if the file is damaged or of another network.
    """
    state = {key: value for key, value in read_state(path).items() if not key.startswith(_HEADS)}
    if name == "osnet_x1_0":
        osnet = OSNet()
        _check_state(state, osnet.state_dict(), path, name)
        osnet.load_state_dict(state, strict=False)
        return cut_osnet(osnet)
    if name not in ("resnet50", "resnet50_ibn"):
        raise CheckpointError(f"weights of {name} cannot be taken from {path}: there is no common layout")
    net = resnet50(weights=None)
    if name == "resnet50_ibn":
        add_instance_norms(net)
    expected = {key: value for key, value in net.state_dict().items() if not key.startswith(_HEADS)}
    _check_state(state, expected, path, name)
    net.load_state_dict(state, strict=False)
    return cut_resnet50(net, name, stem)


def _check_state(state: State, expected: State, path: Path, name: str) -> None:
    """Check names and shapes; batch norm counters may be missing, as in older files. Raises CheckpointError."""
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in expected]
    misshapen = [key for key, value in expected.items() if key in state and state[key].shape != value.shape]
    for problem, keys in (("lacks", missing), ("has besides", unknown), ("has in another shape", misshapen)):
        if keys:
            raise CheckpointError(f"{path} is no {name}: it {problem} {shortened(keys)}")
