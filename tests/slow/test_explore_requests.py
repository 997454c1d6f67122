"""Which HTTP requests the page of `prolip explore` answers: its own, with files that were uploaded."""

import http.client
import json
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support.explore_items import served_page
from tests.support.shards import encoded

pytestmark = pytest.mark.timeout(300)
BOUNDARY = "part"
UPLOAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
    + encoded((9, 9, 200))
    + f"\r\n--{BOUNDARY}--\r\n".encode()
)
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with served_page(tmp_path_factory.mktemp("page"), "--host", "127.0.0.1") as page:
        yield page


def ask(page, method, path, body, headers):
    """Status, body and headers of the answer; a Host header is added unless `headers` has one."""
    connection = http.client.HTTPConnection(urlsplit(page.address).netloc, timeout=30)
    try:
        connection.request(method, path, body or None, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def upload(page):
    status, body, _ = ask(page, "POST", "/gradio_api/upload", UPLOAD, {**FORM, "Origin": page.address})
    assert status == 200
    return Path(json.loads(body)[0])


@pytest.mark.parametrize(("header", "value"), [("Host", "evil.example"), ("Origin", "http://evil.example")])
def test_requests_of_other_sites_are_refused(page, header, value):
    preflight = {"Access-Control-Request-Method": "POST"}
    for method, body, more in (("POST", UPLOAD, FORM), ("OPTIONS", b"", preflight)):
        status, _, answered = ask(page, method, "/gradio_api/upload", body, {**more, header: value})
        assert status == 403
        assert not [name for name in answered if name.startswith("access-control")]


def question(page, path):
    """Asks to compare the image at a path with a caption, as the page does; the status of the answer."""
    functions = json.loads(ask(page, "GET", "/config", b"", {})[1])["dependencies"]
    compare = next(place for place, one in enumerate(functions) if one["targets"][0][1] == "click")
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    sent = {"data": [None, image, "food"], "fn_index": compare, "session_hash": "mine"}
    return ask(page, "POST", "/gradio_api/queue/join", json.dumps(sent).encode(), {"Content-Type": "application/json"})[
        0
    ]


def test_only_uploaded_files_are_read_and_served(page, tmp_path):
    """A request that names another file, a pipe or an address gets nothing of it."""
    (tmp_path / "secret").write_text("secret")
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "secret"), str(tmp_path / "pipe"), f"{page.address}/static/x"):
        assert question(page, path) == 403
        assert ask(page, "GET", f"/gradio_api/file={path}", b"", {})[0] == 403
    assert ask(page, "GET", "/gradio_api/deep_link?session_hash=mine", b"", {})[0] == 404
    uploaded = upload(page)
    assert question(page, str(uploaded)) == 200
    for damaged in ({}, {"Range": "bytes=1-2-3"}):
        assert ask(page, "GET", f"/gradio_api/file={uploaded}", b"", damaged)[:2] == (200, encoded((9, 9, 200)))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_uploads_are_deleted_at_exit(tmp_path, number, status):
    with served_page(tmp_path) as page:
        uploaded = upload(page)
        assert uploaded.read_bytes() == encoded((9, 9, 200))
        page.process.send_signal(number)
        assert page.process.wait(60) == status, page.log.read_text()
    assert not uploaded.parents[1].exists()
    assert "Traceback" not in page.log.read_text()
