"""Market-1501 (Zheng et al., ICCV 2015): six cameras in front of a supermarket, 1,501 identities."""

import re
from pathlib import Path

from model.datasets.base import PartSize
from model.datasets.three_folders import ThreeFolders

_NAME = re.compile(r"(?P<pid>-1|\d{4})_c(?P<camera>\d)s(?P<sequence>\d)_(?P<frame>\d+)_\d+\.jpg(?:\.jpg)?$")
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
    return _NAME.match(file_name)
