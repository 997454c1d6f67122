"""Requests from other sites are refused, over WebSocket too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the page needs Gradio: pip install 'prolip[explore]'")
from prolip.explore.same_origin import SameOrigin

Headers = list[tuple[bytes, bytes]]


def answered(kind: str, headers: Headers, host: str = "127.0.0.1") -> list[dict[str, Any]]:
    """What a client gets from an app behind the middleware."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "passed"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing of a refused request is read")

    scope = {"type": kind, "headers": headers, "method": "GET", "path": "/"}
    asyncio.run(SameOrigin(app, host)(scope, receive, send))
    return sent


PASSED = [{"type": "passed"}]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1", b"localhost:7860"),
        ("127.0.0.1", b"127.0.0.1"),
        ("127.0.0.1", b"[::1]:7860"),
        ("::1", b"[::1]:7860"),
        ("[::1]", b"localhost"),
        ("Lab.example", b"lab.example:7860"),
        ("0.0.0.0", b"localhost:7860"),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_requests_to_the_pages_own_names_are_answered(kind: str, host: str, name: bytes) -> None:
    assert answered(kind, [(b"host", name)], host) == PASSED
    assert answered(kind, [(b"host", name), (b"origin", b"http://" + name)], host) == PASSED
    assert answered(kind, [(b"host", name), (b"origin", b"https://" + name)], host) == PASSED


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"")],
        [(b"host", b"evil.example")],
        [(b"host", b"localhost.evil.example")],
        [(b"host", b"evil@localhost@evil.example")],
        [(b"host", b"[::1")],
        [(b"host", b"localhost"), (b"host", b"evil.example")],
        [(b"host", b"localhost"), (b"origin", b"http://evil.example")],
        [(b"host", b"localhost"), (b"origin", b"null")],
        [(b"host", b"localhost"), (b"origin", b"")],
        [(b"host", b"localhost"), (b"origin", b"http://localhost"), (b"origin", b"http://evil.example")],
        [(b"host", b"localhost:7860"), (b"origin", b"http://localhost:7861")],
        [(b"host", b"localhost"), (b"origin", b"file://localhost")],
    ],
)
def test_requests_with_other_hosts_or_origins_are_refused(headers: Headers) -> None:
    start, body = answered("http", headers)
    assert start["status"] == 403
    assert body["body"].startswith(b"the ")
    start, _ = answered("websocket", headers)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)


def test_the_lifespan_event_passes_through() -> None:
    assert answered("lifespan", []) == PASSED
