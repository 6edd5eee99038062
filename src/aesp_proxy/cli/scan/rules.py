"""The rules of a scan, and the scanner made of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.policy_files import read_packs, read_text
from aesp_proxy.daemon.rule_cache import compiled, shared_cache_dir
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import join_rules, parse_rules
from aesp_proxy.decide.secrets.scanner import SecretScanner

_FOLDER: Final = "aesp-proxy"


def read_rules(files: Sequence[Path]) -> tuple[Rule, ...]:
    """Read rule files, or the packs that come along; ConfigError for a bad one."""
    if not files:
        return read_packs()
    return join_rules(
        *(parse_rules(read_text(file), str(file), each_compiled=False) for file in files)
    )


def scanner_of(rules: Sequence[Rule], key: bytes) -> SecretScanner:
    """Return the scanner for ``rules``; what was compiled is kept for the next time."""
    return SecretScanner(rules, key, compiled(rules, shared_cache_dir() or _own_cache_dir()))


def _own_cache_dir() -> Path:
    """Return a folder of this user's own (XDG Base Directory Specification)."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if named.startswith("/") else Path.home() / ".cache") / _FOLDER
