"""Which HTTP requests the page of `prolip explore` answers: other sites and host names are refused."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support.explore_items import ServedPage, served_page
from tests.support.shards import encoded

pytestmark = pytest.mark.timeout(300)
BOUNDARY = "part"
UPLOAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
    + encoded((9, 9, 200))
    + f"\r\n--{BOUNDARY}--\r\n".encode()
)
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
REQUESTS: list[tuple[str, str, bytes, Mapping[str, str]]] = [
    ("GET", "/", b"", {}),
    ("GET", "/config", b"", {}),
    ("POST", "/gradio_api/upload", UPLOAD, FORM),
    ("POST", "/gradio_api/queue/join", b"{}", {"Content-Type": "application/json"}),
    ("GET", "/gradio_api/queue/data?session_hash=x", b"", {}),
    ("OPTIONS", "/gradio_api/upload", b"", {"Access-Control-Request-Method": "POST"}),
]
"""The page, its description, an upload, the queue's two ends, and what a browser asks before it sends for a site."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedPage]:
    with served_page(tmp_path_factory.mktemp("page"), "--host", "127.0.0.1") as page:
        yield page


def ask(
    page: ServedPage, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of the answer; a Host header is added unless `headers` has one."""
    connection = http.client.HTTPConnection(urlsplit(page.address).netloc, timeout=30)
    try:
        connection.request(method, path, body or None, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def stored(page: ServedPage) -> list[Path]:
    return [path for path in page.uploads.rglob("*") if path.is_file() and path.read_bytes() == encoded((9, 9, 200))]


@pytest.mark.parametrize("request_line", REQUESTS, ids=lambda line: f"{line[0]} {line[1]}")
@pytest.mark.parametrize(
    ("header", "value", "named"),
    [
        ("Host", "evil.example:{port}", "Host header is 'evil.example:"),
        ("Host", "127.0.0.1.evil.example", "Host header is '127.0.0.1.evil.example'"),
        ("Host", "192.0.2.7:{port}", "Host header is '192.0.2.7:"),
        ("Origin", "http://evil.example", "Origin header is 'http://evil.example'"),
        ("Origin", "null", "Origin header is 'null'"),
        ("Origin", "http://localhost:1", "Origin header is 'http://localhost:1'"),
    ],
)
def test_requests_with_other_hosts_or_origins_are_refused(
    page: ServedPage,
    request_line: tuple[str, str, bytes, Mapping[str, str]],
    header: str,
    value: str,
    named: str,
) -> None:
    method, path, body, headers = request_line
    port = str(urlsplit(page.address).port)
    status, text, answered = ask(page, method, path, body, {**headers, header: value.replace("{port}", port)})
    assert status == 403
    assert named in text.decode()
    assert not [name for name in answered if name.startswith("access-control")]
    assert stored(page) == []


def test_requests_to_every_local_host_name_are_answered(page: ServedPage) -> None:
    port = urlsplit(page.address).port
    for name in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "localhost:8000", "LOCALHOST"):
        headers = {"Host": name, "Origin": f"http://{name}"}
        status, text, _ = ask(page, "GET", "/config", b"", headers)
        assert status == 200, name
        assert json.loads(text)["components"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_uploads_are_deleted_at_exit(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with served_page(tmp_path) as page:
        assert ask(page, "POST", "/gradio_api/upload", UPLOAD, {**FORM, "Origin": page.address})[0] == 200
        assert len(stored(page)) == 1
        # One that breaks off, and a page that stays open.
        broken = http.client.HTTPConnection(urlsplit(page.address).netloc, timeout=30)
        broken.putrequest("POST", "/gradio_api/upload")
        for name, value in {**FORM, "Content-Length": "9999"}.items():
            broken.putheader(name, value)
        broken.endheaders(UPLOAD[:100])
        opened = http.client.HTTPConnection(urlsplit(page.address).netloc, timeout=30)
        opened.request("GET", "/gradio_api/heartbeat/x")
        assert opened.getresponse().status == 200
        before = time.monotonic()
        page.process.send_signal(number)
        assert page.process.wait(60) == status, page.log.read_text()
        assert time.monotonic() - before < 20
        broken.close()
        opened.close()
    assert list(page.uploads.iterdir()) == []
    assert "Traceback" not in page.log.read_text()
