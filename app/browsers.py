"""What other people's web pages may do with the service from an operator's browser: nothing."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import problem_of_status
from app.handlers import respond
from app.kit.names import shown

SECURITY_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every answer; a page with scripts has a content security policy of its own."""

_LOCAL_NAMES = ("localhost", "local", "internal")
"""Top-level names that nobody can register."""


class BrowserGuard:
    """ASGI middleware that refuses requests which a browser makes for a page of another site, and of a foreign name.

    A page of another site can send requests to a service on the operator's machine; browsers say so in `Origin` and
    `Sec-Fetch-Site`. By DNS rebinding, a site's own name leads to that service; then the name is in `Host`.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        """names: what the service is called, other than addresses and names that nobody can register."""
        self._app = app
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
            return
        await respond(problem_of_status(*refusal))(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        """Status and message for a request that is refused."""
        hosts = headers.getlist("host")
        foreign = next((host for host in hosts if not self._is_ours(_host_name(host))), None)
        if foreign is not None:
            return 421, f"this service is not called {shown(foreign)}; if it is, name it in PASSERBY_HOSTS"
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site == "same-origin":  # also where a proxy has changed Host
            return None
        opened = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
        # A link to here may be opened. A proxy may have changed the scheme.
        own = origin is None or origin.lower().partition("://")[2] in [host.lower() for host in hosts]
        if own and (site in (None, "none") or opened):
            return None
        return 403, (
            "a page of another site may not send requests to this service; if the page is this service's, its proxy "
            "must pass on the header Host"
        )

    def _is_ours(self, name: str) -> bool:
        last = name.rpartition(".")[2]
        return bool(name) and (name in self._names or last == name or last in _LOCAL_NAMES or _is_address(name))


def _host_name(host: str) -> str:
    """The name or address in a Host header, in lower case; empty for what is no host."""
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+?)\.?)(?::[0-9]*)?", host.lower())
    return "" if match is None else match[1] or match[2]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
