"""One query of the agent, from its bytes to the bytes of the answer.

Rate, parsing, policy, lookup, check of every address, record, and only then the answer.
What is refused is answered NXDOMAIN with the reason beside it (RFC 8914), so that a
client fails at once: to REFUSED, glibc asks every server again and musl waits for its
time-out. What failed is SERVFAIL, which clients try again.

HTTPS and SVCB records are never told, nor asked for: they carry ECH keys, which would hide
the inner name, and alternative end points (row 2 of the threats). Reverse lookups are
answered from what was told before. Neither these nor localhost leave this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from aesp_proxy.act.denial import Denial
from aesp_proxy.errors import InputError, UnavailableError
from aesp_proxy.intercept.names import KEEP_S_MAX, Names
from aesp_proxy.intercept.port import Exchange
from aesp_proxy.intercept.resolver.rate import QueryRate
from aesp_proxy.intercept.resolver.resolver import Resolver, is_local
from aesp_proxy.intercept.resolver.stand_ins import StandIns
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.host import Host
from aesp_proxy.model.principal import Principal
from aesp_proxy.model.record import Ending
from aesp_proxy.normalize.dns import (
    Question,
    Rcode,
    RecordType,
    answer,
    failure_answer,
    malformed_answer,
    name_rdata,
    read_query,
    refusal,
    reversed_address,
)
from aesp_proxy.normalize.dns_answer import Resolved

ADDRESS_TYPES: Final = frozenset({RecordType.A, RecordType.AAAA})
_WITHHELD: Final = frozenset({RecordType.HTTPS, RecordType.SVCB})
_LATER: Final = frozenset({Reason.RECORD_FAILED, Reason.ENGINE_FAILED, Reason.GUARD_FAILED})
_REVERSE_TTL_S: Final = 5
_SHOWN_MAX: Final = 8
_STREAM_BYTES_MAX: Final = 65_535


class DnsGate(Protocol):
    """The pipeline, as the resolver sees it."""

    def principal(self, source_ip: str) -> Principal:
        """Say who is behind an address."""

    def query(self, principal: Principal, host: Host, record_type: str) -> Exchange:
        """Decide whether a name may be asked for."""

    def query_refused(self, principal: Principal, reason: Reason, message: str) -> Denial:
        """Refuse a query, or many, of which no name can be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Bounds of what the agent may ask; ``types`` are answered besides addresses."""

    queries_per_s_max: int = 100
    burst_s: float = 5.0
    in_flight_max: int = 256
    connections_max: int = 64
    idle_s_max: float = 10.0
    types: frozenset[int] = frozenset()


class DnsInterceptor:
    """Answers queries. ``clock`` is in seconds and only rises."""

    def __init__(
        self,
        *,
        gate: DnsGate,
        resolver: Resolver,
        names: Names,
        limits: ServerLimits,
        clock: Callable[[], float],
        stand_ins: StandIns | None = None,
    ) -> None:
        self._gate = gate
        self._resolver = resolver
        self._names = names
        self._stand_ins = stand_ins or StandIns()
        self.limits = limits
        self._types = ADDRESS_TYPES | limits.types
        self._clock = clock
        self._rate = QueryRate(limits.queries_per_s_max, burst_s=limits.burst_s, now=clock())
        self._in_flight = 0

    async def answer(self, data: bytes, source_ip: str, *, stream: bool) -> bytes:
        """Return the answer to a query's bytes; empty where there is none to give."""
        principal = self._gate.principal(source_ip)
        if self._is_over(principal):
            return failure_answer(data)
        self._in_flight += 1
        try:
            return await self._answered(read_query(data), principal, stream=stream)
        except InputError as error:
            self._gate.query_refused(principal, Reason.MALFORMED, str(error))
            return malformed_answer(data)
        except Exception as failure:  # noqa: BLE001 - net 4: an interceptor that fails denies
            text = f"the resolver failed: {type(failure).__name__}"
            self._gate.query_refused(principal, Reason.INTERCEPTOR_FAILED, text)
            return failure_answer(data)
        finally:
            self._in_flight -= 1

    def _is_over(self, principal: Principal) -> bool:
        limits, now = self.limits, self._clock()
        over = self._in_flight >= limits.in_flight_max
        if over:
            self._rate.leave()
        elif self._rate.takes(now):
            return False
        count = self._rate.untold(now)
        if count:
            text = (
                f"{count} DNS queries were not looked at: more than {limits.queries_per_s_max}"
                f" in a second, or {limits.in_flight_max} at once"
            )
            self._gate.query_refused(principal, Reason.LIMIT_EXCEEDED, text)
        return True

    async def _answered(self, question: Question, principal: Principal, *, stream: bool) -> bytes:
        if question.type == RecordType.PTR:
            return self._reverse(question)
        name = question.host.name
        if is_local(name):
            return _told(question, await self._resolver.lookup(name, question.type), stream=stream)
        exchange = self._gate.query(principal, question.host, question.type_word)
        denial = exchange.denial
        if denial is None and question.type in _WITHHELD:
            exchange.end(Ending(detail=f"{question.type_word} records are withheld"))
            return answer(question, (), ttl_s=0)
        if denial is None and question.type not in self._types:
            text = f"{question.type_word} records are not asked for (resolver.types)"
            denial = exchange.refuse(Reason.UNSUPPORTED, text)
            return refusal(question, Rcode.REFUSED, _why(denial))
        if denial is not None:
            return _refused(question, denial)
        return await self._looked_up(question, exchange, stream=stream)

    async def _looked_up(self, question: Question, exchange: Exchange, *, stream: bool) -> bytes:
        name = question.host.name
        found = self._resolver.fixed(name, question.type)
        if found is None:
            try:
                found = await self._resolver.lookup(name, question.type)
            except UnavailableError as error:
                exchange.fail(Ending(reason=Reason.UPSTREAM_FAILED, detail=str(error)))
                return refusal(question, Rcode.SERVFAIL)
            if found.addresses:
                denial = exchange.connecting(question.host, found.addresses)
                if denial is not None:
                    return _refused(question, denial)
        told = self._stand_ins.told(name, found)
        ttl_s = found.ttl_s if told is found else KEEP_S_MAX
        self._names.remember(name, told.addresses, ttl_s=ttl_s, now=self._clock())
        exchange.end(Ending(detail=_shown(found)))
        return _told(question, told, stream=stream)

    def _reverse(self, question: Question) -> bytes:
        """Answer a reverse lookup by the newest name that was answered with the address."""
        address = reversed_address(question.host.name)
        names = () if address is None else self._names.of(address, now=self._clock())
        if not names:
            return refusal(question, Rcode.NXDOMAIN)
        return answer(question, [name_rdata(names[0])], ttl_s=_REVERSE_TTL_S)


def _told(question: Question, found: Resolved, *, stream: bool) -> bytes:
    if not found.exists:
        return refusal(question, Rcode.NXDOMAIN)
    bytes_max = _STREAM_BYTES_MAX if stream else None
    return answer(question, found.rdatas, ttl_s=found.ttl_s, bytes_max=bytes_max)


def _shown(found: Resolved) -> str:
    """Say in a record what was answered."""
    if not found.exists:
        return "no such name"
    if not found.rdatas:
        return "no such record"
    if not found.addresses:
        return f"{len(found.rdatas)} records"
    shown = ", ".join(map(str, found.addresses[:_SHOWN_MAX]))
    more = len(found.addresses) - _SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def _refused(question: Question, denial: Denial) -> bytes:
    later = denial.decision.reason in _LATER
    return refusal(question, Rcode.SERVFAIL if later else Rcode.NXDOMAIN, _why(denial))


def _why(denial: Denial) -> str:
    return f"{denial.decision.reason.value}: {denial.decision.message}"
