"""A hub and an object store on loopback, for their clients' own code: repositories and buckets are folders."""

import base64
import hashlib
import json
import re
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants, hf_api
from tests.support import http_servers

_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree|preupload|commit)/[^/]+")
_FILE = re.compile(r"/(datasets/|)([^/]+/[^/]+)/resolve/([^/]+)/(.+)")

GATED = ".gated"
"""A repository with a file of this name must be asked for access."""


def _files(folder):
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _digest(*parts):
    return hashlib.sha1("\n".join(parts).encode()).hexdigest()


def _commit(folder):
    """What the hub would call the state that a repository is in."""
    return _digest(*(f"{name} {path.stat().st_mtime_ns}" for name, path in _files(folder).items()))


class _Handler(BaseHTTPRequestHandler):
    root: Path

    def repository(self, kind, name):
        return self.root / "hub" / kind / name

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if asked := _API.fullmatch(path):
            self.tell_of(self.repository(asked[1], asked[2]), asked[2], asked[3])
        elif asked := _FILE.fullmatch(path):
            folder = self.repository("datasets" if asked[1] else "models", asked[2])
            if not folder.is_dir():
                self.refuse("RepoNotFound", 404)
            elif (folder / GATED).exists():
                self.refuse("GatedRepo", 403)
            elif asked[3] not in {"main", _commit(folder)}:
                self.refuse("RevisionNotFound", 404)
            else:
                self.give(folder / asked[4], {"X-Repo-Commit": _commit(folder)})
        else:
            self.give(self.root / "store" / path.lstrip("/"), {})

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            self.reply(json.dumps({"errors": [], "warnings": []}))
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            exists = self.repository("models", name).is_dir()
            self.repository("models", name).mkdir(parents=True, exist_ok=True)
            (self.root / "created.json").write_bytes(body)
            self.reply(json.dumps({"url": f"http://{self.headers['Host']}/{name}"}), status=409 if exists else 200)
        elif (about := _API.fullmatch(path)) and about[3] == "preupload":
            plain = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self.reply(json.dumps({"files": plain}))
        elif about and about[3] == "commit":
            folder = self.repository(about[1], about[2])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    (folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
            commit = _commit(folder)
            address = f"http://{self.headers['Host']}/{about[2]}/commit/{commit}"
            self.reply(json.dumps({"commitUrl": address, "commitOid": commit}))
        else:
            self.reply("", status=404)

    def tell_of(self, folder, name, what):
        if not folder.is_dir():
            self.refuse("RepoNotFound", 404)
        elif what == "revision":
            self.reply(json.dumps({"id": name, "sha": _commit(folder), "siblings": [], "tags": []}))
        else:
            entries = [
                {"type": "file", "path": path, "size": file.stat().st_size, "oid": _digest(path)}
                for path, file in _files(folder).items()
            ]
            self.reply(json.dumps(entries))

    def give(self, file, headers):
        """A file or a range of it."""
        if not file.is_file():
            self.reply("", status=404, headers=headers | {"X-Error-Code": "EntryNotFound"})
            return
        content, status = file.read_bytes(), 200
        headers = headers | {"ETag": f'"{_digest(str(file), str(file.stat().st_mtime_ns))}"', "Accept-Ranges": "bytes"}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or ""):
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        self.reply(content, status=status, headers=headers)

    def refuse(self, code, status):
        self.reply("", status=status, headers={"X-Error-Code": code})

    def reply(self, content, *, status=200, headers=None):
        content = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        told = {"Content-Length": str(len(content)), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        for name, value in (told | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serving(root, cache):
    """Everything here and everything started from here takes a local server for the hub and for S3.

    Args:
        root: has the hub's repositories as hub/models/OWNER/NAME and hub/datasets/OWNER/NAME, and store/BUCKET/KEY.
        cache: where the hub's client keeps what it fetched.
    """
    handler = type("Handler", (_Handler,), {"root": root})
    with http_servers.serving(handler) as address, pytest.MonkeyPatch.context() as patch:
        hub = {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_TOKEN": "nobody", "HF_HUB_DISABLE_XET": "1"}
        store = {"AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true", "AWS_SKIP_SIGNATURE": "true"}
        for name, value in (hub | store | {"AWS_REGION": "nowhere", "NO_PROXY": "127.0.0.1"}).items():
            patch.setenv(name, value)
        # The client has read the environment when it was imported.
        patch.setattr(constants, "ENDPOINT", address)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(hf_api.api, "endpoint", address)
        try:
            yield
        finally:
            # transformers keeps a client of its own with the address of this server.
            if "transformers.utils.hub" in sys.modules:
                sys.modules["transformers.utils.hub"]._hf_api = None
            huggingface_hub.close_session()
