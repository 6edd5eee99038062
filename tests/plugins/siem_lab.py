"""Receivers of a SIEM on loopback: real sockets, the published answers, faults on demand.

These are emulations of what the vendors document, not the vendors' programs.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aesp_proxy.aggregator.identity import DataDir, ensure_server_certificate, prepare
from aesp_proxy.aggregator.ports import AcceptedBatch
from aesp_proxy.aggregator.store.control import SqliteControl
from aesp_proxy.aggregator.store.ledger import SqliteLedger
from aesp_proxy.aggregator.store.objects import DirectoryObjects
from aesp_proxy.model.record import Record, RecordId
from aesp_proxy.record.batch import SealedBatch, draft, encode_batch, seal
from aesp_proxy.record.canonical import encode
from aesp_proxy.record.head import Head, advance, genesis
from aesp_proxy.record.header import BatchHeader, decode_header, header_hash
from aesp_proxy.record.signature import Signer, key_id_of, new_private_pem, signer_from_pem


@dataclass(frozen=True)
class Got:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass
class Said:
    """An answer: ``close`` ends the connection instead of answering."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False


class Receiver:
    """Answers by ``answer``; faults in ``faults`` come first, one a request."""

    def __init__(self, answer: Callable[[Got], Said]) -> None:
        self.answer = answer
        self.requests: list[Got] = []
        self.faults: list[Said] = []
        self.lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", "0"))
                got = Got(
                    self.path,
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(length),
                )
                with receiver.lock:
                    receiver.requests.append(got)
                    said = receiver.faults.pop(0) if receiver.faults else receiver.answer(got)
                if said.close:
                    self.close_connection = True
                    return
                body = b"" if said.body is None else json.dumps(said.body).encode()
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815 - http.server's own name

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take_tls(self, certificate: Path) -> None:
        """Speak TLS from now on, as ``certificate`` (PEM with its key)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")


@contextmanager
def receiving(answer: Callable[[Got], Said]) -> Iterator[Receiver]:
    receiver = Receiver(answer)
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


class SyslogReceiver:
    """Reads octet-counted messages over TLS, or plain; ``drop`` cuts a connection unread."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.messages: list[bytes] = []
        self.rest: list[bytes] = []
        self.context = context
        self.drop = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.ended = threading.Event()
        self.dropped = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            try:
                line = self.context.wrap_socket(plain, server_side=True) if self.context else plain
            except (OSError, ssl.SSLError):
                plain.close()
                continue
            with line:
                if self.drop:
                    self.drop -= 1
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    line.close()
                    self.dropped.set()
                    continue
                self.read(line)
            self.ended.set()

    def read(self, line: socket.socket) -> None:
        data = b""
        while True:
            try:
                part = line.recv(65536)
            except OSError:
                return
            if not part:
                self.rest.append(data)
                return
            data += part
            while b" " in data:
                count, _, after = data.partition(b" ")
                if len(after) < int(count):
                    break
                self.messages.append(after[: int(count)])
                data = after[int(count) :]

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@contextmanager
def syslog_over_tls(files: dict[str, Path], name: str = "right") -> Iterator[SyslogReceiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[f"{name}_server"])
    receiver = SyslogReceiver(context)
    try:
        yield receiver
    finally:
        receiver.close()


class Collector:
    """Splunk's HTTP Event Collector: events are indexed when their acknowledgement is asked for."""

    def __init__(self, *, token: str = "t0ken", acknowledges: bool = False) -> None:
        self.token = token
        self.acknowledges = acknowledges
        self.asked_before_indexed = 1
        self.events: list[dict[str, Any]] = []
        self.waiting: dict[int, int] = {}
        self.poison = ""

    def __call__(self, got: Got) -> Said:
        if got.headers.get("authorization") != f"Splunk {self.token}":
            return Said(403, {"text": "Invalid token", "code": 4})
        if self.acknowledges and "x-splunk-request-channel" not in got.headers:
            return Said(400, {"text": "Data channel is missing", "code": 10})
        if got.path == "/services/collector/ack":
            return self.acknowledge(got)
        events = got.lines
        for number, event in enumerate(events):
            if self.poison and self.poison in json.dumps(event):
                said = {"text": "Invalid data format", "code": 6, "invalid-event-number": number}
                return Said(400, said)
        self.events += events
        if not self.acknowledges:
            return Said(200, {"text": "Success", "code": 0})
        number = len(self.waiting)
        self.waiting[number] = self.asked_before_indexed
        return Said(200, {"text": "Success", "code": 0, "ackId": number})

    def acknowledge(self, got: Got) -> Said:
        acks = {}
        for number in got.lines[0]["acks"]:
            self.waiting[number] -= 1
            acks[str(number)] = self.waiting[number] < 0
        return Said(200, {"acks": acks})


class Bulk:
    """Elasticsearch's bulk ``create``: one document an id, an answer an item."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.status_of: dict[str, int] = {}

    def __call__(self, got: Got) -> Said:
        lines = got.lines
        items = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            name = action["create"]["_id"]
            status = self.status_of.pop(name, 409 if name in self.documents else 201)
            if status == 201:
                self.documents[name] = document
            error = {} if status == 201 else {"error": {"type": "why", "reason": "secret-value"}}
            items.append({"create": {"status": status, **error}})
        errors = any(item["create"]["status"] >= 400 for item in items)
        return Said(200, {"errors": errors, "items": items})


@dataclass
class SealingHost:
    """A host that seals batches of one record, and follows its own head."""

    plain: Record
    origin: str = "h-one"
    key: tuple[bytes, Signer] = field(default_factory=lambda: signer_from_pem(new_private_pem()))
    next_seq: int = 1

    def __post_init__(self) -> None:
        self.head: Head = genesis(self.origin)

    @property
    def ids(self) -> list[str]:
        return [f"{self.origin}/1/{seq}" for seq in range(1, self.next_seq)]

    def seal(self, count: int, **changes: Any) -> tuple[SealedBatch, BatchHeader]:
        record = replace(self.plain, **changes)
        first, time_ns = (self.next_seq, record.time_ns) if count else (0, 0)
        rows = [
            encode(record, RecordId(origin=self.origin, epoch=1, seq=seq))
            for seq in range(self.next_seq, self.next_seq + count)
        ]
        drafted = draft(
            self.head,
            key_id=key_id_of(self.key[0]),
            epoch=1 if count else 0,
            first_seq=first,
            wall_ns=record.time_ns,
            mono_ns=1 + self.head.batch_no,
            boot_id="b",
            first_time_ns=time_ns,
            last_time_ns=time_ns,
        )
        batch = seal(rows, header=drafted, sign=self.key[1])
        header = decode_header(batch.header_bytes)
        self.head = advance(self.head, header, header_hash(batch.header_bytes))
        self.next_seq += count
        return batch, header


@contextmanager
def storing(root: Path) -> Iterator[tuple[DataDir, Callable[[SealingHost, int], None]]]:
    """A data directory as a first start makes it, and a way to put batches into it."""
    data = prepare(root, now=datetime.now(UTC))
    ensure_server_certificate(data, ("127.0.0.1", "localhost"), now=datetime.now(UTC))
    objects = DirectoryObjects(root)
    SqliteControl(data.control).close()
    ledger = SqliteLedger(data.ledger, objects)

    def store(host: SealingHost, count: int) -> None:
        batch, header = host.seal(count)
        accepted = AcceptedBatch(
            data=encode_batch(batch),
            sealed=batch,
            header=header,
            head=host.head,
            rotations=(),
            notices=(),
            received_ns=time.time_ns(),
        )
        ledger.append([accepted])

    try:
        yield data, store
    finally:
        ledger.close()
        objects.close()
