"""Compiled secret rules, kept between starts: 4 s of CPU to make, 0.1 s to read.

The file is named by the rules, the library's version and the machine, so it can be
stale for nobody. Whoever can write it decides what is found: it is only taken from a
directory and a file that are this user's own and nobody else can write.

Of several processes that start at once (workers, the file guard) one compiles, and the
others wait for what it keeps.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.config_load import default_state_dir
from aesp_proxy.daemon.freed import give_back_memory
from aesp_proxy.decide.secrets.hyperscan import Locator, compile_locator, content_key, dump, load
from aesp_proxy.decide.secrets.rule import Rule, RuleSet
from aesp_proxy.decide.secrets.rule_set import without_refused
from aesp_proxy.decide.secrets.rules import check_each
from aesp_proxy.decide.secrets.views.forms import gates_key, gates_of_rules
from aesp_proxy.errors import ConfigError
from aesp_proxy.keys import make_private_dir, write_atomic

_SUFFIX: Final = ".hsdb"
_KEPT: Final = 8
_BYTES_MAX: Final = 64 * 1024 * 1024
_LOCK: Final = "compiling.lock"


def shared_cache_dir() -> Path | None:
    """Return where `run` keeps its compiled rules, if this user ever ran it here."""
    state_dir = default_state_dir(os.environ, is_root=os.geteuid() == 0)
    return state_dir / "cache" if state_dir.is_dir() else None


def compiled(rules: Sequence[Rule], cache_dir: Path | None) -> Locator:
    """Give the compiled form of ``rules``, from the cache where it is there.

    Raises ``ConfigError`` naming the rule that the engine refuses. A cache that cannot
    be read or written is no error: the rules are compiled.
    """
    expressions = tuple(rule.expression for rule in rules if not rule.path_only)
    key = gates_key(rules)
    name = content_key(expressions, key) + _SUFFIX
    if cache_dir is None:
        return _compile(rules, expressions)
    path = cache_dir / name
    known = _read(path, expressions, key)
    if known is not None:
        return known
    with _alone(cache_dir):
        known = _read(path, expressions, key)  # somebody may have made it while we waited
        if known is not None:
            return known
        locator = _compile(rules, expressions)
        _keep(path, dump(locator, key))
    give_back_memory()  # 90 MiB that a worker would keep for good
    return locator


def _compile(rules: Sequence[Rule], expressions: tuple[bytes, ...]) -> Locator:
    try:
        return compile_locator(expressions, gates_of_rules(rules))
    except ConfigError:
        check_each(rules)
        raise


@contextmanager
def _alone(cache_dir: Path) -> Iterator[None]:
    """Be the only one who compiles for this directory, if it takes a lock."""
    try:
        make_private_dir(cache_dir)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(cache_dir / _LOCK, flags, 0o600)
    except (ConfigError, OSError):
        yield
        return
    try:
        # Whoever holds it compiles, a matter of seconds, or has ended and holds nothing.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def compiled_set(
    rules: RuleSet, cache_dir: Path | None, *, strict: bool = False
) -> tuple[RuleSet, Locator]:
    """Give a set without the rules that the engine refuses, and its compiled form.

    ``warnings`` of the set tell which they are; with ``strict`` the first is a
    ``ConfigError``, as it is when no rule is left.
    """
    try:
        return rules, compiled(rules.rules, cache_dir)
    except ConfigError:
        taken = without_refused(rules, strict=strict)
        return taken, compiled(taken.rules, cache_dir)


def _read(path: Path, expressions: tuple[bytes, ...], key: bytes) -> Locator | None:
    try:
        if not (_is_ours(path.parent) and _is_ours(path)) or path.stat().st_size > _BYTES_MAX:
            return None
        return load(path.read_bytes(), expressions, key)
    except OSError:
        return None


def _is_ours(path: Path) -> bool:
    found = path.lstat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return found.st_uid == os.geteuid() and not others_write and not path.is_symlink()


def _keep(path: Path, blob: bytes) -> None:
    try:
        make_private_dir(path.parent)
        write_atomic(path, blob)
        kept = sorted(path.parent.glob("*" + _SUFFIX), key=lambda p: p.stat().st_mtime)
        for old in kept[:-_KEPT]:
            old.unlink(missing_ok=True)
    except (ConfigError, OSError):
        return  # a start is slower; nothing else depends on it
