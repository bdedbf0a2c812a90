"""What a client prefers, by its Accept header."""

import pytest

from app.kit.accept import prefers


@pytest.mark.parametrize(
    ("accept", "picture"),
    [
        ("image/jpeg", True),
        ("IMAGE/JPEG;q=0.5", True),
        ("image/*", True),
        ("image/jpeg, application/json;q=0.9", True),
        ("image/jpeg, */*;q=0.8", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("image/jpeg, application/json", False),
        ("image/jpeg;q=0, */*", False),
        ("image/jpeg;q=wrong, application/json", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", False),
        (";;,,/;q=", False),
    ],
)
def test_a_picture_is_preferred_only_where_it_is_named_above_json(accept: str, picture: bool) -> None:
    assert prefers(accept, "image/jpeg", "application/json") is picture
