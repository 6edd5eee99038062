"""The operator's settings: one frozen tree, with default, limit and help in each field.

Layers, weakest first: the default, the file, an ``AESP_*`` variable, a flag. A
key nobody knows is a ConfigError that names the nearest one: a misspelt limit
must not silently be no limit. Parsing is pure; ``config_load`` reads the file
and the environment. ``docs/settings.md`` is generated from this module.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aesp_proxy.daemon.config_files import Files
from aesp_proxy.daemon.config_secrets import Secrets
from aesp_proxy.daemon.config_service import Capture, Daemon
from aesp_proxy.daemon.config_upstream import Pool, Tls, Upstream
from aesp_proxy.daemon.config_values import Given, Key, read_value, setting
from aesp_proxy.errors import ConfigError

_KIB: Final = 1024
_MIB: Final = 1024 * 1024
_GIB: Final = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where the agent finds the proxy."""

    host: str = setting(
        "127.0.0.1", "Address to listen on; only loopback, as anyone who reaches it is the agent.",
        form="loopback",
    )  # fmt: skip
    port: int = setting(0, "Port to listen on; 0 takes a free one.", minimum=0, maximum=65535)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may ask of the proxy; over a limit the attempt is refused."""

    head_bytes_max: int = setting(
        64 * _KIB, "Longest request or response head.", minimum=1024, maximum=16 * _MIB
    )
    header_count_max: int = setting(
        200, "Most header fields in one head.", minimum=10, maximum=10_000
    )
    head_s_max: float = setting(
        10.0, "Longest time a client may take for its TLS handshake, and to send a head.",
        minimum=0.1, maximum=600,
    )  # fmt: skip
    idle_s_max: float = setting(
        600.0, "Longest silence on a connection before it is closed; upstream's counts as well.",
        minimum=1, maximum=86_400,
    )  # fmt: skip
    connections_max: int = setting(
        5000, "Most client connections at once.", minimum=1, maximum=1_000_000
    )
    agent_connections_max: int = setting(
        5000, "Most client connections at once of one agent (a user, where users are captured).",
        minimum=1, maximum=1_000_000,
    )  # fmt: skip
    target_bytes_max: int = setting(16 * _KIB, "Longest request target.", minimum=256, maximum=_MIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """How bodies are searched for secrets."""

    window_bytes: int = setting(
        1100, "Bytes held back while a match could still grow.", minimum=64, maximum=64 * _KIB
    )
    inflate_bytes_max: int = setting(
        64 * _MIB, "Most bytes a compressed body may inflate to; over it the body is refused.",
        minimum=_KIB, maximum=16 * _GIB,
    )  # fmt: skip
    inflate_ratio_max: int = setting(
        200, "Highest ratio of inflated to compressed size; over it the body is refused.",
        minimum=2, maximum=10_000,
    )  # fmt: skip
    cache_dir: Path | None = setting(
        None, "Directory of compiled secret rules, which take seconds to make; default is `cache` "
        "in the state directory. Several state directories may share one that no agent can write.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """How the record is kept."""

    mode: str = setting(
        "batch",
        "`batch`: survives a killed process at once, a power cut after `sync_ms`; `blocking`: "
        "durable before the effect; `blocking-strict`: any doubt refuses.",
        choices=("batch", "blocking", "blocking-strict"),
    )
    sync_ms: int = setting(
        20, "Time between syncs of the journal in mode `batch`.", minimum=1, maximum=10_000
    )
    seal_bytes_max: int = setting(
        _MIB, "Size at which a batch is sealed.", minimum=4 * _KIB, maximum=64 * _MIB
    )
    seal_s_max: float = setting(60.0, "Age at which a batch is sealed.", minimum=0.1, maximum=3600)
    spool_bytes_max: int = setting(
        _GIB, "Most bytes kept for an aggregator that does not answer; over it nothing passes.",
        minimum=_MIB, maximum=1024 * _GIB,
    )  # fmt: skip
    may_lose: str = setting(
        "",
        "Of what the record may lose some, rather than stop the agent, when it cannot be written: "
        "a list of classes, by default none. It is counted, signed, and a fault of the record: "
        "see [the record](audit.md#losses).",
        choices=("outcomes", "names", "file_reads", "requests"), form="list",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Refuse two settings that contradict each other."""
        if self.may_lose and self.mode == "blocking-strict":
            raise ConfigError(
                "`blocking-strict` lets nothing pass in doubt", where="audit.may_lose",
                remedy="leave one of audit.mode and audit.may_lose at its default",
            )  # fmt: skip

    @property
    def losable_words(self) -> tuple[str, ...]:
        """The classes of which some may be lost."""
        return tuple(word.strip() for word in self.may_lose.split(",") if word.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Where signed batches are shipped."""

    dir: Path | None = setting(
        None,
        "Directory that `enroll` or `aggregator enroll` made, address of the aggregator and all; "
        "default is `forward` in the state directory, and nothing is shipped when there is none.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """How traffic is intercepted."""

    http2: str = setting(
        "when_needed",
        "HTTP/2 costs 3.5 times the CPU of HTTP/1.1: offered where the client needs it, or never.",
        choices=("when_needed", "never"),
    )
    passthrough: str = setting(
        "", "Hosts whose TLS is not taken off (their clients pin certificates), separated by "
        "commas: `host`, `*.host`, `host:port`. The policy must allow them; nothing in it is read.",
    )  # fmt: skip
    silence_s: float = setting(
        0.3, "Silence of a client after which the server is taken to speak first (ports other than "
        "80 and 443).", minimum=0.01, maximum=60,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """How names are resolved, and how much an agent may ask and say by asking."""

    upstreams: str = setting(
        "", "Addresses of resolvers, `address` or `address:port`, separated by commas; default is "
        "those of /etc/resolv.conf. When set, the proxy itself asks only them.",
    )  # fmt: skip
    search: str = setting(
        "", "Domains in which a name of one label is looked for, separated by commas; default is "
        "those of /etc/resolv.conf.",
    )  # fmt: skip
    types: str = setting(
        "", "Types of record answered besides A, AAAA and PTR (TXT, MX, SRV ...), separated by "
        "commas. HTTPS and SVCB never are.",
    )  # fmt: skip
    timeout_s: float = setting(
        1.5, "Longest wait for one answer of one resolver; each is asked twice.",
        minimum=0.1, maximum=30,
    )  # fmt: skip
    cache_entries_max: int = setting(10_000, "Most answers kept.", minimum=1, maximum=1_000_000)
    ttl_s_max: int = setting(
        300, "Longest time an answer is kept, whatever it says.", minimum=1, maximum=86_400
    )
    negative_ttl_s_max: int = setting(
        30, "Longest time that a name or record does not exist.", minimum=1, maximum=3_600
    )
    queries_per_s_max: int = setting(
        100, "Most queries of an agent looked at a second; five seconds' worth may come at once.",
        minimum=1, maximum=100_000,
    )  # fmt: skip
    in_flight_max: int = setting(256, "Most queries under way at once.", minimum=1, maximum=10_000)
    names_per_minute_max: int = setting(
        30, "Most new names a minute under one suffix of which the policy allows any name; over it "
        "they are refused, whether asked of the resolver or connected to.",
        minimum=1, maximum=100_000,
    )  # fmt: skip
    names_per_hour_max: int = setting(300, "The same an hour.", minimum=1, maximum=1_000_000)
    label_chars_max: int = setting(
        48, "Longest label that an agent may choose freely.", minimum=1, maximum=63
    )
    name_chars_max: int = setting(
        128, "Longest part of a name that an agent may choose freely.", minimum=1, maximum=253
    )
    name_bits_max: int = setting(
        224, "Most information in that part, in bits, estimated by its characters; a random UUID "
        "has about 130.", minimum=8, maximum=2_000,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a session may send out; counted by each worker process for itself."""

    requests_per_minute_max: int = setting(
        0, "Most requests a minute; 0 for no bound.", minimum=0, maximum=1_000_000
    )
    requests_max: int = setting(
        0, "Most requests of a session; 0 for no bound. A connection relayed unread is one.",
        minimum=0, maximum=10**12,
    )  # fmt: skip
    bytes_out_max: int = setting(
        0, "Most bytes that a session may send (targets, fields, bodies, messages); 0 for no "
        "bound.", minimum=0, maximum=10**15,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What `run` puts around the command."""

    mode: str = setting(
        "full",
        "`full`: the command starts only when it is isolated; `degraded`: on a machine that does "
        "not allow it, it starts with what works, and what is not enforced is said.",
        choices=("full", "degraded"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Who is said to act, in the record; empty fields are filled by `run`."""

    principal_id: str = setting("", "Person or service account; default is the user's name.")
    tenant_id: str = setting("", "Tenant that the principal belongs to.")
    id: str = setting("", "Agent; default is made of user and host name.")
    type: str = setting("", "Kind of agent; default is the name of the program that runs.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSettings:
    """What rules are told of the principal; an empty field is unknown to them."""

    roles: str = setting("", "Roles of the principal, separated by commas (`request.user.roles`).")
    groups: str = setting("", "Groups, separated by commas (`request.user.groups`).")
    team: str = setting("", "Team (`request.user.team`).")
    business_unit: str = setting("", "Business unit (`request.user.business_unit`).")
    cost_center: str = setting("", "Cost center (`request.tenant.cost_center`).")
    region: str = setting("", "Region of the tenant (`request.tenant.region`).")
    organization_id: str = setting("", "Organisation (`organization.id`).")
    security_clearance: str = setting(
        "unknown",
        "Clearance (`request.user.security_clearance`).",
        choices=("unknown", "public", "internal", "confidential", "secret", "top_secret"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one process."""

    state_dir: Path = setting(
        None,
        "Directory of keys, record and CA, mode 0700; default is /var/lib/aesp-proxy for root, "
        "else aesp-proxy under $XDG_STATE_HOME or ~/.local/state.",
    )
    policy: Path | None = setting(None, "Policy file; default is the built-in baseline.")
    listen: Listen = Listen()
    upstream: Upstream = Upstream()
    pool: Pool = Pool()
    tls: Tls = Tls()
    limits: Limits = Limits()
    scan: Scan = Scan()
    secrets: Secrets = Secrets()
    audit: Audit = Audit()
    forward: Forward = Forward()
    egress: Egress = Egress()
    resolver: Resolver = Resolver()
    budget: Budget = Budget()
    daemon: Daemon = Daemon()
    capture: Capture = Capture()
    isolation: Isolation = Isolation()
    files: Files = Files()
    agent: Agent = Agent()
    claims: ClaimSettings = ClaimSettings()

    @property
    def ca_dir(self) -> Path:
        """Directory of the host CA."""
        return self.state_dir / "ca"

    @property
    def rule_cache_dir(self) -> Path:
        """Directory of compiled secret rules; it need not exist."""
        return self.scan.cache_dir or self.state_dir / "cache"

    @property
    def forward_dir(self) -> Path:
        """Directory with what enrolling gave; it need not exist."""
        return self.forward.dir or self.state_dir / "forward"

    def to_worker(self) -> dict[str, object]:
        """Return the settings as maps, lists, numbers and text, for a child process."""
        flat: dict[str, object] = {}
        for key in KEYS.values():
            value = key.of(self)
            if isinstance(value, Path):
                value = str(value)
            elif isinstance(value, tuple):
                value = [list(pair) for pair in value]
            flat[key.name] = value
        return flat

    @classmethod
    def from_worker(cls, flat: Mapping[str, object]) -> Settings:
        """Read what ``to_worker`` made; ConfigError for anything it would not make."""
        given = {
            name: Given(value=value, where="settings from the supervisor")
            for name, value in flat.items()
            if value is not None
        }
        return build([given])


def _keys(owner: type, prefix: str = "") -> Iterator[Key]:
    hints = typing.get_type_hints(owner)
    for field in dataclasses.fields(owner):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _keys(typing.cast("type", hint), f"{prefix}{field.name}.")
            continue
        optional = type(None) in typing.get_args(hint)
        yield Key(
            name=prefix + field.name,
            kind=Path if optional else typing.get_origin(hint) or hint,
            optional=optional,
            default=field.default,
            **field.metadata,
        )


KEYS: Final[Mapping[str, Key]] = {key.name: key for key in _keys(Settings)}
VARIABLES: Final[Mapping[str, Key]] = {key.variable: key for key in KEYS.values()}


def unknown_key(name: str, known: Sequence[str], where: str) -> ConfigError:
    """Make the error for a key that nobody knows, with the nearest that somebody does."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else "docs/settings.md lists them"
    return ConfigError(f"unknown setting {name}", where=where, remedy=remedy)


def build(layers: Sequence[Mapping[str, Given]]) -> Settings:
    """Merge ``layers``, weakest first, into settings; keys are dotted names.

    Raises ConfigError, with the place of the value, for an unknown key, a wrong
    type and a value outside its limits.
    """
    merged: dict[str, Given] = {}
    for layer in layers:
        for name, given in layer.items():
            if name not in KEYS:
                raise unknown_key(name, tuple(KEYS), given.where)
            merged[name] = given
    groups: dict[str, dict[str, object]] = {}
    for name, given in merged.items():
        group, _, leaf = name.rpartition(".")
        groups.setdefault(group, {})[leaf] = read_value(KEYS[name], given)
    top = groups.pop("", {})
    if "state_dir" not in top:
        raise ConfigError("no state directory", where="state_dir", remedy="give --state DIR")
    groups[""] = top
    for name in tuple(groups):
        groups.setdefault(name.rpartition(".")[0], {})
    # The innermost first, each into the one around it.
    for name in sorted(filter(None, groups), key=lambda group: -group.count(".")):
        around, _, leaf = name.rpartition(".")
        groups[around][leaf] = _group(name)(**typing.cast("dict[str, Any]", groups[name]))
    return Settings(**typing.cast("dict[str, Any]", top))


def _group(name: str) -> type:
    """Return the class of a group of settings."""
    owner: type = Settings
    for part in name.split("."):
        owner = typing.get_type_hints(owner)[part]
    return owner
