import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants

import bisae.runtime.hub
from bisae.runtime.hub import reachable


@pytest.mark.parametrize(("status", "answers"), [(200, True), (404, True), (503, False)])
def test_a_hub_is_reachable_if_it_answers_and_is_not_broken(
    hub: Callable[[str], None], server: HTTPServer, status: int, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(f"http://127.0.0.1:{server.server_port}/{status}")
    assert reachable() == answers
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not reachable()


def test_a_hub_that_never_answers_is_not_waited_for(
    hub: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bisae.runtime.hub, "PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub(f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert not reachable()
        assert time.monotonic() - start < 3


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A hub that answers HEAD with the status in the path."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(int(self.path[1:]))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server
        server.shutdown()
