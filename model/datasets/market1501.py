"""Market-1501 (Zheng et al., ICCV 2015): six cameras in front of a supermarket, 1,501 identities."""

import re
from pathlib import Path

from model.datasets.base import PartSize
from model.datasets.reading import ANY_PICTURE
from model.datasets.three_folders import ThreeFolders

_NAME = re.compile(
    rf"(?P<pid>-1|[0-9]{{1,9}})_c(?P<camera>[0-9]{{1,9}})s(?P<sequence>[0-9]{{1,4}})_(?P<frame>[0-9]{{1,9}})_[0-9]+(?:{ANY_PICTURE}){{1,2}}",
    re.IGNORECASE,
)
_OFFICIAL = {"train": PartSize(12_936, 751), "query": PartSize(3_368, 750), "gallery": PartSize(15_913, 750)}


def market1501(root: Path) -> ThreeFolders:
    """The folder Market-1501-v15.09.15, or its parent. Raises DataError."""
    return ThreeFolders(
        root,
        name="Market-1501",
        terms="research use only, no redistribution of the pictures (Zheng et al., ICCV 2015)",
        official=_OFFICIAL,
        pattern=_NAME,
        example="0002_c1s1_000451_03.jpg",
        inner=("Market-1501-v15.09.15", "Market-1501", "market1501"),
    )


def market_name(file_name: str) -> re.Match[str] | None:
    """Match a name such as `0002_c1s1_000451_03.jpg`; groups: pid (-1 is junk), camera, sequence, frame."""
    return _NAME.fullmatch(file_name)
