"""Answer only requests of the page itself: its own Host, no foreign Origin."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class SameOrigin:
    """ASGI middleware: 403 for a foreign Host or Origin, over HTTP and WebSocket.

    Any website may point its name at 127.0.0.1 (DNS rebinding): the browser then sends that name as Host. And any
    website may send requests to this page from its visitors' browsers: these carry its Origin.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        """Protect `app`, which listens on `host`."""
        self._app = app
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        reason = refusal(Headers(scope=scope), self._host) if scope["type"] in {"http", "websocket"} else None
        app = self._app if reason is None else PlainTextResponse(f"{reason}\n", status_code=403)
        await app(scope, receive, send)


def refusal(headers: Headers, host: str) -> str | None:
    """Return why a page with the option `--host` `host` refuses a request with these headers; None if it may pass."""
    named = headers.getlist("host")
    if len(named) != 1 or not _is_ours(named[0], host):
        shown = ", ".join(map(repr, named)) or "missing"
        return f"the Host header is {shown}: this page answers as localhost and as {host} (option --host)"
    for origin in headers.getlist("origin"):
        if origin not in {f"http://{named[0]}", f"https://{named[0]}"}:
            return f"the Origin header is {origin!r}: other sites cannot use this page"
    return None


def _is_ours(named: str, host: str) -> bool:
    """Whether a Host header names `host`, or a name or address that always means this machine."""
    try:
        name = urlsplit(f"//{named}").hostname
        return name in {"localhost", host.strip("[]").lower()} or ipaddress.ip_address(name or "").is_loopback
    except ValueError:  # not an address
        return False
