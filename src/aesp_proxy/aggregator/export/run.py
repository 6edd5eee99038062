"""Run the exporters of a data directory: a thread a sink, so that none waits for another.

Rules: stores are opened by each thread for itself; a sink that is slow holds its own
thread and nothing else; a stop ends every wait at once; a thread that ends by an error
nobody expected ends the run, and whoever keeps the process starts it again.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import structlog

from aesp_proxy.aggregator.export.exporter import IDLE_S, Chance, Exporter
from aesp_proxy.aggregator.export.formats import FORMATS
from aesp_proxy.aggregator.export.sinks import open_sink
from aesp_proxy.aggregator.export.sinks.port import LaterError, Outgoing
from aesp_proxy.aggregator.stores import (
    open_exports,
    open_leases,
    open_ledger_reader,
    open_objects,
)
from aesp_proxy.errors import UnavailableError

if TYPE_CHECKING:
    from aesp_proxy.aggregator.export.event import ExportEvent
    from aesp_proxy.aggregator.export.settings import ExportSettings, SinkSettings
    from aesp_proxy.aggregator.identity import DataDir

TURN_S: Final = 3.0
"""How often it is tried to take over from an aggregator that has ended."""

log = structlog.get_logger(__name__)


class Patience:
    """Waits of several threads that one call ends."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._stopping = False
        self._wakes = 0

    @property
    def stopping(self) -> bool:
        """Whether everybody should end."""
        return self._stopping

    def stop(self) -> None:
        """End every wait, now and from now on."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()

    def wake(self) -> None:
        """End the waits of those that have nothing to do."""
        with self._condition:
            self._wakes += 1
            self._condition.notify_all()

    def idle(self, seconds: float) -> None:
        """Wait until woken, stopped or the time is over."""
        with self._condition:
            seen = self._wakes
            self._condition.wait_for(lambda: self._stopping or self._wakes != seen, seconds)

    def wait(self, seconds: float) -> None:
        """Wait that long; LaterError when stopped, so that nothing is waited for in vain."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopping, seconds)
        if self._stopping:
            raise LaterError("stopping")


class ExportRun:
    """All sinks of a data directory, from :meth:`start` to :meth:`stop`."""

    def __init__(self, data: DataDir, settings: ExportSettings) -> None:
        self._data = data
        self.patience = Patience()
        self.failed = False
        self._threads = [
            threading.Thread(target=self._run, args=(sink,), name=f"export-{sink.name}")
            for sink in settings.sinks
        ]

    def start(self) -> None:
        """Begin to deliver."""
        open_exports(self._data).close()  # made once, before threads race to
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the requests that are on their way."""
        self.patience.stop()
        for thread in self._threads:
            thread.join()

    def _run(self, settings: SinkSettings) -> None:
        patience = self.patience
        done = False
        try:
            while not patience.stopping:
                try:
                    self._take_turn(settings)
                except UnavailableError as error:  # the database; an exporter catches its own
                    log.warning("export_waits", sink=settings.name, error=str(error))
                    _wait_out(patience, TURN_S)
            done = True
        finally:
            if not done:
                self.failed = True
                patience.stop()

    def _take_turn(self, settings: SinkSettings) -> None:
        """Deliver while no other aggregator does, until stopped or the lease is lost."""
        leases = open_leases(self._data)
        lease = leases.take(_lease_name(settings))
        if lease is None:
            _wait_out(self.patience, TURN_S)
            return
        try:
            with ExitStack() as stack:
                exporter = open_exporter(stack, self._data, settings, self.patience)
                log.info("export_started", sink=settings.name, type=settings.type)
                while not self.patience.stopping and lease.held():
                    wait_s = exporter.step()
                    if wait_s == IDLE_S:
                        self.patience.idle(wait_s)
                    elif wait_s and not self.patience.stopping:
                        _wait_out(self.patience, wait_s)
        finally:
            lease.release()
            leases.close()


def _lease_name(settings: SinkSettings) -> str:
    return f"export:{settings.name}"


def _wait_out(patience: Patience, seconds: float) -> None:
    try:
        patience.wait(seconds)
    except UnavailableError:
        return  # stopping: the loop sees it


def open_exporter(
    stack: ExitStack, data: DataDir, settings: SinkSettings, patience: Patience
) -> Exporter:
    """Open what one sink needs, the caller having its lease; ``stack`` closes it."""
    objects = open_objects(data)
    stack.callback(objects.close)
    ledger = open_ledger_reader(data, objects)
    stack.callback(ledger.close)
    store = open_exports(data)
    stack.callback(store.close)
    store.take_turn(_lease_name(settings))
    sink = open_sink(settings, now_s=time.time, wait=patience.wait)
    stack.callback(sink.close)
    form = FORMATS[settings.format]

    def shape(event: ExportEvent) -> Outgoing:
        return Outgoing(event=event, body=form(event))

    return Exporter(
        settings,
        sink=sink,
        source=ledger,
        store=store,
        shape=shape,
        # Which exporter comes back when is no secret.
        chance=Chance(now_ns=time.time_ns, random=random.random),
    )


def deliver_all(data: DataDir, settings: ExportSettings) -> dict[str, bool]:
    """Deliver what is stored, once, sink after sink; say of each whether it is up to date.

    A sink that fails is left where it is: the next run goes on there.
    """
    reached: dict[str, bool] = {}
    for sink in settings.sinks:
        with ExitStack() as stack:
            leases = open_leases(data)
            stack.callback(leases.close)
            lease = leases.take(_lease_name(sink))
            if lease is None:
                raise UnavailableError("another aggregator delivers to it", where=sink.name)
            stack.callback(lease.release)
            exporter = open_exporter(stack, data, sink, Patience())
            wait_s = exporter.step()
            while wait_s == 0.0:
                wait_s = exporter.step()
            reached[sink.name] = wait_s == IDLE_S and not exporter.is_stopped
    return reached
