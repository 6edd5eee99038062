"""The regional process: make or load everything, serve until told to stop, leave nothing open.

The order, and why: identity first (a damaged key must stop the start before a
port opens), then the lock (one server per data directory), then the stores and
what a crash left in them, then the socket, then the writer and the indexer,
then "ready". It stops in the other order.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from aesp_proxy import keys
from aesp_proxy.aggregator.api import Parts, build_app
from aesp_proxy.aggregator.copying import check_may_serve
from aesp_proxy.aggregator.enrol_api import EnrolmentApi
from aesp_proxy.aggregator.export.settings import load_settings
from aesp_proxy.aggregator.identity import (
    DataDir,
    FileLock,
    ensure_server_certificate,
    load_receipt_key,
    prepare,
)
from aesp_proxy.aggregator.joining import keep_public_keys
from aesp_proxy.aggregator.limits import ServerLimits
from aesp_proxy.aggregator.local import StoreSearch
from aesp_proxy.aggregator.log.api import LogApi
from aesp_proxy.aggregator.log.keys import ensure_log_key, load_log_keys
from aesp_proxy.aggregator.log.publish import load_log_policy
from aesp_proxy.aggregator.metrics import Meter
from aesp_proxy.aggregator.metrics_listener import MetricsListener, bind_metrics
from aesp_proxy.aggregator.object_meter import MeteredObjects
from aesp_proxy.aggregator.process import collect_seldom
from aesp_proxy.aggregator.process_keeper import ProcessKeeper
from aesp_proxy.aggregator.read_api import ReadApi
from aesp_proxy.aggregator.serving import (
    TlsServer,
    allow_many_descriptors,
    bind,
    ignore_raised_signals,
    say_ready,
    server_context,
    url_of,
)
from aesp_proxy.aggregator.stores import open_control, open_ledger, open_objects, prepare_index
from aesp_proxy.aggregator.writer import Stores, Writer
from aesp_proxy.errors import ConfigError, InputError, UnavailableError
from aesp_proxy.forward.transport import ADDRESSES_MAX, parse_url
from aesp_proxy.model.host import parse_host

if TYPE_CHECKING:
    from collections.abc import Callable


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How to serve. ``names`` are the names and addresses hosts reach the server by.

    ``urls`` are where they reach all aggregators on its stores, this one among them.

    ``export`` is the settings file of sinks; default is ``export.yaml`` in ``data``,
    where it is there. ``metrics`` is where figures are given without a certificate, if so.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8443
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    ready_file: Path | None = None
    ready_fd: int | None = None
    limits: ServerLimits = field(default_factory=ServerLimits)
    export: Path | None = None
    metrics: tuple[str, int] | None = None


def serve(options: ServeOptions, *, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``announce`` is told the address when it accepts.

    ConfigError for what the operator must mend, UnavailableError when another
    server has this data directory.
    """
    check_may_serve(options.data)
    data = prepare(options.data, now=datetime.now(UTC))
    with ExitStack() as stack:
        lock = FileLock(data.serve_lock)
        if not lock.take():
            raise UnavailableError("another aggregator serves this directory", where=str(data.root))
        stack.callback(lock.release)
        names = _names(options)
        ensure_server_certificate(data, names, now=datetime.now(UTC))
        ensure_log_key(data)
        load_log_keys(data)
        load_log_policy(data)
        listener = bind(options.host, options.port)
        stack.callback(listener.close)
        url = url_of(names[0], listener.getsockname()[1])
        figures = bind_metrics(*options.metrics) if options.metrics else None
        export = _export_settings(options, data)
        meter = Meter()
        writer, parts = _open_parts(stack, data, options.limits, export, meter)
        keys.write_atomic(data.url, url.encode() + b"\n", mode=0o644)
        _keep_urls(options, data)
        server = TlsServer(
            build_app(parts),
            limits=options.limits,
            context=server_context(data),
            on_ready=lambda: _say_ready(options, url, announce),
            has_failed=lambda: writer.failed is not None,
        )
        if figures is not None:
            stack.callback(figures.close)
            _start_figures(
                stack,
                MetricsListener(
                    figures,
                    data=data,
                    meter=meter,
                    is_ready=lambda: server.started and writer.failed is None,
                    limits=options.limits,
                ),
            )
        ignore_raised_signals()
        allow_many_descriptors()
        collect_seldom()
        server.run(sockets=[listener])
        if writer.failed is not None:
            raise UnavailableError("the writer has ended", remedy="see the log and restart")


def _start_figures(stack: ExitStack, listener: MetricsListener) -> None:
    listener.start()
    stack.callback(listener.stop)
    log.info("metrics_listening", url=listener.url)


def _keep_urls(options: ServeOptions, data: DataDir) -> None:
    """Keep what hosts are told of the other aggregators. ConfigError for what is no URL."""
    if len(options.urls) > ADDRESSES_MAX:
        raise ConfigError(f"there are more than {ADDRESSES_MAX}", where="--url")
    for url in options.urls:
        parse_url(url, "--url", remedy="give https://NAME:PORT")
    if not options.urls:
        data.urls.unlink(missing_ok=True)
        return
    lines = "".join(f"{url.rstrip('/')}\n" for url in dict.fromkeys(options.urls))
    keys.write_atomic(data.urls, lines.encode(), mode=0o644)


def _export_settings(options: ServeOptions, data: DataDir) -> Path | None:
    """Return the checked settings file of the sinks, None when nothing is exported."""
    if options.export is None and not data.export_settings.is_file():
        return None
    path = (options.export or data.export_settings).absolute()
    load_settings(path, environment=os.environ)
    return path


def _keepers(stack: ExitStack, data: DataDir, export: Path | None) -> list[ProcessKeeper]:
    """Make the keepers of the processes beside the server; ``stack`` stops them."""
    place = ("--data", str(data.root))
    keepers = [
        ProcessKeeper("aesp_proxy.aggregator.index_process", place),
        ProcessKeeper("aesp_proxy.aggregator.log.process", place),
    ]
    if export is not None:
        module = "aesp_proxy.aggregator.export.process"
        keepers.append(ProcessKeeper(module, (*place, "--settings", str(export))))
    for keeper in keepers:
        stack.callback(keeper.stop)
    return keepers


def _wake_all(keepers: list[ProcessKeeper]) -> None:
    for keeper in keepers:
        keeper.wake()


def _open_parts(
    stack: ExitStack, data: DataDir, limits: ServerLimits, export: Path | None, meter: Meter
) -> tuple[Writer, Parts]:
    """Open the stores, mend what a crash left, and start writer, indexer and exporter."""
    objects = MeteredObjects(open_objects(data), meter)
    stack.callback(objects.close)
    objects.check()
    ledger = open_ledger(data, objects)
    stack.callback(ledger.close)
    # Two connections: the writer's thread has one, the event loop the other.
    control, control_of_loop = open_control(data), open_control(data)
    stack.callback(control.close)
    stack.callback(control_of_loop.close)
    removed = ledger.remove_unpromised([origin.name for origin in control.origins()])
    if removed:
        log.warning("unpromised_files_removed", files=removed)
    if control.is_remote:
        keep_public_keys(data)
    prepare_index(data)
    keepers = _keepers(stack, data, export)
    receipt_key = load_receipt_key(data)
    writer = Writer(
        Stores(ledger=ledger, control=control, objects=objects),
        receipt_key=receipt_key,
        limits=limits.ingest,
        now_ns=time.time_ns,
        on_stored=lambda: _wake_all(keepers),
        meter=meter,
    )
    for keeper in keepers:
        keeper.start()
    writer.start()
    stack.callback(writer.stop)
    search = StoreSearch(data, objects, query_s_max=limits.query_s_max)
    enrolment = EnrolmentApi(data=data, receipt_key=receipt_key, limits=limits, now_ns=time.time_ns)
    reading = ReadApi(
        data=data, search=search, control=control_of_loop, meter=meter, now_ns=time.time_ns
    )
    log_api = LogApi(
        data=data,
        objects=objects,
        control=control_of_loop,
        receipt_key=receipt_key,
        now_ns=time.time_ns,
    )
    parts = Parts(
        sink=writer,
        search=search,
        control=control_of_loop,
        receipt_key=receipt_key,
        limits=limits,
        now_ns=time.time_ns,
        more_routes=(*enrolment.routes(), *reading.routes(), *log_api.routes()),
    )
    return writer, parts


def _names(options: ServeOptions) -> tuple[str, ...]:
    """Return the names of the server certificate; the first is the one handed to hosts."""
    for name in options.names:
        try:
            parse_host(f"[{name}]" if ":" in name else name)
        except InputError as error:
            raise ConfigError(
                f"{name!r} is no host name or address", where="--name", remedy="one a --name"
            ) from error
    if options.names:
        return tuple(dict.fromkeys(options.names))
    if options.host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        raise ConfigError(
            f"{options.host} is no name that hosts can reach",
            where="--listen",
            remedy="add --name with the name or address they use",
        )
    return tuple(dict.fromkeys((options.host, "localhost")))


def _say_ready(options: ServeOptions, url: str, announce: Callable[[str], None]) -> None:
    say_ready(url, file=options.ready_file, descriptor=options.ready_fd)
    announce(url)
