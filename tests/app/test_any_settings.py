"""Any value of any setting is accepted, or refused by name before anything starts."""

import os
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.database import database_url_of
from app.settings import PREFIX, Settings

FIELDS = tuple(Settings.model_fields)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40) | st.sampled_from(
    [
        "0",
        "-1",
        "1e400",
        "nan",
        "0x10",
        "²",
        "true",
        "null",
        "[]",
        "{}",
        "http://[::1",
        "milvus://u:p@h:x/d",
        "%zz",
        "::",
    ]
)


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4))
def test_any_environment_gives_settings_or_names_what_is_wrong(values: dict[str, str]) -> None:
    environment = {f"{PREFIX}{name.upper()}": value for name, value in values.items()}
    with patch.dict(os.environ, environment, clear=True):
        try:
            settings = Settings()
        except ValidationError as refused:
            faults = refused.errors()
        else:
            faults = []
            assert settings.resolved_images_url
            assert settings.resolved_checkpoint
            if settings.database_url is None:
                assert database_url_of(settings).drivername == "sqlite"
    for fault in faults:
        assert fault["msg"]
        assert not fault["loc"] or str(fault["loc"][0]) in values
