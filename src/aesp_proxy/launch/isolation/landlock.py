"""Landlock: signals and abstract sockets do not leave the agent's own processes.

landlock(7). The newest interface that the kernel has is found at run time. A second wall
behind the namespaces; where there is no network namespace it is the first one, and then
TCP may be connected to the ports of the proxy and of the run only.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from typing import Final

from aesp_proxy.launch.isolation import kernel

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1
_RULE_NET_PORT: Final = 2
_CONNECT_TCP: Final = 2
# LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and LANDLOCK_SCOPE_SIGNAL
_SCOPES: Final = 3
_ABI_NETWORK: Final = 4
_ABI_SCOPES: Final = 6


def enforce(*, only_ports: Sequence[int] = ()) -> None:
    """Enter a domain of its own; with ``only_ports``, TCP may be connected to those only.

    Needs no_new_privs. OSError (ENOSYS, EOPNOTSUPP) where the kernel has none of it.
    """
    version = kernel.syscall(_CREATE_RULESET, None, 0, _VERSION)
    has_ports = bool(only_ports) and version >= _ABI_NETWORK
    if version < _ABI_SCOPES and not has_ports:
        raise OSError(errno.EOPNOTSUPP, f"Landlock here is version {version}")
    words = [0, _CONNECT_TCP if has_ports else 0]
    if version >= _ABI_SCOPES:
        words.append(_SCOPES)
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = kernel.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for port in only_ports if has_ports else ():
            rule = struct.pack("=QQ", _CONNECT_TCP, port)
            kernel.syscall(_ADD_RULE, ruleset, _RULE_NET_PORT, rule, 0)
        kernel.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
