"""Self-contained HTML pages, which work offline."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from model.datasets.base import NO_CAMERA
from model.figures import percent
from model.files import write_atomically
from model.visualize.style import JUNK_GREY, RIGHT, WRONG


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> None:
    """Render a template of `model/visualize/templates` and write it atomically; all values are escaped.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _environment().get_template(template).render(values)
    write_atomically(path, text.encode(errors="backslashreplace"))  # names of files need not be valid Unicode


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("model.visualize"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["colours"] = {"right": RIGHT, "wrong": WRONG, "junk": JUNK_GREY}
    environment.filters["percent"] = percent
    environment.filters["camera"] = camera_label
    return environment


def camera_label(camera: int) -> str:
    """A camera's label on a page."""
    return "camera unknown" if camera == NO_CAMERA else f"camera {camera}"
