"""MSMT17 (Wei et al., CVPR 2018): fifteen cameras on a campus, 4,101 identities."""

from collections.abc import Mapping
from pathlib import Path

from model.datasets.base import EvaluationSplit, PartName, PartSize, Sample
from model.errors import DataError

_FOLDERS = {"train": ("train", "mask_train_v2"), "test": ("test", "mask_test_v2")}
_OFFICIAL = {"train": PartSize(32_621, 1_041), "query": PartSize(11_659, 3_060), "gallery": PartSize(82_161, 3_060)}
_LAYOUT = (
    "a folder of MSMT17 holds list_train.txt, list_val.txt, list_query.txt, list_gallery.txt and the folders train and "
    "test, or mask_train_v2 and mask_test_v2"
)


class MSMT17:
    """The folder MSMT17_V1 or MSMT17_V2, or its parent; the training part is list_train and list_val."""

    name = "MSMT17"
    terms = "research use only, by agreement with its authors (Wei et al., CVPR 2018)"
    official: Mapping[str, PartSize] = _OFFICIAL

    def __init__(self, root: Path) -> None:
        """Raises DataError."""
        for folder in (root, root / "MSMT17_V1", root / "MSMT17_V2", root / "MSMT17"):
            if (folder / "list_train.txt").is_file() or (folder / "list_query.txt").is_file():
                self._root = folder
                return
        raise DataError(f"{root} {'holds no lists' if root.is_dir() else 'is missing'}: {_LAYOUT}")

    def train(self) -> tuple[Sample, ...]:
        return (*self._read("list_train.txt", "train"), *self._read("list_val.txt", "train"))

    def has_test(self) -> bool:
        lists = all((self._root / f"list_{part}.txt").is_file() for part in ("query", "gallery"))
        return lists and any((self._root / folder).is_dir() for folder in _FOLDERS["test"])

    def test(self) -> EvaluationSplit:
        return EvaluationSplit(self._read("list_query.txt", "test"), self._read("list_gallery.txt", "test"))

    def notes(self, part: PartName) -> tuple[str, ...]:
        return ()

    def _read(self, listing: str, part: str) -> tuple[Sample, ...]:
        """Read lines such as `0000/0000_000_01_0303morning_0015_0.jpg 0`: file (third field: the camera) and person.

        These lists count persons from 0; 1 is added, because pid 0 is a distractor.
        """
        path, folder = self._root / listing, self._folder(part)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}): {_LAYOUT}") from error
        samples = []
        for number, line in enumerate(lines, start=1):
            try:
                name, pid, camera = _parts(line)
            except ValueError:
                raise DataError(
                    f"line {number} of {path} is {line!r}, not like 0000/0000_000_01_0303morning_0015_0.jpg 0"
                ) from None
            samples.append(Sample(folder / name, int(pid) + 1, int(camera)))
        if not samples:
            raise DataError(f"{path} is empty: {_LAYOUT}")
        return tuple(samples)

    def _folder(self, part: str) -> Path:
        for name in _FOLDERS[part]:
            if (self._root / name).is_dir():
                return self._root / name
        raise DataError(f"{self._root} holds neither {' nor '.join(_FOLDERS[part])}: {_LAYOUT}")


def _parts(line: str) -> tuple[str, str, str]:
    """The file, the person and the camera of a line. Raises ValueError."""
    name, pid = line.rsplit(maxsplit=1)
    fields = Path(name).name.split("_")
    if len(fields) < 3 or not (_is_number(pid) and _is_number(fields[2])):
        raise ValueError
    return name, pid, fields[2]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
