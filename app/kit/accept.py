"""The media types that a client accepts (RFC 9110, section 12.5.1)."""


def prefers(accept: str, media_type: str, other: str) -> bool:
    """Whether a client with this `Accept` header would rather have a media type than another one.

    >>> prefers("image/jpeg", "image/jpeg", "application/json")
    True
    >>> prefers("*/*", "image/jpeg", "application/json"), prefers("", "image/jpeg", "application/json")
    (False, False)
    """
    return _quality(accept, media_type) > _quality(accept, other)


def _quality(accept: str, media_type: str) -> float:
    """The weight, 0 to 1, of the most specific range that has the media type; 0 where none has it."""
    qualities = dict(map(_range, accept.split(",")))
    for name in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        if name in qualities:
            return qualities[name]
    return 0.0


def _range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    weight = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
    try:
        return name, float(weight)
    except ValueError:
        return name, 0.0
