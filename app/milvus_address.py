"""The address of a Milvus server, parsed from a setting."""

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

_SCHEME = "milvus"
_FORM = "milvus://[USER:PASSWORD@]HOST:PORT[/DATABASE]"


@dataclass(frozen=True)
class MilvusAddress:
    """Host, port, database and credentials of a server. Its text form has no credentials."""

    host: str
    port: int
    database: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL such as `milvus://user:password@milvus:19530/passerby`. Raises ValueError.

        User and password may be percent-encoded. The error message does not repeat the URL, as it may hold a password.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"the URL of an index has the form {_FORM}") from error
        excess = parts.query or parts.fragment or "/" in parts.path.strip("/")
        if parts.scheme != _SCHEME or not host or not port or excess or bool(parts.username) != bool(parts.password):
            raise ValueError(f"the URL of an index has the form {_FORM}")
        return cls(host, port, parts.path.strip("/"), unquote(parts.username or ""), unquote(parts.password or ""))

    @property
    def netloc(self) -> str:
        """`host:port`, with an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{_SCHEME}://{self.netloc}" + (f"/{self.database}" if self.database else "")
