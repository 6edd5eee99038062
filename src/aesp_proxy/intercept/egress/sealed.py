"""Hosts whose TLS the operator has passed through: their clients pin certificates.

The list says whose TLS is left on, never who may be reached: the policy decides that, and
what it says of requests cannot hold there.
"""

from __future__ import annotations

from typing import Final

from aesp_proxy.decide.policy.hosts import HostIndex, parse_host_rule
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError

_WHERE: Final = "egress.passthrough"


def sealed_hosts(entries: str) -> HostIndex:
    """Read hosts separated by commas; an entry without a port speaks of every port.

    Raises ``ConfigError`` for what is no host, for ``*`` (then nothing would be read), and
    for addresses, which no server name can say.
    """
    rules = []
    for text in filter(None, map(str.strip, entries.split(","))):
        rule = parse_host_rule(Sourced(text, _WHERE))
        if not (rule.name or rule.suffix or rule.labels):
            raise ConfigError(
                f"{text[:80]!r} names no host", where=_WHERE, remedy="write host or *.host"
            )
        rules.append(rule)
    return HostIndex(rules, ports_without=None, any_is_address=False)


NOTHING_SEALED: Final = sealed_hosts("")
