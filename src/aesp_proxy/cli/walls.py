"""Wall a command in before it starts, or say exactly what this machine does not let us do.

Every layer is tried for real, around the very process that the command will be; what
did not stand is known from the attempt. Without those that matter ``run`` goes on only
when the operator says so (``isolation.mode: degraded``), and then with what works.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.config import Listen, Settings
from aesp_proxy.daemon.config_values import WHY_VARIABLE
from aesp_proxy.daemon.denials import Door
from aesp_proxy.daemon.listener import bind
from aesp_proxy.errors import ConfigError
from aesp_proxy.launch.child import Child, Prepared
from aesp_proxy.launch.environment import ProxyAddress
from aesp_proxy.launch.isolation.descriptors import ways_out
from aesp_proxy.launch.isolation.layers import EVERYTHING, Layer, Report, remedy
from aesp_proxy.launch.isolation.listeners import EXPLICIT_PORT, Kind, why_port
from aesp_proxy.launch.isolation.wish import Wish

# Without a network of its own there is nothing more to say of these.
_OF_THE_NETWORK: Final = frozenset({Layer.EVERY_PORT, Layer.RESOLVER})
_TOKEN_BYTES: Final = 16
Environment = Callable[[ProxyAddress], dict[str, str]]
# What the worker listens on besides, and the option by which it is told.
_OPTIONS: Final = {
    Kind.TRANSPARENT: "--transparent-fd",
    Kind.DNS_UDP: "--dns-udp-fd",
    Kind.DNS_TCP: "--dns-tcp-fd",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Walled:
    """A command that waits inside, the proxy's sockets, and what is not enforced.

    ``door`` is where it asks why it was refused. ``open`` has a line for every layer that
    does not stand, ``missing`` for those alone without which ``run`` would not have
    started. ``descriptors`` are for the file guard of ``backend``, which is empty where
    nothing decides accesses to files.
    """

    child: Child
    listener: socket.socket
    door: Door
    more: tuple[tuple[str, socket.socket], ...] = ()
    descriptors: tuple[tuple[Kind, int], ...] = ()
    backend: str = ""
    open: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def close(self) -> None:
        """End the command that waits, and close the sockets."""
        self.child.discard()
        for each in (self.listener, self.door.listener, *(sock for _, sock in self.more)):
            each.close()
        for _, descriptor in self.descriptors:
            os.close(descriptor)


def wall_in(
    settings: Settings,
    command: Sequence[str],
    environment: Environment,
    view: Path,
    backends: Sequence[str] = (),
) -> Walled:
    """Prepare ``command`` inside all that this machine has; ``view`` is a list of ``view_for``.

    Of ``backends`` for files, strictest first, the first that stands is taken; one that
    the settings name is never gone without.

    ConfigError when something that matters does not stand and the settings do not allow
    to go on without.
    """
    _check_standard_descriptors()
    tried: dict[str, str] = {}
    for backend in backends:
        walled, report = _walled(settings, command, environment, view, Layer(backend))
        if walled is not None:
            return walled
        tried[backend] = report.why(Layer(backend))
    if tried and settings.files.backend != "auto":
        raise _no_backend(*next(iter(tried.items())))
    walled, report = _walled(settings, command, environment, view, None)
    if walled is None:
        raise _cannot(report)
    why = "; ".join(f"{backend}: {reason}" for backend, reason in tried.items())
    files = (f"files: {_FILES_OPEN} ({why})",) if tried else ()
    return replace(walled, open=(*walled.open, *files), missing=(*walled.missing, *files))


def _walled(
    settings: Settings,
    command: Sequence[str],
    environment: Environment,
    view: Path,
    files: Layer | None,
) -> tuple[Walled | None, Report]:
    """Wall it in with one backend for files; None, and why, where that does not stand."""
    more = () if files is None else (files,)
    inside = ProxyAddress(host=settings.listen.host, port=settings.listen.port or EXPLICIT_PORT)
    token = secrets.token_hex(_TOKEN_BYTES)
    asks = ProxyAddress(host=inside.host, port=why_port(inside.port))
    wish = Wish(
        layers=(*EVERYTHING, *more),
        host=inside.host,
        port=inside.port,
        transparent=True,
        dns=True,
        view=str(view),
        why=True,
    )
    child = Child(command, environment(inside) | _asking(asks, token), wish)
    prepared = child.prepare()
    report = prepared.report
    if report.missing() and settings.isolation.mode != "degraded":
        _discard(child, prepared)
        raise _cannot(report)
    if not report.stands(Layer.NETWORK):
        _discard(child, prepared)
        return _without_network(settings, command, environment, view, files, report)
    if files is not None and not report.stands(files):
        _discard(child, prepared)
        return None, report
    walled = Walled(
        child=child,
        listener=prepared.of(Kind.EXPLICIT)[0],
        door=Door(prepared.of(Kind.WHY)[0], token),
        more=tuple((_OPTIONS[kind], sock) for kind, sock in prepared.listeners if kind in _OPTIONS),
        descriptors=prepared.descriptors,
        backend=files or "",
        open=tuple(report.not_enforced(EVERYTHING)),
        missing=tuple(report.not_enforced(report.missing())),
    )
    return walled, report


def _without_network(
    settings: Settings,
    command: Sequence[str],
    environment: Environment,
    view: Path,
    files: Layer | None,
    tried: Report,
) -> tuple[Walled | None, Report]:
    """Listen on the host's loopback, and wall in what can be."""
    listener, asked = bind(settings), bind(replace(settings, listen=_any_port(settings)))
    host, port = listener.getsockname()[:2]
    token, asks = secrets.token_hex(_TOKEN_BYTES), asked.getsockname()[1]
    without = _OF_THE_NETWORK | {Layer.NETWORK}
    wanted = EVERYTHING if files is None else (*EVERYTHING, files)
    layers = tuple(each for each in wanted if each not in without)
    wish = Wish(layers=layers, only_ports=(port, asks), view=str(view))
    proxy, door = ProxyAddress(host=host, port=port), ProxyAddress(host=host, port=asks)
    child = Child(command, environment(proxy) | _asking(door, token), wish)
    try:
        prepared = child.prepare()
    except BaseException:
        listener.close()
        asked.close()
        raise
    outcomes = {**prepared.report.outcomes, Layer.NETWORK: tried.outcomes.get(Layer.NETWORK, 1)}
    report = Report(outcomes)
    if files is not None and not report.stands(files):
        listener.close()
        asked.close()
        _discard(child, prepared)
        return None, report
    walled = Walled(
        child=child,
        listener=listener,
        door=Door(asked, token),
        descriptors=prepared.descriptors,
        backend=files or "",
        open=tuple(report.not_enforced(frozenset(EVERYTHING) - _OF_THE_NETWORK)),
        missing=tuple(report.not_enforced(report.missing())),
    )
    return walled, report


def _asking(door: ProxyAddress, token: str) -> dict[str, str]:
    """Tell the command where it may ask why it was refused."""
    return {WHY_VARIABLE: f"{door.host} {door.port} {token}"}


def _any_port(settings: Settings) -> Listen:
    return replace(settings.listen, port=0)


_NEEDS: Final = {
    "stage": "mount namespaces, and overlayfs with the state directory on ext4, XFS, Btrfs or "
    "tmpfs",
    "fuse": "mount namespaces, and a /dev/fuse that may be opened",
    "notify": "seccomp with user notification (Linux 5.9)",
}
_FILES_OPEN: Final = "files are as they are, and what the policy says of them is not enforced"


def _no_backend(backend: str, why: str) -> ConfigError:
    return ConfigError(
        f"cannot guard files by {backend} here: {why}",
        where="files.backend",
        remedy=f"{_NEEDS[backend]}; `aesp-proxy doctor` says what this machine has",
    )


def _discard(child: Child, prepared: Prepared) -> None:
    child.discard()
    prepared.close()


def _cannot(report: Report) -> ConfigError:
    missing = "; ".join(report.not_enforced(report.missing()))
    return ConfigError(
        f"cannot isolate the command here: {missing}",
        remedy=remedy(report, is_root=os.geteuid() == 0),
    )


def _check_standard_descriptors() -> None:
    if numbers := ways_out():
        raise ConfigError(
            f"descriptor {', '.join(map(str, numbers))} is a network socket, through which the "
            "command could leave",
            where="standard input and output",
            remedy="put a pipe between, as in `cat | aesp-proxy run ... | cat`",
        )
