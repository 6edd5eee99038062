"""What holds for every test: loopback only, no settings from the person's own environment."""

from __future__ import annotations

import functools
import ipaddress
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    # A shell's background job or nohup ignores it, and what tests start would inherit that.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100
)
settings.register_profile(
    "ci", parent=settings.get_profile("default"), derandomize=True, max_examples=60
)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def _loopback_only(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse a connection that would leave this machine: no test may need one."""
    if event not in ("socket.connect", "socket.sendto"):
        return
    address = arguments[1]
    if not isinstance(address, tuple):
        return
    host = str(address[0])
    try:
        is_loopback = ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        is_loopback = host in ("localhost", "")
    if not is_loopback:
        message = f"a test tried to reach {host}: only loopback is allowed"
        raise PermissionError(message)


sys.addaudithook(_loopback_only)

_NOT_OURS = ("AESP_", "XDG_", "GIT_CONFIG_")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what would make a test's result depend on who runs it."""
    for name in list(os.environ):
        if name.startswith(_NOT_OURS) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AESP_SCAN_CACHE_DIR", str(_rule_cache()))
    # A guard of files costs a second a run; tests of files ask for one.
    monkeypatch.setenv("AESP_FILES_BACKEND", "none")


@functools.cache
def _rule_cache() -> Path:
    """Return a directory that all tests of this checkout and user share.

    The rules take seconds to compile; what is compiled is named by what it is made of.
    """
    folder = Path(__file__).parents[1] / ".cache" / f"rules-{os.geteuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
