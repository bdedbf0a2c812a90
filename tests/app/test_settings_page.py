"""docs/settings.md is what the settings say."""

from pathlib import Path

from app.settings import Settings
from app.settings_page import TOPICS, page

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m app.settings_page > docs/settings.md"


def test_each_setting_is_in_one_topic_and_described() -> None:
    assert sorted(name for names in TOPICS.values() for name in names) == sorted(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())
