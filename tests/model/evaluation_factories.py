"""Factories for tests of evaluation and of pages: embeddings of made-up persons, drawn crops, and an HTML reader."""

import json
import sys
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from model.__main__ import main
from model.architecture import EMBEDDING_DIM, PART_DIM, PARTS
from model.datasets.base import EvaluationSplit, Sample
from model.datasets.synthetic import Synthetic
from model.evaluate import LabelledFeatures
from model.visualize.ranks import Ranking
from tests.model.drawn_people import copy_people

_VOID = {"meta", "img", "input", "br", "link", "hr"}


def embeddings(pids: NDArray[np.int64], noise: float, seed: int = 0) -> NDArray[np.float32]:
    """`(N, 2048)`: embeddings that lie around a random centre for each pid; each part has norm 1 / sqrt(8)."""
    rng = np.random.default_rng(seed)
    centres = {pid: rng.normal(size=EMBEDDING_DIM) for pid in sorted(set(pids.tolist()))}
    parts = np.stack([centres[pid] + noise * rng.normal(size=EMBEDDING_DIM) for pid in pids.tolist()])
    parts = parts.reshape(-1, len(PARTS), PART_DIM)
    parts /= np.linalg.norm(parts, axis=2, keepdims=True) * np.sqrt(len(PARTS))
    return parts.reshape(-1, EMBEDDING_DIM).astype(np.float32)


def labelled(samples: tuple[Sample, ...], noise: float, seed: int = 0) -> LabelledFeatures:
    """`embeddings` of given crops, with their labels."""
    pids = np.array([sample.pid for sample in samples])
    return LabelledFeatures(embeddings(pids, noise, seed), pids, np.array([sample.camera for sample in samples]))


def ranking_of(query: list[tuple[int, int]], gallery: list[tuple[int, int]], noise: float = 1.0) -> Ranking:
    """A ranking of crops given as (pid, camera), without files."""
    split = EvaluationSplit(_samples("q", query), _samples("g", gallery))
    embedded = labelled((*split.query, *split.gallery), noise)
    sides = [
        LabelledFeatures(embedded.features[part], embedded.pids[part], embedded.cameras[part])
        for part in (slice(0, len(query)), slice(len(query), None))
    ]
    return Ranking(split, sides[0], sides[1])


def _samples(side: str, labels: list[tuple[int, int]]) -> tuple[Sample, ...]:
    return tuple(Sample(Path(f"{side}{n}.jpg"), pid, camera) for n, (pid, camera) in enumerate(labels))


@cache
def drawn_crops() -> Path:
    """A folder of eight drawn persons, written once per process."""
    return copy_people(Path(mkdtemp(prefix="drawn-")), range(1, 9), max_crops=2)


def drawn_ranking(noise: float = 2.0) -> Ranking:
    """A ranking of `drawn_crops` with some mistakes; the first crop of each track is a query."""
    samples = Synthetic(drawn_crops()).train()
    query = tuple(sample for sample in samples if sample.path.stem.endswith("_01"))
    gallery = tuple(sample for sample in samples if sample not in query)
    embedded = labelled((*query, *gallery), noise)
    sides = [
        LabelledFeatures(embedded.features[part], embedded.pids[part], embedded.cameras[part])
        for part in (slice(0, len(query)), slice(len(query), None))
    ]
    return Ranking(EvaluationSplit(query, gallery), sides[0], sides[1])


@dataclass(eq=False)
class Element:
    """An element of a page, with its attributes and its own text."""

    tag: str
    attributes: dict[str, str]
    parents: tuple["Element", ...]
    text: str = ""

    def has_class(self, name: str) -> bool:
        return name in self.attributes.get("class", "").split()


@dataclass
class Page(HTMLParser):
    """Parses HTML; fails if start and end tags do not match."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, tuple(self.open))
        self.elements.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1].text += data

    def of_class(self, name: str) -> list[Element]:
        """The elements of a class, in order."""
        return [element for element in self.elements if element.has_class(name)]

    def inside(self, outer: Element) -> list[Element]:
        """The elements inside another one."""
        return [element for element in self.elements if outer in element.parents]

    @property
    def text(self) -> str:
        """All visible text."""
        return " ".join(" ".join(e.text for e in self.elements if e.tag not in ("style", "script")).split())


def read_page(path: Path) -> Page:
    """Parse a page; check that all elements are closed and that it fetches nothing."""
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    page.close()
    assert not page.open, [element.tag for element in page.open]
    for element in page.elements:
        for name in ("src", "href", "srcset", "action"):
            value = element.attributes.get(name, "data:")
            assert value.startswith("data:") or (path.parent / value).exists(), f"<{element.tag}> {name}={value[:80]}"
        if element.tag in ("style", "script"):
            assert not {"http:", "https:", "@import", "url("} & set(element.text.split('"')), element.tag
    assert "http://" not in text
    assert "https://" not in text
    return page


@dataclass(frozen=True)
class CommandResult:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str


class RunModel(Protocol):
    """Runs `python -m model` in this process, with these variables in its environment."""

    def __call__(self, *arguments: object, **environment: str) -> CommandResult: ...


def run_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> CommandResult:
    """Run `python -m model` in this process."""
    monkeypatch.setattr(sys, "argv", ["model", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    return CommandResult(code, captured.out, " ".join(captured.err.split()))


def write_log(folder: Path, lines: list[dict[str, object]]) -> Path:
    """A run's log."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder
