"""PostgreSQL beside our stores: a row an event with five indexes, and our ledger on it.

Both count the CPU of this process and of the server's process that serves it; what the
server's own writers do in the background is not counted, for either. The server is
Debian's, with ``fsync`` on, started for the measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from tests.plugins.postgresql_lab import BIN, Cluster, running_cluster

from aesp_proxy.record.batch import decode_batch, open_body
from aesp_proxy.record.canonical import POSITION, decode_row
from aesp_proxy.record.header import decode_header

if TYPE_CHECKING:
    from benchmarks.harness import Figures

IS_HERE = BIN is not None
INDEXED = ("time_ns", "agent_id", "target_host", "verdict", "session_id")
NAMES = (*INDEXED, "reason", "guard", "action", "origin", "tenant_id", "resource", "status")
_NUMBERS = {"time_ns", "status", "epoch", "seq"}


def cpu_ns(pid: int) -> int:
    """Return what a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 10_000_000  # ticks of 10 ms


def backends(cluster: Cluster) -> list[int]:
    """Return the server's processes that serve our stores."""
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'aesp-proxy'"
    return [row[0] for row in cluster.execute(sql)]


def per_event(work: Callable[[], int], pids: Sequence[int]) -> Figures:
    """Run ``work``, which returns how many events it did; CPU here and of ``pids``, and time."""
    begun_s, here_ns, there_ns = time.monotonic(), time.process_time_ns(), sum(map(cpu_ns, pids))
    events = work()
    spent_ns = time.process_time_ns() - here_ns + sum(map(cpu_ns, pids)) - there_ns
    return {
        "ns_per_event": spent_ns / events,
        "events_per_s_core": events / spent_ns * 1e9,
        "events_per_s": events / (time.monotonic() - begun_s),
    }


@contextmanager
def database() -> Iterator[tuple[Cluster, str]]:
    """Give a running server and the address of an empty database."""
    with running_cluster() as cluster:
        yield cluster, cluster.new_database()


def rows_measured(sample: tuple[bytes, ...]) -> Figures:
    """Take the peer's way: a row an event, five btree indexes, binary COPY, a batch a commit."""
    names = (*NAMES, "epoch", "seq")
    kinds = [("int8" if name in _NUMBERS else "text") for name in names]
    places = [POSITION[name] for name in NAMES]
    with database() as (_, url), psycopg.connect(url, autocommit=True) as connection:
        columns = ", ".join(f'"{name}" {kind}' for name, kind in zip(names, kinds, strict=True))
        connection.execute(f"CREATE TABLE events ({columns})".encode())
        for name in INDEXED:
            connection.execute(f'CREATE INDEX ON events ("{name}", time_ns)'.encode())

        def work() -> int:
            count = 0
            for data in sample:
                batch = decode_batch(data)
                header = decode_header(batch.header_bytes)
                rows = open_body(header, batch.body, inflated_bytes_max=1 << 26, rows_max=1 << 20)
                cursor = connection.cursor()
                with cursor.copy("COPY events FROM STDIN (FORMAT BINARY)") as copy:
                    copy.set_types(kinds)
                    for row in map(decode_row, rows):
                        copy.write_row([*(row[place] for place in places), row[1], row[2]])
                count += len(rows)
            return count

        figures = per_event(work, [connection.info.backend_pid])
        size: Any = connection.execute("SELECT pg_total_relation_size('events')").fetchone()
        count: Any = connection.execute("SELECT count(*) FROM events").fetchone()
        return figures | {"bytes_per_event": size[0] / count[0]}
