"""The policy of the service: checked first, then taken whole; a bad one leaves the old one.

What workers read is what was checked (see ``policy_kept``), also one that is started
again while the file on disk is broken.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.ending import gone, stop
from aesp_proxy.daemon.policy_files import located
from aesp_proxy.daemon.process import HelperProcess, module_command
from aesp_proxy.daemon.service.watch import Signature, signature
from aesp_proxy.errors import ConfigError, UnavailableError

CHECK_MODULE: Final = "aesp_proxy.daemon.policy_check"
_CHECK_S_MAX: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """A policy that was checked, and is decided by since ``since_ns`` (UTC)."""

    serial: int
    kept: Path
    name: str
    hash: str
    stamp: str
    since_ns: int
    warnings: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class LastReload:
    """When a reload was last tried, and why it was not done, empty when it was."""

    at_ns: int = 0
    error: str = ""


@dataclass(slots=True, kw_only=True)
class PolicyState:
    """Which policy is taken. ``files`` are those to be watched."""

    settings: Settings
    log: Path
    wall_ns: Callable[[], int] = time.time_ns
    files: tuple[Path, ...] = ()
    active: Active | None = None
    last: LastReload = field(default_factory=LastReload)
    seen: Signature = frozenset()
    in_doubt: bool = False
    _text: bytes = b""

    @property
    def _where(self) -> str:
        return located(self.settings.policy)[1]

    @property
    def _dir(self) -> Path:
        return self.settings.state_dir / "policy"

    def taken(self) -> Active:
        """Return the policy that is decided by; ConfigError before there is one."""
        if self.active is None:
            raise ConfigError("no policy was loaded")
        return self.active

    def start(self) -> None:
        """Make the place for what is kept, empty."""
        self._dir.mkdir(mode=0o700, exist_ok=True)
        for left in self._dir.iterdir():
            left.unlink()
        # Before anything is read, so that a file that is not there yet is waited for.
        self.files = (located(self.settings.policy)[0],)
        self.seen = signature(self.files)

    async def load(self, *, forced: bool) -> bool:
        """Check the policy and take it; say whether another one is to be decided by.

        Unless ``forced``, a policy of the same texts is no other one. ConfigError when it
        is wrong; then the old one stays.
        """
        serial = self.active.serial + 1 if self.active else 1
        keep = self._dir / f"{serial}.json"
        files, before = self.files, signature(self.files)
        try:
            active = await self._check(serial, keep)
            text = keep.read_bytes()
        except (ConfigError, UnavailableError, OSError) as error:
            self.last = LastReload(at_ns=self.wall_ns(), error=str(error))
            raise ConfigError(str(error)) from error
        finally:
            # What changed while it was read, or lies where nobody looked before: read it again.
            self.in_doubt = signature(files) != before or not set(self.files) <= set(files)
            self.seen = signature(self.files)
        if not forced and text == self._text:
            # What was wrong meanwhile was mended by taking it back.
            self.last = LastReload(at_ns=self.last.at_ns)
            keep.unlink()
            return False
        self.last = LastReload(at_ns=self.wall_ns() if self.active else 0)
        self.active, self._text = active, text
        return True

    def forget_old(self) -> None:
        """Remove what no worker needs any more."""
        for kept in self._dir.glob("*.json"):
            if self.active is None or kept != self.active.kept:
                kept.unlink(missing_ok=True)

    async def _check(self, serial: int, keep: Path) -> Active:
        answer, policy = self._dir / "answer.json", self.settings.policy
        words = [
            "--state", str(self.settings.state_dir),
            "--cache", str(self.settings.rule_cache_dir),
            "--answer", str(answer), "--keep", str(keep),
            *(("--policy", str(policy)) if policy is not None else ()),
        ]  # fmt: skip
        command = module_command(CHECK_MODULE, death_signal=signal.SIGKILL)
        process = HelperProcess("policy check", (*command, *words), log=self.log)
        _forget(answer)
        process.start()
        try:
            with trio.move_on_after(_CHECK_S_MAX):
                await gone(process)
        finally:
            with trio.CancelScope(shield=True):
                await stop(process, grace_s=0.0, stop_s_max=0.0)
        try:
            said = _read(answer)
        except (OSError, ValueError) as error:
            how = f"the check {process.ended()} after at most {_CHECK_S_MAX:g} s"
            raise ConfigError(f"{how}, see {self.log}", where=self._where) from error
        self._follow(said["files"])
        if said["error"]:
            raise ConfigError(said["error"])
        return Active(
            serial=serial,
            kept=keep,
            name=said["name"],
            hash=said["hash"],
            stamp=said["stamp"],
            since_ns=self.wall_ns(),
            warnings=tuple(said["warnings"]),
        )

    def _follow(self, files: list[str]) -> None:
        read = tuple(map(Path, files))
        # Of a broken chain only the beginning was read; what mends it may be in the rest.
        more = self.files if len(read) < len(self.files) else ()
        self.files = tuple(dict.fromkeys((*read, *more)))


def _forget(answer: Path) -> None:
    answer.unlink(missing_ok=True)


def _read(answer: Path) -> Any:  # noqa: ANN401 - JSON of our own process
    return json.loads(answer.read_bytes())
