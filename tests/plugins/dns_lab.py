"""A resolver of ours with its sockets on loopback, and an upstream that does what it is told."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest
import uvloop
from egress_lab import TappedJournal, snapshot_of

from aesp_proxy.daemon.name_budget import BudgetLimits, NameBudget
from aesp_proxy.daemon.pipeline import Identity, Pipeline, ScanLimits
from aesp_proxy.daemon.session import SessionCounter
from aesp_proxy.intercept.names import Names
from aesp_proxy.intercept.resolver.cache import CacheLimits
from aesp_proxy.intercept.resolver.listeners import DnsListeners
from aesp_proxy.intercept.resolver.resolver import Resolver
from aesp_proxy.intercept.resolver.server import DnsInterceptor, ServerLimits
from aesp_proxy.intercept.resolver.upstream import Upstreams
from aesp_proxy.model.context import Claims

PUBLIC, OTHER = "93.184.215.14", "93.184.215.15"
POLICY = """
version: "1.2.0"
name: test
guards:
  egress_allowlist:
    enabled: true
    allow: ["allowed.test", "*.sub.test", "inside.test", "10.1.0.0/16", "odd.test:8443"]
    block: ["evil.sub.test"]
    default_action: block
"""

Deed = list[str] | str
"""What is answered: lines of records, or a word of the misdeeds below."""


@dataclass
class Upstream:
    """A DNS server. Names not told of do not exist; deeds are used up but for the last."""

    deeds: dict[tuple[str, str], list[Deed]] = field(default_factory=dict)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    spelled: list[str] = field(default_factory=list)

    def say(self, name: str, kind: str, *deeds: Deed) -> None:
        self.deeds[name, kind] = list(deeds)

    def names(self) -> set[str]:
        """Every name that was asked for here."""
        return {name for _, name, _ in self.seen}

    def answers(self, data: bytes, over: str) -> list[bytes]:
        """Return the datagrams that answer a query."""
        query = dns.message.from_wire(data)
        asked = query.question[0]
        spelled = asked.name.to_text(omit_final_dot=True)
        name, kind = spelled.lower(), asked.rdtype.name
        self.seen.append((over, name, kind))
        self.spelled.append(spelled)
        deeds = self.deeds.get((name, kind))
        if deeds is None:
            known = any(name == other for other, _ in self.deeds)
            return [self._wire(query, rcode="NOERROR" if known else "NXDOMAIN")]
        deed = deeds.pop(0) if len(deeds) > 1 else deeds[0]
        if isinstance(deed, list):
            return [self._wire(query, deed)]
        return self._misdeed(query, deed, over)

    def _misdeed(self, query: dns.message.Message, deed: str, over: str) -> list[bytes]:
        name = query.question[0].name
        lie = [f"{name} 60 IN A {OTHER}"]
        match deed:
            case "silent":
                return []
            case "truncated" if over == "udp":
                return [self._wire(query, flags=dns.flags.TC)]
            case "truncated" | "case" if over == "tcp":
                return [self._wire(query, [f"{name} 60 IN A {PUBLIC}"])]
            case "case":
                return [self._wire(query).lower()]
            case "forged" | "lies":
                lies = []
                for number in range(8):
                    forged = dns.message.from_wire(self._wire(query, lie))
                    forged.id = (query.id + 1 + number) % 65_536
                    lies.append(forged.to_wire())
                if deed == "lies":
                    return lies
                return [b"\0", *lies, self._wire(query, [f"{name} 60 IN A {PUBLIC}"])]
            case "garbage":
                return [self._wire(query)[:-9] + b"\xff" * 40]
            case "many":
                return [self._wire(query, [f"{name} 60 IN A 93.1.{n}.1" for n in range(200)])]
            case _:
                return [self._wire(query, rcode=deed)]

    @staticmethod
    def _wire(
        query: dns.message.Message, lines: Deed = (), rcode: str = "NOERROR", flags: int = 0
    ) -> bytes:
        answer = dns.message.make_response(query, recursion_available=True)
        answer.flags |= flags
        answer.set_rcode(dns.rcode.from_text(rcode))
        for line in lines:
            owner, ttl, _, kind, *data = line.split()
            answer.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, " ".join(data)))
        return answer.to_wire(max_size=65_535)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        for answer in self._upstream.answers(data, "udp"):
            self._transport.sendto(answer, addr)


class DnsLab:
    """The running resolver. ``now`` is its clock and stands still until it is moved."""

    def __init__(
        self,
        directory: Path,
        policy: str = POLICY,
        *,
        static: dict[str, str] | None = None,
        search: tuple[str, ...] = (),
        timeout_s: float = 0.4,
        budget: BudgetLimits | None = None,
        **limits: object,
    ) -> None:
        self.now = 1_000.0
        self.upstream = Upstream()
        self.names = Names()
        directory.chmod(0o700)
        self.journal = TappedJournal(directory)
        self.pipeline = Pipeline(
            session=SessionCounter(started_ns=1, claims=Claims()),
            snapshot=snapshot_of(policy),
            journal=self.journal,
            identity=Identity(
                principal_id="alice", agent_id="agent-1", agent_type="test", session_id="s-1"
            ),
            scan=ScanLimits(),
            wall_ns=time.time_ns,
            monotonic_ns=lambda: int(self.now * 1e9),
            names=NameBudget(budget or BudgetLimits(), now=self.now),
        )
        self._limits = ServerLimits(**limits)  # type: ignore[arg-type]
        self._static = {name: [socket_address(address)] for name, address in (static or {}).items()}
        self._search, self._timeout_s = search, timeout_s
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(20), "the resolver did not start"

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        udp, tcp = _bound()
        port = udp.getsockname()[1]
        transport, _ = await self._loop.create_datagram_endpoint(
            lambda: _Udp(self.upstream), sock=udp
        )
        server = await asyncio.start_server(self._upstream_tcp, sock=tcp)
        self.server = ("127.0.0.1", port)
        self.resolver = self.make_resolver()
        interceptor = DnsInterceptor(
            gate=self.pipeline,
            resolver=self.resolver,
            names=self.names,
            limits=self._limits,
            clock=lambda: self.now,
        )
        self.listeners = DnsListeners(interceptor)
        udp, tcp = _bound()
        self.port = udp.getsockname()[1]
        self.listeners.serve_udp(udp)
        await self.listeners.serve_tcp(tcp)
        self._ready.set()
        await self._stopping.wait()
        self.listeners.stop()
        self.resolver.close()
        transport.close()
        server.close()
        # What is under way ends before its loop does, and its sockets with it.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=5)
        await asyncio.sleep(0)

    def make_resolver(self) -> Resolver:
        """Make another resolver of the same upstream, for another loop."""
        return Resolver(
            upstreams=Upstreams([self.server], timeout_s=self._timeout_s),
            static=self._static,
            search=self._search,
            cache=CacheLimits(),
            clock=lambda: self.now,
        )

    async def _upstream_tcp(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        length = int.from_bytes(await reader.readexactly(2))
        for answer in self.upstream.answers(await reader.readexactly(length), "tcp"):
            writer.write(len(answer).to_bytes(2) + answer)
        writer.close()

    def call(self, what: Callable[[], None]) -> None:
        """Have something done where the resolver runs."""
        done = threading.Event()

        def run() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(20)
        self.journal.close()

    # a client ------------------------------------------------------------------------

    def ask(
        self, name: str, kind: str = "A", *, tcp: bool = False, edns: int | None = 0
    ) -> dns.message.Message:
        """Ask as a stub resolver does; dnspython reads the answer, and holds it to the query."""
        query = dns.message.make_query(name, kind, use_edns=-1 if edns is None else edns)
        over = dns.query.tcp if tcp else dns.query.udp
        return over(query, "127.0.0.1", port=self.port, timeout=10)

    def addresses(self, name: str, kind: str = "A", **how: object) -> list[str]:
        """Return the data of the answer's records, in order."""
        answer = self.ask(name, kind, **how)  # type: ignore[arg-type]
        return [item.to_text() for rrset in answer.answer for item in rrset]

    def rcode(self, name: str, kind: str = "A") -> str:
        return dns.rcode.to_text(self.ask(name, kind).rcode())

    def send(self, data: bytes) -> bytes:
        """Send bytes that need not be a query; return what is answered."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(data, ("127.0.0.1", self.port))
            return sock.recv(65_535)

    def reasons(self) -> list[str]:
        """Reasons of all records so far, decisions and outcomes."""
        return [record.reason for record in self.journal.records]


def socket_address(text: str):
    from ipaddress import ip_address

    return ip_address(text)


def _bound() -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on one loopback port."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
            continue
        return udp, tcp


@pytest.fixture
def dns_lab(tmp_path: Path) -> Iterator[Callable[..., DnsLab]]:
    """Start resolvers, with settings."""
    started: list[DnsLab] = []

    def begin(policy: str = POLICY, **settings: object) -> DnsLab:
        directory = tmp_path / f"dns-{len(started)}"
        directory.mkdir()
        started.append(DnsLab(directory, policy, **settings))  # type: ignore[arg-type]
        return started[-1]

    try:
        yield begin
    finally:
        for running in started:
            running.stop()
