"""DukeMTMC-reID (Ristani et al., 2016; Zheng et al., ICCV 2017): eight cameras on a campus, 1,404 identities."""

import re
from pathlib import Path

from model.datasets.base import PartSize
from model.datasets.reading import ANY_PICTURE
from model.datasets.three_folders import ThreeFolders

_NAME = re.compile(rf"(?P<pid>[0-9]{{1,9}})_c(?P<camera>[0-9]{{1,9}})_f[0-9]+(?:{ANY_PICTURE}){{1,2}}", re.IGNORECASE)
_OFFICIAL = {"train": PartSize(16_522, 702), "query": PartSize(2_228, 702), "gallery": PartSize(17_661, 1_110)}


def dukemtmc(root: Path) -> ThreeFolders:
    """The folder DukeMTMC-reID, or its parent. Raises DataError."""
    return ThreeFolders(
        root,
        name="DukeMTMC-reID",
        terms="withdrawn by its authors in 2019; was for research only, no redistribution (Ristani et al., 2016)",
        official=_OFFICIAL,
        pattern=_NAME,
        example="0002_c1_f0044158.jpg",
        inner=("DukeMTMC-reID", "dukemtmc-reid", "DukeMTMC-reID/DukeMTMC-reID"),
    )
