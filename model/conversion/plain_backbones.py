"""Initial weights of a backbone from files of plain re-ID networks, such as torchreid's ResNet-50 and OSNet."""

from pathlib import Path

from torchvision.models import resnet50

from model.architecture import BackboneName, Stem
from model.backbones import Backbone, add_instance_norms, cut_osnet, cut_resnet50
from model.conversion.files import State, read_state
from model.errors import CheckpointError
from model.osnet import OSNet

_HEADS = ("fc.", "classifier.", "num_batches_tracked")


def backbone_from(path: Path, name: BackboneName, stem: Stem) -> Backbone:
    """The backbone with a file's weights; the file's heads and classifiers are ignored.

    Raises CheckpointError if the file is damaged or of another network.
    """
    state = {key: value for key, value in read_state(path).items() if not key.startswith(_HEADS[:2])}
    if name == "osnet_x1_0":
        osnet = OSNet()
        _load(osnet.state_dict(), state, path, name)
        osnet.load_state_dict(state, strict=False)
        return cut_osnet(osnet)
    if name not in ("resnet50", "resnet50_ibn"):
        raise CheckpointError(f"weights of {name} cannot be taken from {path}: there is no common layout")
    net = resnet50(weights=None)
    if name == "resnet50_ibn":
        add_instance_norms(net)
    _load({key: value for key, value in net.state_dict().items() if not key.startswith("fc.")}, state, path, name)
    net.load_state_dict(state, strict=False)
    return cut_resnet50(net, name, stem)


def _load(wanted: State, state: State, path: Path, name: str) -> None:
    """Check names and shapes; batch norm counters may be missing, as in older files."""
    missing = [key for key in wanted if key not in state and not key.endswith(_HEADS[2])]
    left = [key for key in state if key not in wanted]
    other = [key for key, value in wanted.items() if key in state and state[key].shape != value.shape]
    for what, keys in (("lacks", missing), ("has besides", left), ("has in another shape", other)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"{path} is no {name}: it {what} {', '.join(keys[:3])}{more}")
