"""Writes docs/settings.md: python -m app.settings_page > docs/settings.md"""

from collections.abc import Iterator

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.settings import PREFIX, Settings

TOPICS = {
    "Where it listens, and for whom": ("host", "port", "hosts", "root_path", "api_key"),
    "Where it keeps what": ("data_dir", "database_url", "images_url"),
    "Model and engine": ("checkpoint", "engine", "threads", "batch_size", "queue_capacity", "stall_seconds"),
    "Limits of requests": (
        "max_request_bytes",
        "max_checkpoint_bytes",
        "max_files",
        "max_pixels",
        "min_side",
        "max_connections",
        "header_seconds",
        "body_seconds",
    ),
    "Index and change log": (
        "index_url",
        "index_exact_limit",
        "index_recall",
        "index_poll_seconds",
        "snapshot_every",
        "changes_kept",
    ),
    "Deletion": ("erase_seconds", "search_days"),
    "Log": ("log_format", "log_level"),
}
"""The settings by topic; each is in one."""

_OPENING = f"""# Settings

`python -m app.settings_page > docs/settings.md` writes this page from `app/settings.py`.

`passerby serve` takes each setting from the first of these places that has it:

1. its options `--host`, `--port` and `--data-dir`;
2. environment variables, which begin with `{PREFIX}`;
3. the same variables in the file `.env` in the working folder, where those of other programs are ignored;
4. a TOML file, with the names below: `--config FILE`, or `passerby.toml` in the working folder.

An empty variable counts as not set. A misspelt name stops the start, and the message has the right one.
"""


def page() -> str:
    """The page in Markdown."""
    return "\n".join((_OPENING, *(line for topic, names in TOPICS.items() for line in _topic(topic, names))))


def _topic(topic: str, names: tuple[str, ...]) -> Iterator[str]:
    yield f"## {topic}\n"
    yield "| setting | variable | default | unit | what it is |"
    yield "|---|---|---|---|---|"
    for name in names:
        field = Settings.model_fields[name]
        cells = (f"`{name}`", f"`{PREFIX}{name.upper()}`", _default(field), _unit(field), field.description or "")
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
    yield ""


def _default(field: FieldInfo) -> str:
    if field.default in (None, "", PydanticUndefined):
        return ""
    return f"`{field.default}`"


def _unit(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


if __name__ == "__main__":
    print(page(), end="")
