"""The settings of the side towards the internet: whom to reach how, TLS, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aesp_proxy.daemon.config_values import Pairs, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """How the proxy reaches the hosts that the policy allows."""

    resolve: Pairs = setting(
        (), "Static addresses: `host` or `host:port` to `address` or `address:port`.",
        form="resolve",
    )  # fmt: skip
    ca_file: Path | None = setting(
        None, "PEM file of roots to trust upstream besides the system's."
    )
    connect_timeout_s: float = setting(
        10.0, "Longest wait for a connection and its handshake.", minimum=0.1, maximum=300
    )
    proxy: str = setting(
        "", "Corporate proxy to reach the internet by: `http://HOST:PORT`, or `https`, `socks5` "
        "(told addresses that were checked) or `socks5h` (told names). It may hold "
        "`user:password@` in the file or the variable, not on the command line.",
        form="proxy", is_secret=True,
    )  # fmt: skip
    proxy_credentials_file: Path | None = setting(
        None, "File with one line, `user:password`, for the corporate proxy; only its owner may "
        "read it.",
    )  # fmt: skip
    proxy_except: str = setting(
        "", "Hosts dialled without the corporate proxy, separated by commas: `host`, `*.host`, "
        "`host:port`, addresses and networks. Loopback and link-local addresses always are.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS with the agent and with upstream, which is always verified."""

    version_min: str = setting(
        "1.2", "Oldest version spoken, with the agent and with upstream.", choices=("1.2", "1.3")
    )
    ciphers: str = setting(
        "", "Suites, by OpenSSL's names, with colons between; those that begin with `TLS_` are "
        "of TLS 1.3. Default is a built-in list.",
    )  # fmt: skip
    client_certificates: Pairs = setting(
        (), "Certificates the proxy shows upstream: `host`, `*.host` or `host:port` to a PEM file "
        "of certificate, chain and key that only its owner may read.", form="files",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Upstream connections that clients of one agent use one after another."""

    connections_max: int = setting(
        64, "Most upstream connections kept for the agent's next client, in each worker; 0 for "
        "none.", minimum=0, maximum=10_000,
    )  # fmt: skip
    per_host_max: int = setting(8, "Most of them for one host and port.", minimum=1, maximum=10_000)
    idle_s_max: float = setting(
        15.0, "Longest time one is kept unused.", minimum=0.1, maximum=3_600
    )
    age_s_max: float = setting(
        300.0, "Longest time since it was dialled: the name may lead elsewhere by then.",
        minimum=1, maximum=86_400,
    )  # fmt: skip
