"""The one resolver: static names, the cache, upstream; for the agent and for the dialler.

It knows no policy. Whoever asks has decided before, and has the addresses checked after.
What the agent was answered is never used to dial: the dialler asks here by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from aesp_proxy.errors import UnavailableError
from aesp_proxy.intercept.resolver.cache import Cache, CacheLimits, Key
from aesp_proxy.normalize.dns import RecordType
from aesp_proxy.normalize.dns_answer import Resolved

if TYPE_CHECKING:
    from aesp_proxy.intercept.resolver.upstream import Upstreams

STATIC_TTL_S: Final = 60
_VERSIONS: Final[Mapping[int, int]] = {RecordType.A: 4, RecordType.AAAA: 6}
_LOOPBACK: Final = (ip_address("127.0.0.1"), ip_address("::1"))

Address = IPv4Address | IPv6Address


def is_local(name: str) -> bool:
    """Tell whether a name is of this machine, whoever asks (RFC 6761 section 6.3)."""
    return name == "localhost" or name.endswith(".localhost")


def _of_type(addresses: Sequence[Address], record_type: int) -> Resolved:
    version = _VERSIONS.get(record_type, 0)
    mine = tuple(each for each in addresses if each.version == version)
    rdatas = tuple(each.packed for each in mine)
    return Resolved(exists=True, ttl_s=STATIC_TTL_S, rdatas=rdatas, addresses=mine)


class Resolver:
    """Answers for names. ``clock`` is in seconds and only rises.

    ``static`` are the operator's addresses by canonical name; ``search`` the domains that
    a name of one label is looked for in, in order.
    """

    def __init__(
        self,
        *,
        upstreams: Upstreams,
        static: Mapping[str, Sequence[Address]],
        search: Sequence[str],
        cache: CacheLimits,
        clock: Callable[[], float],
    ) -> None:
        self._upstreams = upstreams
        self._static = {name: tuple(addresses) for name, addresses in static.items()}
        self._search = tuple(search)
        self._cache = Cache(cache)
        self.clock = clock
        self._asked: dict[Key, asyncio.Task[Resolved]] = {}

    def fixed(self, name: str, record_type: int) -> Resolved | None:
        """Return what the operator has set for a name, None where nothing."""
        addresses = self._static.get(name)
        return None if addresses is None else _of_type(addresses, record_type)

    async def lookup(self, name: str, record_type: int) -> Resolved:
        """Return what a name has of one type; ``UnavailableError`` where nobody says."""
        if is_local(name):
            return _of_type(_LOOPBACK, record_type)
        found = Resolved(exists=False, ttl_s=0)
        for full in self._spelled(name):
            found = await self._shared(full, record_type)
            if found.exists:
                break
        return found

    async def addresses(self, name: str) -> tuple[Address, ...]:
        """Return all addresses of a name, IPv6 first; ``UnavailableError`` where it has none.

        One family may fail where the other answers. Both are asked at once.
        """
        asked = (self.lookup(name, kind) for kind in (RecordType.AAAA, RecordType.A))
        both = await asyncio.gather(*asked, return_exceptions=True)
        failure: BaseException | None = None
        found: list[Address] = []
        for each in both:
            if isinstance(each, BaseException):
                failure = each
            else:
                found.extend(each.addresses)
        if found:
            return tuple(dict.fromkeys(found))
        if failure is not None:
            raise failure
        raise UnavailableError(f"cannot resolve {name}: it has no address")

    def _spelled(self, name: str) -> tuple[str, ...]:
        if "." in name or not self._search:
            return (name,)
        return tuple(f"{name}.{domain}" for domain in self._search)

    async def _shared(self, name: str, record_type: int) -> Resolved:
        """Look into the cache; else ask, once for all who want to know at the same time."""
        key = (name, record_type)
        known = self._cache.find(key, self.clock())
        if known is not None:
            return known
        task = self._asked.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(key))
            self._asked[key] = task
            task.add_done_callback(lambda done: self._answered(key, done))
        # Whoever goes away must not take the answer from the others.
        return await asyncio.shield(task)

    async def _ask(self, key: Key) -> Resolved:
        found = await self._upstreams.ask(*key)
        return self._cache.keep(key, found, self.clock())

    def _answered(self, key: Key, task: asyncio.Task[Resolved]) -> None:
        self._asked.pop(key, None)
        if not task.cancelled():
            task.exception()  # a failure that nobody waits for any more is no news

    def close(self) -> None:
        """Stop asking."""
        for task in list(self._asked.values()):
            task.cancel()
