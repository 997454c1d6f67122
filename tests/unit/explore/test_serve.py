"""What `prolip explore` checks before it loads anything."""

import socket
import sys

import pytest
from tests.support.refusals import refusal_of
from tests.support.servers import free_port

from prolip.errors import UserError
from prolip.explore.config import ExploreOptions
from prolip.explore.serve import listen, run_explore


def test_wrong_options_are_named():
    for options in ({"max_items": 0}, {"port": 70_000}):
        with pytest.raises(UserError) as error:
            ExploreOptions(checkpoint="x", **options)
        assert error.value.field in options


def test_the_address_is_taken_while_the_model_is_loaded(tmp_path, monkeypatch):
    """Wrong input is an error before gradio is imported."""
    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    options = ExploreOptions(checkpoint=str(tmp_path), port=free_port())

    def load(*_, **__):
        with refusal_of("port"):
            listen(options.host, options.port)
        raise UserError("checkpoint", "none")

    monkeypatch.setattr("prolip.explore.serve.load", load)
    for _ in range(2):  # it is free again afterwards
        with refusal_of("checkpoint"):
            run_explore(options)
    assert "gradio" not in sys.modules
    with refusal_of("host"):
        listen("192.0.2.1", options.port)


def test_localhost_is_the_address_that_forwarded_ports_name(monkeypatch):
    both = [socket.getaddrinfo(host, free_port(), type=socket.SOCK_STREAM)[0] for host in ("::1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with listen("localhost", 7860) as listener:
        assert listener.getsockname() == both[1][4]
