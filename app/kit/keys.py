"""What an API key may be."""

import re


def is_header_value(text: str) -> bool:
    """Whether `text` can be an API key in a header: printable ASCII without blanks."""
    return re.fullmatch(r"[!-~]+", text) is not None
