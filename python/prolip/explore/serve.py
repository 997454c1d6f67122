"""Serve the page until it is interrupted."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from prolip.errors import UserError
from prolip.explore.config import ExploreOptions
from prolip.explore.explorer import Explorer
from prolip.explore.items import Item, read_items
from prolip.pretrained.open import load

log = logging.getLogger(__name__)


def run_explore(options: ExploreOptions) -> list[str]:
    """Serve the page until it is interrupted. There are no lines to print afterwards.

    Raises:
        UserError: Gradio is missing, the address is not available, or the checkpoint or the data cannot be used.
    """
    check_address(options.host, options.port)
    try:
        import gradio
    except ImportError as error:
        raise UserError("the page needs Gradio: pip install 'prolip[explore]'") from error
    from prolip.explore.page import build_page
    from prolip.explore.show import CSS

    folder = next((Path(name) for name in options.data if Path(name).is_dir()), None)
    model = load(options.checkpoint, tokenizer=options.tokenizer, beside=folder)
    items: list[Item] = []
    if options.data:
        items = read_items(options.data, options.caption_keys, options.max_items, options.store)
    page = build_page(Explorer(model, items), options.checkpoint)
    log.info("http://%s:%d (Ctrl-C ends it)", options.host, options.port)
    page.launch(
        server_name=options.host,
        server_port=options.port,
        max_file_size=options.max_upload_mb * gradio.FileSize.MB,
        # System fonts, so that the page loads nothing from other servers.
        theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=CSS,
        footer_links=[],
        share=False,
        quiet=True,
        ssr_mode=False,
    )
    return []


def check_address(host: str, port: int) -> None:
    """Check, before anything is loaded, that the page can be served at this address.

    Raises:
        UserError: another program listens there, or the address is not one of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        raise UserError(f"cannot listen on {host}, port {port} ({error.strerror}): try another --port") from error
