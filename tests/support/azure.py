"""A stand-in for Azure's blob service: the two calls that reading takes, as far as its documentation describes them.

Microsoft's emulator is a program for Node, which is none of the tests' tools. This one answers `Get Blob` (ranges,
ETags, `If-Match`) and `List Blobs` (in pages), to whoever signs with the account's key.
"""

import base64
import contextlib
import hashlib
import hmac
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.http_servers import serving

ACCOUNT = "account"
KEY = base64.b64encode(b"secret").decode()
SIGNED = ["Content-Encoding", "Content-Language", "Content-Length", "Content-MD5", "Content-Type", "Date"]
SIGNED += ["If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range"]
PAGE = 4
"""Blobs that a listing has before it says where the next part begins."""


class _Blobs(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    container: str

    def do_GET(self):
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        container, _, name = unquote(address.path).lstrip("/").partition("/")
        if self.headers.get("Authorization") != f"SharedKey {ACCOUNT}:{self._signature(address.path, query)}":
            self._answer(403)
        elif container != self.container:
            self._answer(404)
        elif query.get("comp") == "list":
            self._answer(200, self._listing(query).encode(), {"Content-Type": "application/xml"})
        else:
            self._blob(self.folder / name.removeprefix("data/"))

    def _signature(self, path, query):
        """By the page "Authorize with Shared Key", for requests without a body."""
        # No body is no length.
        said = {name.lower(): value for name, value in self.headers.items()} | {"content-length": ""}
        lines = ["GET", *(said.get(name.lower(), "") for name in SIGNED)]
        lines += [f"{name}:{value}" for name, value in sorted(said.items()) if name.startswith("x-ms-")]
        lines += [f"/{ACCOUNT}{path}", *(f"{name}:{value}" for name, value in sorted(query.items()))]
        text = "\n".join(lines).encode()
        return base64.b64encode(hmac.digest(base64.b64decode(KEY), text, "sha256")).decode()

    def _blob(self, path):
        if not path.is_file():
            self._answer(404)
            return
        content, headers = path.read_bytes(), self._properties(path)
        if self.headers.get("If-Match", headers["ETag"]) != headers["ETag"]:
            self._answer(412)
            return
        wanted = self.headers.get("x-ms-range") or self.headers.get("Range")
        if wanted is None:
            self._answer(200, content, headers)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last) + 1, len(content))
        if begin >= len(content):
            self._answer(416)
            return
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        self._answer(206, content[begin:end], headers)

    def _properties(self, path):
        status = path.stat()
        state = f"{path.name} {status.st_size} {status.st_mtime_ns}"
        return {
            "ETag": f'"0x{hashlib.sha256(state.encode()).hexdigest()[:15].upper()}"',
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        }

    def _listing(self, query):
        names = sorted(f"data/{path.name}" for path in self.folder.iterdir())
        names = [name for name in names if name.startswith(query.get("prefix", "")) and name >= query.get("marker", "")]
        blobs, marker = "", names[PAGE] if len(names) > PAGE else ""
        for name in names[:PAGE]:
            path = self.folder / name.removeprefix("data/")
            properties = self._properties(path)
            blobs += (
                f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{properties['Last-Modified']}</Last-Modified>"
                f"<Content-Length>{path.stat().st_size}</Content-Length><Content-Type>application/x-tar</Content-Type>"
                f"<Etag>{escape(properties['ETag'])}</Etag></Properties></Blob>"
            )
        return (
            '<?xml version="1.0" encoding="utf-8"?><EnumerationResults>'
            f"<Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
        )

    def _answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def azure(folder, container):
    """The folder's files as blobs of a container, below `data/`."""
    with serving(type("Blobs", (_Blobs,), {"folder": folder, "container": container})) as address:
        yield address
