"""What one peer may cost the aggregator: sizes, times and numbers, all in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from aesp_proxy.aggregator.ingest import IngestLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Limits of the HTTPS side; every wait has an end and every buffer a bound."""

    ingest: IngestLimits = field(default_factory=IngestLimits)
    connections_max: int = 4096
    handshake_s_max: float = 10.0
    headers_s_max: float = 10.0
    body_s_max: float = 30.0
    request_s_max: float = 60.0
    keep_alive_s_max: int = 75
    inflight_bytes_max: int = 256 * 1024 * 1024
    query_s_max: float = 5.0
    queries_max: int = 4
    shutdown_s_max: int = 5
    goodbye_s_max: float = 1.0
