"""The settings file of the exporters, ``export.yaml``: sinks by name, checked whole.

Rules: unknown keys are errors with FILE:LINE:COL; a secret is never in the file but in a
file of its own that only its owner may read, or in a variable; HTTP without TLS goes to
loopback only, because tokens and records would be read on the way. ``KEYS`` is the table
the documentation repeats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

from aesp_proxy import keys
from aesp_proxy.aggregator.export.formats import FORMATS, LINE_FORMATS
from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, Sequence, at, parse_document
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Verdict
from aesp_proxy.model.record import RecordKind
from aesp_proxy.record.header import is_origin

if TYPE_CHECKING:
    from collections.abc import Mapping as Table

    from aesp_proxy.model.record import Record

SINKS_MAX: Final = 32
TYPES: Final = ("splunk", "elastic", "syslog", "otlp", "webhook", "kafka")
_DEFAULT_FORMAT: Final = {
    "splunk": "cim",
    "elastic": "ecs",
    "syslog": "cef",
    "otlp": "ocsf",
    "webhook": "ocsf",
    "kafka": "ocsf",
}
_LINES_ALLOWED: Final = frozenset({"splunk", "syslog", "kafka"})
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOf:
    """One key of a sink: ``form`` is text, number, flag, file or words; ``types`` where it is."""

    form: str
    help: str
    types: tuple[str, ...] = TYPES
    default: Any = ""
    low: float = 0
    high: float = 0
    words: tuple[str, ...] = ()


_HTTP: Final = ("splunk", "elastic", "otlp", "webhook")
_TUNNELLED: Final = (*_HTTP, "syslog")
KEYS: Final[dict[str, KeyOf]] = {
    "type": KeyOf(form="text", help="What it is.", words=TYPES),
    "url": KeyOf(
        form="text", help="Where it is; `https`, or `http` to loopback. No path.", types=_HTTP
    ),
    "address": KeyOf(
        form="text",
        help="`HOST:PORT` of the receiver; of Kafka's brokers several, with commas.",
        types=("syslog", "kafka"),
    ),
    "path": KeyOf(
        form="text", help="Path of the receiver, where it is not the usual one.", types=_HTTP
    ),
    "secret_file": KeyOf(
        form="file", help="File with the token, key or password; only its owner may read it."
    ),
    "secret_env": KeyOf(form="text", help="Variable of the aggregator that holds it instead."),
    "user": KeyOf(
        form="text",
        help="User of basic authentication (Elastic) or SASL PLAIN (Kafka); else it is a key.",
        types=("elastic", "kafka"),
    ),
    "ca_file": KeyOf(form="file", help="Roots that it is trusted by; default are the system's."),
    "client_file": KeyOf(
        form="file", help="Our certificate and key (PEM) for a receiver that asks for one."
    ),
    "format": KeyOf(form="text", help="What is sent.", words=tuple(FORMATS)),
    "index": KeyOf(
        form="text", help="Index (Splunk) or data stream (Elastic).", types=("splunk", "elastic")
    ),
    "source_type": KeyOf(
        form="text", help="Splunk's sourcetype.", types=("splunk",), default="aesp:proxy"
    ),
    "acknowledge": KeyOf(
        form="flag",
        help="Wait for the indexer's acknowledgement (the token must have it on).",
        types=("splunk",),
        default=False,
    ),
    "topic": KeyOf(form="text", help="Kafka's topic.", types=("kafka",), default="aesp-audit"),
    "plain": KeyOf(
        form="flag",
        help="Without TLS; to loopback only.",
        types=("syslog", "kafka"),
        default=False,
    ),
    "enterprise_number": KeyOf(
        form="number",
        help="Number in the names of structured data (RFC 5424 section 7.2.2).",
        types=("syslog",),
        default=32473,
        low=1,
        high=2**31,
    ),
    "start": KeyOf(
        form="text",
        help="Where a new sink begins: with the oldest stored record, or with the next.",
        default="beginning",
        words=("beginning", "now"),
    ),
    "verdicts": KeyOf(form="words", help="Only these.", words=tuple(v.value for v in Verdict)),
    "kinds": KeyOf(form="words", help="Only these.", words=tuple(k.value for k in RecordKind)),
    "tenants": KeyOf(form="words", help="Only records of these."),
    "proofs": KeyOf(
        form="flag", help="Each event carries its inclusion proof (2 to 3 KB).", default=False
    ),
    "events_max": KeyOf(
        form="number", help="Most events a request.", default=500, low=1, high=10_000
    ),
    "bytes_max": KeyOf(
        form="number",
        help="Most bytes of events a request, about.",
        default=1_000_000,
        low=10_000,
        high=64_000_000,
    ),
    "dead_letters_max": KeyOf(
        form="number",
        help="Most refused events kept (4 KB each at most); at them the sink stops.",
        default=10_000,
        low=1,
        high=1_000_000,
    ),
    "proxy": KeyOf(
        form="text",
        help="Proxy on the way (CONNECT): `http://HOST:PORT`, for all but syslog also `https`.",
        types=_TUNNELLED,
    ),
    "proxy_user": KeyOf(
        form="text", help="User that the proxy asks for (Basic).", types=_TUNNELLED
    ),
    "proxy_secret_file": KeyOf(
        form="file", help="File with the password for it.", types=_TUNNELLED
    ),
    "proxy_secret_env": KeyOf(form="text", help="Variable that holds it.", types=_TUNNELLED),
    "proxy_ca_file": KeyOf(
        form="file", help="Roots that an `https` proxy is trusted by.", types=_HTTP
    ),
    "timeout_s": KeyOf(
        form="number", help="Longest wait for one answer.", default=10, low=0.1, high=300
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """One sink. ``secret`` is shown by no ``repr`` and stands in no message."""

    name: str
    type: str
    url: str = ""
    address: str = ""
    path: str = ""
    secret: str = field(default="", repr=False)
    user: str = ""
    ca_file: Path | None = None
    client_file: Path | None = None
    format: str = ""
    index: str = ""
    source_type: str = ""
    acknowledge: bool = False
    topic: str = ""
    plain: bool = False
    enterprise_number: int = 32473
    start: str = "beginning"
    verdicts: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    proofs: bool = False
    events_max: int = 500
    bytes_max: int = 1_000_000
    timeout_s: float = 10.0
    dead_letters_max: int = 10_000
    proxy: str = ""
    proxy_user: str = ""
    proxy_secret: str = field(default="", repr=False)
    proxy_ca_file: Path | None = None
    region: str = ""

    def wants(self, record: Record) -> bool:
        """Whether a record is for this sink."""
        return (
            (not self.verdicts or record.verdict in self.verdicts)
            and (not self.kinds or record.kind.value in self.kinds)
            and (not self.tenants or record.tenant_id in self.tenants)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """All sinks, in the order of the file."""

    sinks: tuple[SinkSettings, ...] = ()

    def sink(self, name: str) -> SinkSettings:
        """Return one sink; ConfigError when there is none of that name."""
        for sink in self.sinks:
            if sink.name == name:
                return sink
        known = ", ".join(sink.name for sink in self.sinks) or "none"
        raise ConfigError(f"{name!r} is not a sink", where="--sink", remedy=f"there is {known}")


def load_settings(path: Path, *, environment: Table[str, str]) -> ExportSettings:
    """Read and check the settings file; ConfigError with the place of what is wrong."""
    try:
        text = keys.read_bounded(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8", where=str(path)) from error
    document = parse_document(text, str(path))
    for key, _ in document.entries:
        if key.text not in {"region", "sinks"}:
            raise ConfigError(f"{key.text!r} is not a setting", where=at(key))
    sinks = document.get("sinks")
    if not isinstance(sinks, Mapping) or len(sinks.entries) > SINKS_MAX:
        where = at(sinks) if sinks else str(path)
        raise ConfigError(f"sinks must be a map of 1 to {SINKS_MAX}", where=where)
    region = document.word("region")
    return ExportSettings(
        sinks=tuple(
            _sink(key, node, region=region, root=path.parent, environment=environment)
            for key, node in sinks.entries
        )
    )


def _sink(
    key: Scalar, node: Node, *, region: str, root: Path, environment: Table[str, str]
) -> SinkSettings:
    if not is_origin(key.text) or len(key.text) > 64:
        raise ConfigError(f"{key.text!r} cannot name a sink", where=at(key), remedy="use a-z 0-9")
    if not isinstance(node, Mapping):
        raise ConfigError("a sink is a map", where=at(node))
    kind = node.word("type")
    if kind not in TYPES:
        raise ConfigError(f"type must be one of {', '.join(TYPES)}", where=at(node))
    values: dict[str, Any] = {
        name: spec.default for name, spec in KEYS.items() if kind in spec.types and spec.default
    }
    for name, value in node.entries:
        spec = KEYS.get(name.text)
        if spec is None or kind not in spec.types:
            raise ConfigError(f"{name.text!r} is not a setting of {kind}", where=at(name))
        values[name.text] = _value(name.text, spec, value, root)
    values["secret"] = _secret(values, node, environment)
    values["proxy_secret"] = _secret(values, node, environment, prefix="proxy_")
    values.setdefault("format", _DEFAULT_FORMAT[kind])
    settings = SinkSettings(name=key.text, region=region, **values)
    _check(settings, at(node))
    return settings


def _value(name: str, spec: KeyOf, node: Node, root: Path) -> object:
    if spec.form == "words":
        items = node.items if isinstance(node, Sequence) else (node,)
        return tuple(_text(name, spec, item) for item in items)
    text = _text(name, spec, node)
    if spec.form == "file":
        return root.absolute() / text
    if spec.form == "flag":
        if text not in {"true", "false"}:
            raise ConfigError(f"{name} must be true or false", where=at(node))
        return text == "true"
    if spec.form == "number":
        return _number(name, spec, text, node)
    return text


def _text(name: str, spec: KeyOf, node: Node) -> str:
    if not isinstance(node, Scalar):
        raise ConfigError(f"{name} must be text", where=at(node))
    if spec.words and node.text not in spec.words:
        raise ConfigError(f"{name} must be one of {', '.join(spec.words)}", where=at(node))
    return node.text


def _number(name: str, spec: KeyOf, text: str, node: Node) -> float:
    try:
        number = float(text) if name.endswith("_s") else int(text)
    except ValueError:
        number = -1
    if not spec.low <= number <= spec.high:
        raise ConfigError(f"{name} must be {spec.low:g} to {spec.high:g}", where=at(node))
    return number


def _secret(
    values: dict[str, Any], node: Mapping, environment: Table[str, str], prefix: str = ""
) -> str:
    """Return the secret from its file or variable; its value is in no error."""
    of_file, of_variable = f"{prefix}secret_file", f"{prefix}secret_env"
    file, variable = values.pop(of_file, None), values.pop(of_variable, "")
    if file and variable:
        raise ConfigError(f"give {of_file} or {of_variable}, not both", where=at(node))
    text = ""
    if file:
        text = keys.read_private(file).decode("utf-8", "replace").strip()
    elif variable:
        text = environment.get(variable, "").strip()
    if (file or variable) and not text:
        raise ConfigError("the secret is empty", where=at(node))
    if any(char < " " or char == "\x7f" for char in text):
        raise ConfigError("the secret is more than one line", where=at(node))
    return text


def _check(settings: SinkSettings, where: str) -> None:
    """Check what one key says about another."""
    if settings.type in _HTTP:
        _check_url(settings, where)
    elif not settings.address:
        raise ConfigError("address is missing", where=where)
    elif settings.plain and not _all_loopback(settings.address):
        raise ConfigError("plain goes to loopback only", where=where, remedy="use TLS")
    if settings.format in LINE_FORMATS and settings.type not in _LINES_ALLOWED:
        raise ConfigError(f"{settings.type} takes no {settings.format}", where=where)
    if settings.type in {"splunk", "webhook"} and not settings.secret:
        raise ConfigError("secret_file or secret_env is missing", where=where)
    if settings.type == "elastic" and not settings.index:
        raise ConfigError("index is missing", where=where)
    if settings.proxy:
        _check_proxy(settings, where)
    elif settings.proxy_user or settings.proxy_secret or settings.proxy_ca_file:
        raise ConfigError("proxy is missing", where=where)


def _check_proxy(settings: SinkSettings, where: str) -> None:
    parts, host = _parts_of(settings.proxy)
    schemes = {"http"} if settings.type == "syslog" else {"http", "https"}
    is_bare = parts.path in {"", "/"} and not parts.query and not parts.fragment
    if parts.scheme not in schemes or not host or "@" in parts.netloc or not is_bare:
        raise ConfigError(
            f"proxy must be {' or '.join(sorted(schemes))}://HOST[:PORT]", where=where,
            remedy="who we are there is proxy_user, and proxy_secret_file or proxy_secret_env",
        )  # fmt: skip
    if settings.plain or settings.url.startswith("http:"):
        raise ConfigError("through a proxy goes TLS only", where=where)
    if bool(settings.proxy_user) != bool(settings.proxy_secret):
        raise ConfigError("proxy_user and its secret go together", where=where)
    if ":" in settings.proxy_user or not settings.proxy_user.isprintable():
        raise ConfigError("proxy_user has a colon or a control character", where=where)


def _parts_of(url: str) -> tuple[SplitResult, str]:
    """Take a URL apart; empty parts where it is none."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return urlsplit(""), ""
    return parts, host or ""


def _check_url(settings: SinkSettings, where: str) -> None:
    parts, host = _parts_of(settings.url)
    if parts.scheme not in {"http", "https"} or not host or "@" in parts.netloc:
        raise ConfigError("url must be https://HOST[:PORT]", where=where)
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ConfigError("url has no path: that is the setting path", where=where)
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ConfigError("http goes to loopback only", where=where, remedy="use https")


def _all_loopback(addresses: str) -> bool:
    hosts = [each.strip().rpartition(":")[0].strip("[]") for each in addresses.split(",")]
    return all(host in _LOOPBACK for host in hosts)
