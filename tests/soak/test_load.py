"""The service under load: thousands of idle connections, a hundred uploads at once.

Memory is what its processes hold. ``LOAD=full`` sends 100 MB in each upload, as ten minutes of
an idle machine allow; otherwise 5 MB.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from soak_lab import Service, served

IDLE = 5_000
UPLOADS = 100
UPLOAD_BYTES = 100_000_000 if os.environ.get("LOAD") == "full" else 5_000_000
BLOCK = b"x" * 250_000

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


class Sink:
    """A server that reads bodies and counts them."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listening.accept()
                self._threads.append(
                    threading.Thread(target=self._serve, args=(sock,), daemon=True)
                )
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        space, count = bytearray(1_000_000), -1
        with sock, contextlib.suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(65_536)
            count = len(data.partition(b"\r\n\r\n")[2])
            sock.settimeout(60)
            while count < UPLOAD_BYTES and (got := sock.recv_into(space)):
                count += got
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.taken.append(count)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._threads[0].join(20)


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    running = Sink()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def service(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with served(tmp_path_factory.mktemp("load"), idle_s_max=600, sink=sink.port) as running:
            yield running
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ask(service: Service) -> float:
    """Ask for a page by a connection of its own; how long it took, in seconds."""
    began = time.monotonic()
    with service.connect() as sock:
        sock.sendall(b"GET http://plain.test/a HTTP/1.1\r\nHost: plain.test\r\n\r\n")
        assert b" 200 " in sock.recv(65_536)
    return time.monotonic() - began


def test_5000_idle_connections_are_kept_and_others_served(service: Service) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * IDLE:
        pytest.skip(f"only {hard} descriptors may be opened here, {3 * IDLE} are needed")
    ask(service)
    before = service.sample().resident_bytes
    with contextlib.ExitStack() as idle:
        tunnels = [idle.enter_context(service.opened("allowed.test")) for _ in range(IDLE - 1)]
        after = service.sample().resident_bytes
        each = (after - before) / IDLE
        print(
            f"\n{IDLE} idle connections: {(after - before) / 1e6:.0f} MB, {each / 1e3:.1f} KB each"
        )
        assert ask(service) < 5
        last = service.trust("http/1.1").wrap_socket(tunnels[-1], server_hostname="allowed.test")
        with last:
            last.sendall(b"GET /a HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
            assert b" 200 " in last.recv(65_536)
        assert each < 60_000
    ask(service)


def upload(service: Service, wrong: list[str]) -> None:
    head = b"POST http://sink.test/ HTTP/1.1\r\nHost: sink.test\r\nContent-Length: %d\r\n\r\n"
    try:
        with service.connect() as sock:
            sock.settimeout(600)
            sock.sendall(head % UPLOAD_BYTES)
            for _ in range(UPLOAD_BYTES // len(BLOCK)):
                sock.sendall(BLOCK)
            answer = sock.recv(65_536)
            if b" 200 " not in answer:
                wrong.append(answer.decode("latin-1"))
    except OSError as error:
        wrong.append(repr(error))


def test_100_uploads_at_once_pass_in_bounded_memory(service: Service, sink: Sink) -> None:
    ask(service)
    before = peak = service.resident_bytes()
    wrong: list[str] = []
    began = time.monotonic()
    threads = [threading.Thread(target=upload, args=(service, wrong)) for _ in range(UPLOADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)
            peak = max(peak, service.resident_bytes())
    took = time.monotonic() - began
    sent = UPLOADS * UPLOAD_BYTES
    print(f"\n{UPLOADS} uploads of {UPLOAD_BYTES / 1e6:.0f} MB: {sent / took / 1e6:.0f} MB/s")
    print(f"at the most {(peak - before) / 1e6:.0f} MB more")
    assert wrong == []
    assert sink.taken == [UPLOAD_BYTES] * UPLOADS
    assert peak - before < UPLOADS * 2_000_000
