"""Serve the page until it is interrupted."""

from __future__ import annotations

import errno
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from prolip.errors import UserError
from prolip.explore.config import ExploreOptions
from prolip.explore.explorer import Explorer
from prolip.explore.items import Item, read_items
from prolip.pretrained.open import load

log = logging.getLogger(__name__)


def run_explore(options: ExploreOptions) -> None:
    """Serve the page until it is interrupted.

    Raises:
        UserError: Gradio is missing, the address is not available, or the checkpoint or the data cannot be used.
    """
    check_address(options.host, options.port)
    with temporary_folder() as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # read when Gradio is imported
        try:
            import gradio  # noqa: F401
        except ImportError as error:
            raise UserError("the page needs Gradio: pip install 'prolip[explore]'") from error
        folder = next((Path(name) for name in options.shards if Path(name).is_dir()), None)
        model = load(
            options.checkpoint,
            tokenizer=options.tokenizer,
            device=options.device,
            beside=folder,
            calibration=options.calibration,
        )
        items: list[Item] = []
        if options.shards:
            items = read_items(options.shards, options.caption_key, options.max_items, options.store)
        serve(Explorer(model, items), options)


@contextmanager
def temporary_folder() -> Iterator[str]:
    """Yield a private folder for all temporary files of this process; it is deleted at the end."""
    parent = os.environ.get("GRADIO_TEMP_DIR")
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="prolip-explore-", dir=parent or None) as folder:
        tempfile.tempdir = folder  # interrupted uploads are left there
        try:
            yield folder
        finally:
            tempfile.tempdir = None


def serve(explorer: Explorer, options: ExploreOptions) -> None:
    """Serve the page of a model until Ctrl-C."""
    import gradio
    import uvicorn
    from fastapi import FastAPI

    from prolip.explore.drawing import CSS
    from prolip.explore.page import build_page
    from prolip.explore.same_origin import SameOrigin

    app = gradio.mount_gradio_app(
        FastAPI(openapi_url=None),
        build_page(explorer, options.checkpoint),
        path="/",
        server_name=options.host,
        server_port=options.port,
        max_file_size=options.max_upload_mb * gradio.FileSize.MB,
        # System fonts, so that the page loads nothing from other servers.
        theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=CSS,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
    )
    log.info("http://%s:%d (Ctrl-C ends it)", options.host, options.port)
    # The page keeps a connection open, so shutting down does not wait for it, and does not log that.
    config = uvicorn.Config(
        SameOrigin(app, options.host),
        host=options.host.strip("[]"),
        port=options.port,
        log_level="critical",
        timeout_graceful_shutdown=1,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run()


def check_address(host: str, port: int) -> None:
    """Check, before anything is loaded, that the page can be served at this address.

    Raises:
        UserError: another program listens there, or the address is not one of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        other = "--port" if error.errno in {errno.EADDRINUSE, errno.EACCES} else "--host"
        raise UserError(f"cannot listen on {host}, port {port} ({error.strerror}): try another {other}") from error
