"""How a bucket is reached: what stands under ``objects: s3:`` in ``stores.yaml``.

Rules: unknown keys are errors with FILE:LINE:COL; no secret stands in the file; without
TLS only loopback is reached; a proxy is used only where it is named. ``KEYS`` is the table
the documentation repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, at
from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

LOCK_DAYS_MAX: Final = 36_500
LOCK_MODES: Final = ("COMPLIANCE", "GOVERNANCE")
CREDENTIALS: Final = ("environment", "file", "instance")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_BUCKET_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
_PREFIX_CHARS: Final = _BUCKET_CHARS | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_/")

KEYS: Final[dict[str, str]] = {
    "endpoint": "Where it is; `https`, or `http` to loopback.",
    "bucket": "The bucket; the aggregator never makes one.",
    "prefix": "What keys begin with, where others use the bucket too.",
    "region": "Its region, for signatures (`us-east-1`).",
    "lock_days": "Object Lock: days for which no batch can be removed; 0 for none (0).",
    "lock_mode": "`COMPLIANCE` (nobody can shorten it) or `GOVERNANCE` (`COMPLIANCE`).",
    "credentials": (
        "`environment` (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`),"
        " `file`, or `instance`: what the machine or pod is given (`environment`)."
    ),
    "credentials_file": "The file, in AWS's shared form; only its owner may read it.",
    "profile": "The section of that file (`default`).",
    "ca_file": "Roots that the endpoint is trusted by; default are Mozilla's.",
    "proxy": "Proxy to it, `http://HOST:PORT`; those of the environment are not used.",
    "addressing": "`path` or `virtual`: the bucket in the path, or in the host's name (`path`).",
    "connect_s_max": "Longest wait for a connection (3).",
    "answer_s_max": "Longest wait for an answer (5).",
    "put_s_max": "Longest time for a group of batches, then the hosts keep them (12).",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """A bucket and how it is reached; without a secret in it."""

    endpoint: str
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    lock_days: int = 0
    lock_mode: str = "COMPLIANCE"
    credentials: str = "environment"
    credentials_file: Path | None = None
    profile: str = "default"
    ca_file: Path | None = None
    proxy: str = ""
    addressing: str = "path"
    connect_s_max: float = 3.0
    answer_s_max: float = 5.0
    put_s_max: float = 12.0

    @property
    def where(self) -> str:
        """Where it is, for messages."""
        return f"{self.endpoint}/{self.bucket}"


def read_s3_settings(node: Node | None, root: Path) -> S3Settings:
    """Read the map under ``s3``; files are relative to ``root``. ConfigError with the place."""
    if not isinstance(node, Mapping):
        where = at(node) if node else ""
        raise ConfigError("s3 is a map", where=where, remedy="give endpoint and bucket")
    values: dict[str, Any] = {}
    for key, value in node.entries:
        if key.text not in KEYS:
            raise ConfigError(f"{key.text!r} is not a setting of s3", where=at(key))
        values[key.text] = _READ.get(key.text, _text)(key.text, value, root)
    for name in ("endpoint", "bucket"):
        if name not in values:
            raise ConfigError(f"{name} is missing", where=at(node))
    if (values.get("credentials") == "file") != ("credentials_file" in values):
        raise ConfigError(
            "credentials_file goes with credentials: file, and neither alone", where=at(node)
        )
    return S3Settings(**values)


def _text(name: str, node: Node, _: Path) -> str:
    if not isinstance(node, Scalar) or not node.text:
        raise ConfigError(f"{name} must be text", where=at(node))
    return node.text


def _file(name: str, node: Node, root: Path) -> Path:
    return root.absolute() / _text(name, node, root)


def _one_of(words: tuple[str, ...]) -> Callable[[str, Node, Path], str]:
    def read(name: str, node: Node, root: Path) -> str:
        text = _text(name, node, root)
        if text not in words:
            raise ConfigError(f"{name} must be one of {', '.join(words)}", where=at(node))
        return text

    return read


def _seconds(name: str, node: Node, root: Path) -> float:
    try:
        seconds = float(_text(name, node, root))
    except ValueError:
        seconds = -1.0
    if not 0.1 <= seconds <= 60:
        raise ConfigError(f"{name} must be 0.1 to 60", where=at(node))
    return seconds


def _days(name: str, node: Node, root: Path) -> int:
    text = _text(name, node, root)
    days = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else -1
    if not 0 <= days <= LOCK_DAYS_MAX:
        raise ConfigError(f"{name} must be 0 to {LOCK_DAYS_MAX}", where=at(node))
    return days


def _bucket(name: str, node: Node, root: Path) -> str:
    text = _text(name, node, root)
    if not 3 <= len(text) <= 63 or set(text) - _BUCKET_CHARS:
        raise ConfigError(f"{name} must be 3 to 63 of a-z 0-9 . -", where=at(node))
    return text


def _prefix(name: str, node: Node, root: Path) -> str:
    text = _text(name, node, root).strip("/")
    if set(text) - _PREFIX_CHARS or {"", ".", ".."} & set(text.split("/")):
        raise ConfigError(f"{name} must be words of a-z 0-9 . _ - with / between", where=at(node))
    return text + "/"


def _endpoint(name: str, node: Node, root: Path) -> str:
    """Read an address that no credential and no record goes to in clear."""
    text = _text(name, node, root).rstrip("/")
    parts = _split(name, text, node)
    if parts.scheme != "https" and (parts.scheme != "http" or parts.hostname not in _LOOPBACK):
        raise ConfigError(f"{name} must be https (http to loopback only)", where=at(node))
    return text


def _proxy(name: str, node: Node, root: Path) -> str:
    text = _text(name, node, root).rstrip("/")
    if _split(name, text, node).scheme not in {"http", "https"}:
        raise ConfigError(f"{name} must be http://HOST:PORT", where=at(node))
    return text


def _split(name: str, text: str, node: Node) -> Any:  # noqa: ANN401 - urllib's own named tuple
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{name} is no address", where=at(node)) from error
    if not parts.hostname or parts.path or parts.query or parts.fragment:
        raise ConfigError(f"{name} is a scheme, a host and a port, no more", where=at(node))
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{name} must hold no password", where=at(node), remedy="allow this host at the proxy"
        )
    return parts


_READ: Final[dict[str, Callable[[str, Node, Path], Any]]] = {
    "endpoint": _endpoint,
    "bucket": _bucket,
    "prefix": _prefix,
    "lock_days": _days,
    "lock_mode": _one_of(LOCK_MODES),
    "credentials": _one_of(CREDENTIALS),
    "credentials_file": _file,
    "ca_file": _file,
    "proxy": _proxy,
    "addressing": _one_of(("path", "virtual")),
    "connect_s_max": _seconds,
    "answer_s_max": _seconds,
    "put_s_max": _seconds,
}
