"""Leaks that are known already: a baseline, and a file of fingerprints.

A baseline is the JSON report of an earlier scan, ours or gitleaks'. An entry that holds
the secret itself (gitleaks without ``--redact``) stands for that secret in that file, one
without for its place. A ``.gitleaksignore`` has a fingerprint a line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aesp_proxy.cli.scan.leak import Leak
from aesp_proxy.decide.secrets.redact import fingerprint
from aesp_proxy.errors import ConfigError

_BYTES_MAX: Final = 256 << 20
_REMEDY: Final = "give the JSON report of an earlier scan"
_COLUMNS_OFF: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """An entry without a secret. Columns of gitleaks are those of the match around it."""

    lines: tuple[int, int]
    columns: tuple[int, int]

    def holds(self, leak: Leak) -> bool:
        first, last = self.columns
        return (
            self.lines == (leak.start_line, leak.end_line)
            and first - _COLUMNS_OFF <= leak.start_column
            and leak.end_column <= last + _COLUMNS_OFF
        )


@dataclass(slots=True)
class Known:
    """What to leave out; empty, it leaves out nothing."""

    key: bytes
    _values: set[tuple[str, str, str]] = field(default_factory=set)
    _places: dict[tuple[str, str, str], list[_Place]] = field(default_factory=dict)
    _fingerprints: set[str] = field(default_factory=set)

    def has(self, leak: Leak) -> bool:
        """Tell whether a leak is known."""
        if leak.place in self._fingerprints or leak.fingerprint in self._fingerprints:
            return True
        file, commit = leak.source.file, leak.source.commit
        if (file, commit, leak.value) in self._values:
            return True
        places = self._places.get((file, commit, leak.rule), ())
        return any(place.holds(leak) for place in places)

    def read_baseline(self, path: Path) -> None:
        """Add a report; ConfigError when it is none."""
        try:
            entries = json.loads(_read(path))
        except (ValueError, RecursionError) as error:
            raise ConfigError("not JSON", where=str(path), remedy=_REMEDY) from error
        if entries is None:  # what a gitleaks of old wrote where nothing was found
            return
        if not isinstance(entries, list):
            raise ConfigError("not a list of findings", where=str(path), remedy=_REMEDY)
        for number, entry in enumerate(entries, 1):
            try:
                self._add(entry)
            except (KeyError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"entry {number} is no finding", where=str(path), remedy=_REMEDY
                ) from error

    def _add(self, entry: Mapping[str, object]) -> None:
        file, commit = str(entry["File"]), str(entry.get("Commit") or "")
        secret = str(entry.get("Secret") or "")
        if secret and not secret.endswith(("***", "...")) and secret != "REDACTED":  # noqa: S105
            self._values.add((file, commit, fingerprint(self.key, secret.encode())))
            return
        place = _Place(
            lines=(_number(entry, "StartLine"), _number(entry, "EndLine")),
            columns=(_number(entry, "StartColumn"), _number(entry, "EndColumn")),
        )
        self._places.setdefault((file, commit, str(entry["RuleID"])), []).append(place)

    def read_ignore_file(self, path: Path) -> None:
        """Add a file of fingerprints; ConfigError names a line that is none."""
        for number, line in enumerate(_read(path).decode("utf-8", "replace").splitlines(), 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            if text.count(":") < 2 or not text.rpartition(":")[2].isdigit():
                raise ConfigError(
                    "no fingerprint",
                    where=f"{path}:{number}",
                    remedy="write [COMMIT:]FILE:RULE:LINE",
                )
            self._fingerprints.add(text.replace("\\", "/"))


def _number(entry: Mapping[str, object], key: str) -> int:
    value = entry[key]
    if not isinstance(value, int):
        raise TypeError(key)
    return value


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise ConfigError(f"cannot be read: {reason}", where=str(path)) from None
    if len(data) > _BYTES_MAX:
        raise ConfigError(f"larger than {_BYTES_MAX >> 20} MiB", where=str(path))
    return data
