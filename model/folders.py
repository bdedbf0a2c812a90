"""Which files of a folder are pictures: at any depth, without hidden and system folders, linked folders once."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from model.errors import counted, shortened

_SYSTEM_FOLDERS = frozenset(
    {
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "__macosx",
        "lost+found",
        "recycler",
        "system volume information",
    }
)
"""Folders that network storage, Windows and macOS put among a user's files; in lower case."""

_KINDS_SHOWN = 5


@dataclass(frozen=True)
class Pictures:
    """The pictures of a folder at any depth, sorted by path, and what is left out."""

    paths: tuple[Path, ...]
    left_out: "LeftOut"


@dataclass
class LeftOut:
    """Files and folders that a reader leaves out, by reason."""

    no_pictures: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)

    def __iadd__(self, other: "LeftOut") -> "LeftOut":
        for name, paths in vars(self).items():
            paths += getattr(other, name)
        return self

    def notes(self) -> Iterator[str]:
        """A sentence for each reason."""
        if self.no_pictures:
            kinds = Counter(path.suffix.lower() or path.name for path in self.no_pictures)
            shown = ", ".join(kind for kind, _ in kinds.most_common(_KINDS_SHOWN))
            yield f"left out: {counted(len(self.no_pictures), 'file')}, no pictures ({shown})"
        for paths, noun, reason in (
            (self.hidden, "file", "hidden"),
            (self.folders, "folder", "hidden or of the system"),
            (self.links, "link", "to a folder that is read elsewhere"),
            (self.broken, "name", "a broken link or a device"),
        ):
            if paths:
                names = shortened(list(dict.fromkeys(path.name for path in paths)))
                yield f"left out: {counted(len(paths), noun)}, {reason} ({names})"


class Walk:
    """Walks folders; a folder that several links lead to is read once."""

    def __init__(self, root: Path, suffixes: frozenset[str]) -> None:
        """suffixes: of pictures, in lower case. Raises OSError."""
        self._root = root.resolve()
        self._suffixes = suffixes
        self._read = {_identity(root)}

    def entries(self, folder: Path) -> tuple[list[Path], list[Path], LeftOut]:
        """The pictures and the folders directly in a folder, each sorted by name. Raises OSError."""
        pictures: list[Path] = []
        folders: list[Path] = []
        left_out = LeftOut()
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                self._choose_folder(path, folders, left_out)
            elif not path.is_file():
                left_out.broken.append(path)
            elif path.name.startswith("."):
                left_out.hidden.append(path)
            elif path.suffix.lower() not in self._suffixes:
                left_out.no_pictures.append(path)
            else:
                pictures.append(path)
        return pictures, folders, left_out

    def pictures(self, folder: Path) -> Pictures:
        """The pictures in a folder at any depth. Raises OSError."""
        pictures, folders, left_out = self.entries(folder)
        for inner in folders:
            below = self.pictures(inner)
            pictures += below.paths
            left_out += below.left_out
        return Pictures(tuple(sorted(pictures)), left_out)

    def _choose_folder(self, path: Path, folders: list[Path], left_out: LeftOut) -> None:
        if _is_hidden(path.name):
            left_out.folders.append(path)
        elif _identity(path) in self._read or (path.is_symlink() and self._will_be_read(path.resolve())):
            left_out.links.append(path)
        else:
            self._read.add(_identity(path))
            folders.append(path)

    def _will_be_read(self, target: Path) -> bool:
        """Whether the walk comes to a link's target itself; the folders around the root contain it, too."""
        if target == self._root or target in self._root.parents:
            return True
        return self._root in target.parents and not any(map(_is_hidden, target.relative_to(self._root).parts))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
