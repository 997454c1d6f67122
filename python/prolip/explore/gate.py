"""Which requests reach the page: its own host and origin, its own routes, and only files that were uploaded."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FILE, _QUESTION = "/gradio_api/file=", "/gradio_api/queue/join"
_ROUTES = re.compile(
    r"/(config|theme\.css|favicon\.ico|manifest\.json|(static|assets)/.*|gradio_api/(upload|upload_progress|queue/data))?",
    re.DOTALL,
)
"""What the page asks for, besides `_FILE` and `_QUESTION`. Gradio has more, such as deep links."""
_LARGEST = 1 << 31
"""Bound of a number in a question."""
_LONGEST = 1 << 20
"""Bytes of a question. Its image is an upload, with a limit of its own."""


class Gate:
    """ASGI middleware in front of Gradio: refuses what the page itself does not ask for.

    - Another Host or Origin: any website may point its name at 127.0.0.1 (DNS rebinding), or send requests from its
      visitors' browsers.
    - Other routes.
    - Questions of more than 1 MiB, before they are read, and those that the page has not, or of other values than its.
    - Files outside the folder of uploads. A mounted Gradio reads any path or URL that a request names as its upload,
      and then serves it.
    """

    def __init__(self, app: ASGIApp, host: str, uploads: Path, questions: Mapping[int, Sequence[Any]]) -> None:
        """Protect `app`, which listens on `host` and stores uploaded files in the folder `uploads`.

        Args:
            questions: the types of each question's values, by the question's number.
        """
        self._app, self._host, self._uploads, self._questions = app, host, uploads.resolve(), questions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        path, status, reason = scope["path"], 403, refusal(Headers(scope=scope), self._host)
        if reason is None and path == _QUESTION:
            body = b""
            async for some in Request(scope, receive).stream():
                body += some
                if len(body) > _LONGEST:
                    status, reason = 413, f"the request must have at most {_LONGEST} bytes"
                    break
            waiting, later = [{"type": "http.request", "body": body}], receive

            async def replay() -> Message:
                return waiting.pop() if waiting else await later()

            receive = replay
            if reason is None and not self._is_question(body):
                reason = "the request is no question of this page, or names a file that was not uploaded"
        elif reason is None and path.startswith(_FILE):
            if not self._is_upload(path.removeprefix(_FILE)):
                reason = "the file was not uploaded"
        elif reason is None and not _ROUTES.fullmatch(path):
            status, reason = 404, "this page has no such address"
        # Gradio fails at a damaged Range, which a server may ignore, and the page needs none.
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]
        app = self._app if reason is None else PlainTextResponse(f"{reason}\n", status_code=status)
        await app(scope, receive, send)

    def _is_upload(self, path: object) -> bool:
        try:
            return Path(str(path)).resolve().is_relative_to(self._uploads)
        except ValueError:  # a null character
            return False

    def _is_question(self, body: bytes) -> bool:
        """Whether a JSON body asks a question of the page, and each object with a `path` in it is an uploaded file."""

        def check(found: dict[str, Any]) -> dict[str, Any]:
            if "path" in found and not self._is_upload(found["path"]):
                raise ValueError("not uploaded")
            return found

        try:
            asked = json.loads(body, object_hook=check)
            values, kinds = asked["data"], self._questions[asked["fn_index"]]
        except (ValueError, RecursionError, LookupError, TypeError):
            return False
        numbers = (
            [value for value in values if isinstance(value, int | float)] if isinstance(values, list) else [_LARGEST]
        )
        is_small = all(abs(number) < _LARGEST for number in numbers)  # nor NaN
        return is_small and len(values) == len(kinds) and all(map(isinstance, values, kinds))


def refusal(headers: Headers, host: str) -> str | None:
    """Why a page with the option `--host` `host` refuses a request with these headers; None if it may pass."""
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
