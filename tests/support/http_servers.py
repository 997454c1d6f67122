"""Servers on loopback whose answers a test writes; they log nothing."""

import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Request = SimpleHTTPRequestHandler
send_file = SimpleHTTPRequestHandler.do_GET
"""Answers a request with the file that its path names, or with 404."""


@contextmanager
def serving(handler, **settings):
    """The address of a server that ends with the block."""
    quiet = type(handler.__name__, (handler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, **settings)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def answering(answer=send_file, folder=Path("absent")):
    """The address of a server of a folder's files, where `answer` answers every GET."""
    with serving(type("Handler", (Request,), {"do_GET": answer}), directory=str(folder)) as address:
        yield address
