"""Requests from other sites, for other routes and with files that were not uploaded are refused."""

import asyncio
import json
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the page needs Gradio: pip install 'prolip[explore]'")
from prolip.explore.gate import Gate

Headers = list[tuple[bytes, bytes]]
HOST: Headers = [(b"host", b"localhost")]
PASSED = [{"type": "passed", "body": b""}]


def answered(kind, headers, host="127.0.0.1", path="/", body=b"", uploads=Path("/up")):
    """What a client gets from an app behind the gate."""
    sent = []

    async def app(scope, receive, send):
        read = (await receive())["body"] if path.endswith("join") else b""
        await send({"type": "passed", "body": read})

    async def send(message):
        sent.append(message)

    async def receive():
        assert path.endswith("join"), "nothing else of a request is read"
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": kind, "headers": headers, "method": "GET", "path": path}
    asyncio.run(Gate(app, host, uploads, {3: [object, object], 5: [str, int | float]})(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1", b"localhost:7860"),
        ("127.0.0.1", b"127.0.0.1"),
        ("127.0.0.1", b"[::1]:7860"),
        ("[::1]", b"localhost"),
        ("Lab.example", b"lab.example:7860"),
        ("0.0.0.0", b"localhost:7860"),
    ],
)
def test_requests_to_the_pages_own_names_are_answered(host, name):
    for more in ([], [(b"origin", b"http://" + name)], [(b"origin", b"https://" + name)]):
        assert answered("http", [(b"host", name), *more], host) == PASSED
    assert answered("lifespan", []) == PASSED


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"")],
        [(b"host", b"localhost.evil.example")],
        [(b"host", b"evil@localhost@evil.example")],
        [(b"host", b"[::1")],
        [*HOST, (b"host", b"evil.example")],
        [*HOST, (b"origin", b"null")],
        [*HOST, (b"origin", b"")],
        [*HOST, (b"origin", b"http://localhost"), (b"origin", b"http://evil.example")],
        [(b"host", b"localhost:7860"), (b"origin", b"http://localhost:7861")],
        [*HOST, (b"origin", b"file://localhost")],
    ],
)
def test_requests_with_other_hosts_or_origins_are_refused(headers, kind):
    assert answered(kind, headers)[0]["status"] == 403


@pytest.mark.parametrize(
    ("path", "passes"),
    [
        ("/up/hash/cat.png", True),
        ("/up/../etc/passwd", False),
        ("/upper/cat.png", False),
        ("relative", False),
        ("http://localhost/cat.png", False),
        ("/up/\0", False),
        (["/up/cat.png"], False),
    ],
)
def test_only_uploaded_files_are_read_or_served(path, passes):
    body = json.dumps({"fn_index": 3, "data": [None, {"path": path, "meta": {"_type": "gradio.FileData"}}]}).encode()
    sent = answered("http", HOST, path="/gradio_api/queue/join", body=body)
    assert sent == [{"type": "passed", "body": body}] if passes else sent[0]["status"] == 403
    sent = answered("http", HOST, path=f"/gradio_api/file={path}")
    assert sent == PASSED if passes else sent[0]["status"] == 403


def test_a_question_that_is_not_json_is_refused():
    assert answered("http", HOST, path="/gradio_api/queue/join", body=b"[" * 100_000)[0]["status"] == 403


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        ({"fn_index": 5, "data": ["a cat", 1.5]}, True),
        ({"fn_index": 5, "data": [1.5, "a cat"]}, False),
        ({"fn_index": 5, "data": ["a cat"]}, False),
        ({"fn_index": 5, "data": ["a cat", None]}, False),
        ({"fn_index": 5, "data": ["a cat", float("nan")]}, False),
        ({"fn_index": 5, "data": ["a cat", 10**400]}, False),
        ({"fn_index": 5, "data": {"a": "b"}}, False),
        ({"fn_index": 5, "data": 7}, False),
        ({"fn_index": 4, "data": ["a cat", 1.5]}, False),
        ({"fn_index": [5], "data": ["a cat", 1.5]}, False),
        ({"data": ["a cat", 1.5]}, False),
        ({"fn_index": 5}, False),
        ([], False),
        ("a cat", False),
        (None, False),
    ],
)
def test_only_questions_of_the_page_pass(asked, passes):
    body = json.dumps(asked).encode()
    sent = answered("http", HOST, path="/gradio_api/queue/join", body=body)
    assert sent == [{"type": "passed", "body": body}] if passes else sent[0]["status"] == 403


def test_a_long_question_is_refused_before_all_of_it_is_read():
    sent, parts = [], [{"type": "http.request", "body": bytes(1 << 16), "more_body": True}] * 20

    async def receive():
        return parts.pop()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": HOST, "method": "POST", "path": "/gradio_api/queue/join"}
    asyncio.run(Gate(None, "127.0.0.1", Path("/up"), {})(scope, receive, send))
    assert sent[0]["status"] == 413


@pytest.mark.parametrize("route", ["deep_link", "run/predict", "call/run", "proxy=http://x", "queue/join/", "stream/x"])
def test_other_routes_of_gradio_are_closed(route):
    assert answered("http", HOST, path=f"/gradio_api/{route}")[0]["status"] == 404
