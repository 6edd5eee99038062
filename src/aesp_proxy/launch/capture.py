"""The process that keeps the rules of a capture, with CAP_NET_ADMIN and no other privilege.

Either the daemon starts it (``main``), or a service manager beside the daemon
(``keep_as_service``). What happens to the rules goes to the daemon, one JSON object a line;
an order of the daemon's is a line too: ``release`` takes the rules away. At the end of the
file the daemon is gone, and the rules stay.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from aesp_proxy.errors import AespError, ConfigError
from aesp_proxy.intercept.capture.keeper import Keeper, News
from aesp_proxy.intercept.capture.watch import Watch
from aesp_proxy.intercept.capture.wish import Wish, read_wish
from aesp_proxy.launch.isolation.capabilities import CAP_NET_ADMIN, give_up_all_but

RELEASE: Final = b"release\n"
_EXIT_CONFIG, _EXIT_RUNTIME = 3, 4
_ORDER_BYTES: Final = 64
_WAITING_MAX: Final = 100
_LINK_S: Final = 1.0


def frame(news: News) -> bytes:
    """Return news as the daemon takes them."""
    return json.dumps({"type": "news", "holds": news.holds, **asdict(news)}).encode() + b"\n"


def failure(error: AespError) -> bytes:
    """Return why it ends, as the daemon takes it."""
    code = _EXIT_CONFIG if isinstance(error, ConfigError) else _EXIT_RUNTIME
    return json.dumps({"type": "failed", "exit_code": code, "message": str(error)}).encode() + b"\n"


# started by the daemon ------------------------------------------------------------------


def main() -> None:
    """Keep the rules until the daemon says otherwise, or is gone."""
    parser = ArgumentParser(prog="aesp_proxy.launch.capture")
    parser.add_argument("--report-fd", type=int, required=True)
    parser.add_argument("--wish", type=read_wish, required=True)
    arguments = parser.parse_args()
    # The terminal's signals are the daemon's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=arguments.report_fd) as daemon:
        try:
            _keep_for(daemon, arguments.wish)
        except AespError as error:
            daemon.sendall(failure(error))
            sys.exit(_EXIT_CONFIG if isinstance(error, ConfigError) else _EXIT_RUNTIME)


def _keep_for(daemon: socket.socket, wish: Wish) -> None:
    give_up_privileges()
    keeper = Keeper(wish, lambda news: daemon.sendall(frame(news)))
    with Watch(wish.named) as watch:
        keeper.start()
        while True:
            at_names, ready = watch.wait([daemon.fileno()], pause_s=keeper.pause_s)
            if ready:
                if daemon.recv(_ORDER_BYTES) == RELEASE:
                    keeper.release()
                return
            keeper.look(at_names=at_names)


def give_up_privileges() -> None:
    """Keep CAP_NET_ADMIN alone; ConfigError where it is not there."""
    try:
        give_up_all_but(CAP_NET_ADMIN)
    except OSError as error:
        raise ConfigError(
            "packet rules cannot be made without CAP_NET_ADMIN",
            where="capture",
            remedy="start it as root, or let a service keep them: capture.rules=service",
        ) from error


# a service of its own -------------------------------------------------------------------


class _Link:
    """The way to a daemon that may not be there; what it has not heard waits."""

    def __init__(self, path: Path, notice: Callable[[str], None]) -> None:
        self._path, self._notice = path, notice
        self._is_shut = False
        self._waiting: deque[bytes] = deque(maxlen=_WAITING_MAX)
        self._last = b""
        self.sock: socket.socket | None = None

    def tell(self, news: News) -> None:
        """Tell it now, or when it is there."""
        self._last = frame(news)
        self._waiting.append(self._last)
        self.flush()

    def flush(self) -> None:
        """Connect if need be, and tell what waits."""
        if self.sock is None:
            self._connect()
        while self.sock is not None and self._waiting:
            try:
                self.sock.sendall(self._waiting[0])
                self._waiting.popleft()
            except OSError:
                self.lose()

    def lose(self) -> None:
        """It is gone: the next one is told the last news again."""
        if self.sock is not None:
            self.sock.close()
        self.sock = None
        if not self._waiting:
            self._waiting.append(self._last)

    def _connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(_LINK_S)
        try:
            sock.connect(str(self._path))
        except OSError as error:
            sock.close()
            if isinstance(error, PermissionError) and not self._is_shut:
                self._is_shut = True
                self._notice(
                    f"{self._path}: the daemon cannot be told: {error.strerror} "
                    "(run this as the daemon's user, with CAP_NET_ADMIN)"
                )
        else:
            self.sock, self._is_shut = sock, False


def keep_as_service(
    wish: Wish,
    daemon: Path,
    *,
    told: Callable[[News], None],
    notice: Callable[[str], None],
    alive: Callable[[], None],
) -> None:
    """Keep the rules until SIGTERM or SIGINT; then they go if the wish says so, else stay.

    ``daemon`` is the socket of the daemon to be told. ``told`` takes the news too, and
    ``notice`` a line for the operator; ``alive`` is called at least every few seconds.
    AespError where it cannot begin.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    link = _Link(daemon, notice)

    def tell(news: News) -> None:
        told(news)
        link.tell(news)

    try:
        give_up_privileges()
        with Watch(wish.named) as watch:
            _keep_until(reader, Keeper(wish, tell), watch, link, alive)
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def _keep_until(
    stop: int, keeper: Keeper, watch: Watch, link: _Link, alive: Callable[[], None]
) -> None:
    keeper.start()
    while True:
        alive()
        linked = [link.sock.fileno()] if link.sock is not None else []
        pause_s = keeper.pause_s if linked else min(keeper.pause_s, _LINK_S)
        at_names, ready = watch.wait([stop, *linked], pause_s=pause_s)
        if stop in ready:
            break
        if ready and link.sock is not None and not link.sock.recv(_ORDER_BYTES):
            link.lose()
        link.flush()
        keeper.look(at_names=at_names)
    if keeper.wish.release:
        keeper.release()


if __name__ == "__main__":
    main()
