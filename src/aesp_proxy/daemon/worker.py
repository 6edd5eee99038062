"""The worker process: intercepts, decides and writes the journal; holds no signing key.

Started by the supervisor with a listening socket and a control socket (see
``control``). Exit codes: 0 stopped, 3 configuration, 4 runtime.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop

from aesp_proxy.daemon import worker_log
from aesp_proxy.daemon.budget import SendBudget, SendLimits
from aesp_proxy.daemon.capturing import captures, names_of_users
from aesp_proxy.daemon.config import Limits, Settings
from aesp_proxy.daemon.control import FrameDecoder, checked_frame, failed_frame, ready_frame
from aesp_proxy.daemon.name_budget import NameBudget
from aesp_proxy.daemon.pipeline import Identity, Pipeline, ScanLimits
from aesp_proxy.daemon.policy_source import PolicySource
from aesp_proxy.daemon.reaching import tls_settings, way_out
from aesp_proxy.daemon.recording import journal_options
from aesp_proxy.daemon.resolving import budget_limits, own_resolver, server_limits
from aesp_proxy.daemon.roots import upstream_roots
from aesp_proxy.daemon.secret_registry import entries_of
from aesp_proxy.daemon.session import SessionCounter, claims_of
from aesp_proxy.daemon.session_labels import heard_by
from aesp_proxy.daemon.session_pieces import SessionPieces
from aesp_proxy.daemon.shared_pieces import PieceQueues
from aesp_proxy.daemon.worker_control import ControlLoop
from aesp_proxy.daemon.worker_sockets import Sockets, inherited
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.registered import Entry
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import AespError, ConfigError, InputError
from aesp_proxy.intercept.egress.corporate import CorporateProxy
from aesp_proxy.intercept.egress.dialler import static_addresses
from aesp_proxy.intercept.egress.interceptor import EgressInterceptor, EgressSettings
from aesp_proxy.intercept.egress.master import EgressMaster, verify_contract
from aesp_proxy.intercept.egress.pool import PoolLimits
from aesp_proxy.intercept.egress.room import RoomLimits, raise_descriptors, room_within
from aesp_proxy.intercept.egress.sealed import sealed_hosts
from aesp_proxy.intercept.names import Names
from aesp_proxy.intercept.resolver.listeners import DnsListeners
from aesp_proxy.intercept.resolver.resolver import Resolver
from aesp_proxy.intercept.resolver.server import DnsInterceptor
from aesp_proxy.intercept.resolver.stand_ins import StandIns
from aesp_proxy.intercept.shared_names import SharedNames
from aesp_proxy.intercept.socket_owner import SocketOwners
from aesp_proxy.normalize.http_head import HeadLimits
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.spool_check import check_newest_batch

log = logging.getLogger(__name__)

_EXIT_CONFIG = 3
_EXIT_RUNTIME = 4
_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What runs, and is to be stopped."""

    interceptor: EgressInterceptor
    journal: Journal
    listeners: DnsListeners | None
    pipeline: Pipeline
    source: PolicySource
    entries: list[Entry]


def main() -> None:
    """Run until told to stop; never a traceback for what an operator can mend."""
    control, sockets = inherited(sys.argv[1:])
    worker_log.install()
    sys.exit(uvloop.run(_run(control, sockets)))


async def _run(control: socket.socket, sockets: Sockets) -> int:
    control.setblocking(False)
    frames = _frames(control)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(worker_log.loop_failed)
    try:
        started = await _start(await anext(frames), frames, sockets, control)
    except StopAsyncIteration:
        return _EXIT_RUNTIME
    except AespError as error:
        code = _EXIT_CONFIG if isinstance(error, ConfigError) else _EXIT_RUNTIME
        await loop.sock_sendall(control, failed_frame(exit_code=code, message=str(error)))
        return code
    except OSError as error:
        text = f"the worker cannot start: {error}"
        await loop.sock_sendall(control, failed_frame(exit_code=_EXIT_RUNTIME, message=text))
        return _EXIT_RUNTIME
    port = sockets.listen.getsockname()[1]
    serve = ControlLoop(
        control=control,
        pipeline=started.pipeline,
        source=started.source,
        connections=lambda: started.interceptor.connections,
    )
    serve.record_registered(started.entries)
    await loop.sock_sendall(control, ready_frame(port=port, epoch=started.journal.epoch))
    try:
        await serve.serving()
        grace_s = await serve.run(frames)
        await started.interceptor.stop(grace_s)
        if started.listeners is not None:
            started.listeners.stop()
    finally:
        started.journal.close()
    return 0


async def _start(
    frame: dict[str, object],
    frames: AsyncIterator[dict[str, object]],
    sockets: Sockets,
    control: socket.socket,
) -> Started:
    settings = _settings(frame)
    session_id, ca_dir = frame.get("session_id"), frame.get("ca_dir")
    verify_contract()
    resolver = _resolver(settings, sockets)
    check_newest_batch(settings.state_dir)
    exact, entries = await _registered(frame, frames)
    source = PolicySource(
        state_dir=settings.state_dir,
        cache_dir=settings.rule_cache_dir,
        path=settings.policy,
        exact=exact,
    )
    policy = source.read(frame)
    master, corporate = _ways_out(settings, Path(str(ca_dir)))
    journal = Journal.open(settings.state_dir, options=journal_options(settings.audit))
    await asyncio.get_running_loop().sock_sendall(control, checked_frame())
    identity, labels = _identity(settings, str(session_id)), heard_by(sockets.labels)
    pipeline = _pipeline(settings, source.snapshot(policy, frame), identity, labels, journal)
    _share_pieces(pipeline, sockets)
    names = _names(sockets)
    is_captured = captures(settings)
    egress = _egress_settings(settings, resolver, corporate)
    interceptor = EgressInterceptor(
        gate=pipeline,
        master=master,
        settings=replace(egress, own=sockets.places()) if is_captured else egress,
        names_of=lambda address: names.of(address, now=time.monotonic()),
        owner_of=SocketOwners().of if is_captured else lambda _, __: None,
    )
    await interceptor.listen(sockets.listen)
    for sock in sockets.transparent:
        await interceptor.listen_transparent(sock)
    listeners = None
    if resolver is not None and (sockets.dns_udp or sockets.dns_tcp):
        dns = DnsInterceptor(
            gate=pipeline,
            resolver=resolver,
            names=names,
            limits=server_limits(settings.resolver),
            clock=time.monotonic,
            stand_ins=StandIns(place=_whole(frame, "place"), places=_whole(frame, "places") or 1),
        )
        listeners = await _listen_dns(sockets, dns)
    gc.collect()
    gc.freeze()  # what is loaded now lives as long as the process
    return Started(
        interceptor=interceptor,
        journal=journal,
        listeners=listeners,
        pipeline=pipeline,
        source=source,
        entries=entries,
    )


def _settings(frame: dict[str, object]) -> Settings:
    raw = frame.get("settings")
    if frame.get("type") != "config" or not isinstance(raw, dict):
        msg = f"the supervisor sent {frame.get('type')!r} before the configuration"
        raise InputError(msg)
    return Settings.from_worker(raw)


def _resolver(settings: Settings, sockets: Sockets) -> Resolver | None:
    """Make what asks for names, where anybody asks us or we are told whom to ask."""
    asked = bool(sockets.dns_udp or sockets.dns_tcp or settings.resolver.upstreams)
    return own_resolver(settings, clock=time.monotonic) if asked else None


def _ways_out(settings: Settings, ca_dir: Path) -> tuple[EgressMaster, CorporateProxy | None]:
    """Make what speaks TLS on both sides, and the corporate proxy with the same roots."""
    roots = upstream_roots(settings.upstream.ca_file, settings.state_dir)
    tls = tls_settings(settings.tls)
    http2 = settings.egress.http2 != "never"
    master = EgressMaster(ca_dir=ca_dir, upstream_roots=roots, http2=http2, tls=tls)
    return master, way_out(settings.upstream, roots=roots, tls=tls)


async def _registered(
    frame: dict[str, object], frames: AsyncIterator[dict[str, object]]
) -> tuple[ExactIndex | None, list[Entry]]:
    """Take the values that are registered at the start: nothing passes before they are known."""
    key, count = frame.get("exact_key"), frame.get("registrations")
    if not isinstance(key, bytes) or not isinstance(count, int) or not key:
        return None, []
    exact = ExactIndex(key)
    entries = [entry for _ in range(count) for entry in entries_of(await anext(frames))]
    exact.add(entries)
    return exact, entries


def _whole(frame: dict[str, object], name: str) -> int:
    value = frame.get(name, 0)
    return value if isinstance(value, int) else 0


def _names(sockets: Sockets) -> Names:
    """Return the memory of names, shared with other workers where there are any."""
    inbox = sockets.names_in
    if inbox is None:
        return Names()
    names, loop = SharedNames(inbox, sockets.names_out), asyncio.get_running_loop()

    def hear() -> None:
        if not names.hear():
            loop.remove_reader(inbox)

    loop.add_reader(inbox, hear)
    return names


def _share_pieces(pipeline: Pipeline, sockets: Sockets) -> None:
    """Have the memory of pieces be that of all workers, where there are more."""
    inbox = sockets.pieces_in
    if inbox is None:
        return

    def lose() -> None:
        if pipeline.tally.untold() == 1:
            log.warning("a worker is stuck: what leaves in pieces may be found no more")

    queues, loop = PieceQueues(inbox, sockets.pieces_out, lose), asyncio.get_running_loop()
    pieces = pipeline.pieces = SessionPieces(queues)

    def hear() -> None:
        pieces.hear()
        if queues.is_over:
            loop.remove_reader(inbox)

    # Also while no request comes here: a queue that is full loses what is told.
    loop.add_reader(inbox, hear)


def _pipeline(
    settings: Settings,
    snapshot: Snapshot,
    identity: Identity,
    labels: Callable[[], tuple[str, ...] | None],
    journal: Journal,
) -> Pipeline:
    return Pipeline(
        snapshot=snapshot,
        journal=journal,
        identity=identity,
        session=SessionCounter(
            started_ns=time.time_ns(), claims=claims_of(settings.claims), labels=labels
        ),
        scan=ScanLimits(
            window_bytes=settings.scan.window_bytes,
            inflated_bytes_max=settings.scan.inflate_bytes_max,
            inflate_ratio_max=settings.scan.inflate_ratio_max,
        ),
        wall_ns=time.time_ns,
        monotonic_ns=time.monotonic_ns,
        names=NameBudget(budget_limits(settings.resolver), now=time.monotonic()),
        budget=_send_budget(settings),
        user_of=names_of_users(settings),
    )


def _send_budget(settings: Settings) -> SendBudget | None:
    given = settings.budget
    limits = SendLimits(
        requests_per_minute_max=given.requests_per_minute_max,
        requests_max=given.requests_max,
        bytes_out_max=given.bytes_out_max,
    )
    return SendBudget(limits) if limits != SendLimits() else None


async def _listen_dns(sockets: Sockets, dns: DnsInterceptor) -> DnsListeners:
    listeners = DnsListeners(dns)
    for sock in sockets.dns_udp:
        listeners.serve_udp(sock)
    for sock in sockets.dns_tcp:
        await listeners.serve_tcp(sock)
    return listeners


def _identity(settings: Settings, session_id: str) -> Identity:
    agent = settings.agent
    return Identity(
        principal_id=agent.principal_id,
        agent_id=agent.id,
        agent_type=agent.type,
        session_id=session_id,
        tenant_id=agent.tenant_id,
    )


def _egress_settings(
    settings: Settings, resolver: Resolver | None, corporate: CorporateProxy | None
) -> EgressSettings:
    limits = settings.limits
    return EgressSettings(
        head=HeadLimits(
            head_bytes_max=limits.head_bytes_max,
            target_bytes_max=limits.target_bytes_max,
            header_count_max=limits.header_count_max,
        ),
        head_s_max=limits.head_s_max,
        idle_s_max=limits.idle_s_max,
        room=_room(limits),
        connect_s_max=settings.upstream.connect_timeout_s,
        lookup=None if resolver is None else resolver.addresses,
        static=static_addresses(dict(settings.upstream.resolve)),
        corporate=corporate,
        silence_s=settings.egress.silence_s,
        sealed=sealed_hosts(settings.egress.passthrough),
        pool=PoolLimits(
            connections_max=settings.pool.connections_max,
            per_host_max=settings.pool.per_host_max,
            idle_s_max=settings.pool.idle_s_max,
            age_s_max=settings.pool.age_s_max,
        ),
    )


def _room(limits: Limits) -> RoomLimits:
    """Take as many descriptors as may be had; say so where they allow fewer connections."""
    descriptors = raise_descriptors()
    wanted = RoomLimits(
        connections_max=limits.connections_max,
        agent_connections_max=limits.agent_connections_max,
    )
    room = room_within(wanted, descriptors)
    if room != wanted:
        log.warning(
            "%d open files allow %d connections, fewer than limits.connections_max; "
            "raise ulimit -n or LimitNOFILE",
            descriptors,
            room.connections_max,
        )
    return room


async def _frames(control: socket.socket) -> AsyncIterator[dict[str, object]]:
    loop = asyncio.get_running_loop()
    decoder = FrameDecoder()
    while data := await loop.sock_recv(control, _READ_BYTES):
        for frame in decoder.feed(data):
            yield frame


if __name__ == "__main__":
    main()
