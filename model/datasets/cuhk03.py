"""CUHK03 (Li et al., CVPR 2014) in its new protocol of 767/700 identities (Zhong et al., CVPR 2017), two cameras."""

import re
from pathlib import Path
from typing import Literal

from model.datasets.base import PartSize
from model.datasets.reading import ANY_PICTURE
from model.datasets.three_folders import ThreeFolders

_NAME = re.compile(rf"(?P<pid>[0-9]{{1,9}})_c(?P<camera>[0-9]{{1,9}})_[0-9]+{ANY_PICTURE}", re.IGNORECASE)
_OFFICIAL = {
    "labeled": {"train": PartSize(7_368, 767), "query": PartSize(1_400, 700), "gallery": PartSize(5_328, 700)},
    "detected": {"train": PartSize(7_365, 767), "query": PartSize(1_400, 700), "gallery": PartSize(5_332, 700)},
}


def cuhk03(root: Path, boxes: Literal["labeled", "detected"]) -> ThreeFolders:
    """The folder cuhk03-np with `labeled` and `detected`, or one of these. Raises DataError.

    boxes: drawn by hand, or by a detector. The new protocol is distributed in this layout: pictures already extracted
    from cuhk-03.mat and sorted into parts.
    """
    return ThreeFolders(
        root,
        name=f"CUHK03-NP ({boxes})",
        terms="research use only (Li et al., CVPR 2014)",
        official=_OFFICIAL[boxes],
        pattern=_NAME,
        example="0003_c1_21.png",
        inner=(boxes, f"cuhk03-np/{boxes}"),
    )
