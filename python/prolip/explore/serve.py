"""Serve the page until it is interrupted."""

from __future__ import annotations

import errno
import logging
import os
import socket
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from prolip.errors import UserError
from prolip.explore.config import ExploreOptions
from prolip.explore.explorer import Explorer
from prolip.explore.samples import read_items
from prolip.inference.load_model import load

log = logging.getLogger(__name__)


def run_explore(options: ExploreOptions) -> None:
    """Serve the page until it is interrupted."""
    with listen(options.host, options.port) as listener:
        if find_spec("gradio") is None:  # importing it takes seconds, so `serve` does, once nothing else can be wrong
            raise UserError("the page needs Gradio", "pip install 'prolip[explore]'")
        items = read_items(options)  # first, since a model may have to be downloaded
        model = load(
            options.checkpoint,
            tokenizer=options.tokenizer,
            device=options.device,
            calibration=options.calibration,
        )
        serve(Explorer(model, items), options, listener)


def serve(explorer: Explorer, options: ExploreOptions, listener: socket.socket) -> None:
    """Serve the page of a model until Ctrl-C, over a socket that listens already."""
    with suppress(KeyboardInterrupt), TemporaryDirectory(prefix="prolip-explore-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        import gradio
        import uvicorn
        from fastapi import FastAPI

        from prolip.explore.gate import Gate
        from prolip.explore.page import build_page, question_types

        page = build_page(explorer, options.checkpoint)
        app = gradio.mount_gradio_app(
            FastAPI(openapi_url=None),
            page,
            path="/",
            server_name=options.host,
            server_port=options.port,
            max_file_size=options.max_upload_mb * gradio.FileSize.MB,
            # System fonts, so that the page loads nothing from other servers.
            theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css_paths=Path(__file__).with_name("page.css"),
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
        )
        log.info("http://%s:%d (Ctrl-C ends it)", options.host, options.port)
        # The page keeps a connection open, so shutting down does not wait for it, and does not log that.
        gate = Gate(app, options.host, Path(uploads), question_types(page))
        uvicorn.Server(uvicorn.Config(gate, log_level="critical", timeout_graceful_shutdown=1)).run([listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at this address, before anything is loaded, so that no other program takes it."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        # Of localhost's two addresses, browsers try both, but a forwarded port often names 127.0.0.1.
        family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        return socket.create_server(address, family=family)
    except OSError as error:
        field = "port" if error.errno in {errno.EADDRINUSE, errno.EACCES} else "host"
        raise UserError(field, f"cannot listen on {host}, port {port} ({error.strerror})") from error
