"""Collect the values to register: environment, files, directories, a vault, a command.

Values are told by name and never shown: not in an error, a log, or an argument of a
process. A source that was named and cannot be read is a ConfigError: nothing is looked
for less than what was asked. Of the well-known files of a home, those that are not
there are passed over; of one that is there and broken, it is told why, and what its
lines show is taken.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.config_secrets import Secrets
from aesp_proxy.daemon.secret_formats import (
    Named,
    assignments,
    url_passwords,
    values_in,
    values_left,
)
from aesp_proxy.errors import ConfigError

FILE_BYTES_MAX: Final = 1 << 20
VALUES_MAX: Final = 100_000
_EXEC_S_MAX: Final = 30.0
WELL_KNOWN: Final = (
    ".aws/credentials", ".netrc", ".npmrc", ".pypirc", ".pgpass", ".git-credentials",
    ".docker/config.json", ".config/gh/hosts.yml", ".kube/config",
    ".config/gcloud/application_default_credentials.json",
)  # fmt: skip
SSH: Final = ".ssh"
_CREDENTIALS: Final = "credentials"
_WITH_PATH: Final = ("file", "dir")
_KINDS: Final = (*_WITH_PATH, "vault", "exec")
_SPELLINGS: Final = "credentials, file:PATH, dir:PATH, vault:MOUNT/PATH or exec:COMMAND"


Broken = dict[str, str]
"""Well-known files of which not all could be read, each with why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value to register; not shown where the object is."""

    name: str
    source: str
    value: bytes = field(repr=False)


def collect(
    settings: Secrets,
    *,
    environ: Mapping[str, str],
    home: Path | None,
    more: Iterable[str] = (),
    broken: Broken | None = None,
) -> tuple[Value, ...]:
    """Return all values that the settings name, and of ``more`` sources.

    ``environ`` is what the agent gets, empty where that is not known. ConfigError for a
    source that is none, or cannot be read. ``broken`` is told of well-known files.
    """
    found = list(from_environment(environ, settings))
    for source in (*settings.source_list, *more):
        found += from_source(source, settings, home, broken)
        if len(found) > VALUES_MAX:
            raise ConfigError(f"more than {VALUES_MAX} values", where=_told(source))
    return tuple(found)


def source_of(given: str, where: str) -> str:
    """Return the source that an argument names: as the settings spell it, or a file by its path.

    Paths are made absolute. ConfigError, at ``where``, for what is neither or could be both:
    nothing that was meant may be looked for less.
    """
    kind, colon, rest = given.partition(":")
    if given == _CREDENTIALS:
        if Path(given).exists():
            raise ConfigError(
                f"{given!a} is a file here, and the well-known files of the home", where=where,
                remedy=f"./{given} is the file; the others are in secrets.sources by default",
            )  # fmt: skip
        return given
    if colon and kind in _KINDS and rest:
        return f"{kind}:{Path(rest).absolute()}" if kind in _WITH_PATH else given
    is_file = bool(given) and kind not in _KINDS and (not kind.isalnum() or Path(given).exists())
    if not given or (colon and not is_file):
        raise ConfigError(
            f"{_told(given)!a} is no source of secrets, nor a file", where=where,
            remedy=f"a file, {_SPELLINGS}; a file whose name begins like these: ./file:NAME",
        )  # fmt: skip
    return f"file:{Path(given).absolute()}"


def from_environment(environ: Mapping[str, str], settings: Secrets) -> Iterator[Value]:
    """Yield the variables whose names look like secrets; of a URL, its password."""
    for name, text in environ.items():
        if settings.is_secret_name(name):
            for value in _parts(name, text.encode("utf-8", "surrogateescape")):
                yield Value(name=name, source="environment", value=value)


def _parts(name: str, value: bytes) -> Iterator[bytes]:
    """Yield a value, or of a URL what is secret in it."""
    scheme, sep, _ = value.partition(b"://")
    if not sep or not scheme.isalnum():
        yield value
        return
    for _, password in url_passwords(name, [value.decode("utf-8", "surrogateescape")]):
        yield password


def from_source(
    source: str, settings: Secrets, home: Path | None, broken: Broken | None = None
) -> list[Value]:
    """Return the values of one source: ``KIND:REST``, or ``credentials``.

    ``broken`` then says of which well-known files not all could be read.
    """
    kind, _, rest = source.partition(":")
    match kind:
        case "credentials" if source == _CREDENTIALS:
            return list(_well_known(home, {} if broken is None else broken))
        case "file" if rest:
            return _file(Path(rest), settings)
        case "dir" if rest:
            return list(_directory(Path(rest)))
        case "vault" if rest:
            return _vault(rest, settings)
        case "exec" if rest:
            return list(_command(rest))
        case _:
            raise ConfigError(
                f"{_told(source)!a} is no source of secrets", where="secrets.sources",
                remedy=_SPELLINGS,
            )  # fmt: skip


def _told(source: str) -> str:
    """Return a source as it may be shown: a command's arguments may hold anything."""
    kind, colon, rest = source.partition(":")
    return f"exec:{rest.split(' ')[0]}" if kind == "exec" else f"{kind}{colon}{rest}"[:200]


def _well_known(home: Path | None, broken: Broken) -> Iterator[Value]:
    broken.clear()
    if home is None:
        return
    paths = [home / each for each in WELL_KNOWN]
    keys = home / SSH
    with contextlib.suppress(OSError):  # no keys, or not ours to read
        paths += sorted(path for path in keys.iterdir() if path.suffix != ".pub")
    for path in paths:
        source, file = f"~/{path.relative_to(home)}", path.name.lstrip(".")
        if not os.path.lexists(path):
            continue
        try:
            data = _read(path)
        except ConfigError as error:
            if path.parent != keys:  # what is no file there is no key
                broken[source] = error.message
            continue
        if path.parent == keys and b"-----BEGIN" not in data:
            continue
        try:
            named = values_in(data, "/".join(path.parts[-2:])) if data else ()
        except ConfigError as error:
            broken[source] = error.message
            named = values_left(data)
        for name, value in named:
            yield Value(name=f"{file}/{name}", source=source, value=value)


def _file(path: Path, settings: Secrets) -> list[Value]:
    data = _read(path)
    named: Iterable[Named] = values_in(data, "/".join(path.parts[-2:]))
    if _is_environment(path):
        # An .env file says also what is no secret, by other names.
        named = [
            (name, part)
            for name, value in named
            if settings.is_secret_name(name)
            for part in _parts(name, value)
        ]
    return [
        Value(name=name if _is_environment(path) else f"{path.name.lstrip('.')}/{name}",
              source=f"file:{path}", value=value)
        for name, value in named
    ]  # fmt: skip


def _is_environment(path: Path) -> bool:
    return path.name.startswith(".env") or path.name.endswith(".env")


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ConfigError("no such file, or none that can be read", where=str(path))
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=str(path)) from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"longer than {FILE_BYTES_MAX} bytes", where=str(path))
    return data


def _directory(path: Path) -> Iterator[Value]:
    """Yield each file of a directory as a value: how Kubernetes mounts a Secret."""
    try:
        files = sorted(each for each in path.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=str(path)) from error
    for each in files:
        if each.is_file():
            yield Value(name=each.name, source=f"dir:{path}", value=_read(each).strip())


def _vault(path: str, settings: Secrets) -> list[Value]:
    where, token_file = f"vault:{path}", settings.vault_token_file
    if not settings.vault_address or token_file is None:
        raise ConfigError("it needs secrets.vault_address and .vault_token_file", where=where)
    from aesp_proxy.daemon.vault import Vault  # noqa: PLC0415 - 100 ms, for those who have one

    vault = Vault(
        address=settings.vault_address,
        token=_read(token_file).strip().decode("latin-1"),
        namespace=settings.vault_namespace,
        ca_file=settings.vault_ca_file,
    )
    return [Value(name=name, source=where, value=value) for name, value in vault.read(path)]


def _command(line: str) -> Iterator[Value]:
    """Yield what a command prints: NAME=VALUE lines, or one JSON object of texts."""
    where = _told(f"exec:{line}")
    try:
        done = subprocess.run(
            shlex.split(line), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, timeout=_EXEC_S_MAX, check=False,
        )  # fmt: skip
        text = done.stdout[:FILE_BYTES_MAX].decode()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigError(f"cannot run it: {type(error).__name__}", where=where) from None
    if done.returncode:
        raise ConfigError(f"it ended with {done.returncode}", where=where)
    if len(done.stdout) > FILE_BYTES_MAX:
        raise ConfigError(f"it prints more than {FILE_BYTES_MAX} bytes", where=where)
    named = _json_object(text, where) if text.lstrip().startswith("{") else assignments(text)
    for name, value in named:
        yield Value(name=name, source=where, value=value)


def _json_object(text: str, where: str) -> list[Named]:
    try:
        whole = json.loads(text)
    except ValueError:
        raise ConfigError("what it prints is not JSON", where=where) from None
    return [(str(name), value.encode()) for name, value in whole.items() if isinstance(value, str)]
