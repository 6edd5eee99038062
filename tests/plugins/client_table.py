"""The tool chains that agents use, as one table: how each is sent, and what it says when refused.

``tests/live/test_clients.py`` plays every row through every entry, with no other variable
set than the row names; ``docs/clients.md`` is written from it. So what an operator reads
there has been seen to work, and what an agent is told when refused stands there word for word.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ROOT / "tests/clients"
NODE_MODULES = ROOT / ".cache/clients/node_modules"
PYTHON = (sys.executable, str(PROGRAMS / "python_client.py"))
NODE = ("node", str(PROGRAMS / "fetch.mjs"))
REASON = "AESP Proxy: "


class Entry(StrEnum):
    """How a connection comes to the proxy."""

    EXPLICIT = "explicit"
    CAPTURED = "captured"
    SOCKS = "socks"


class Verdict(StrEnum):
    """What the policy makes of a case."""

    ALLOWED = "allowed"
    HOST = "host"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a refused client ends with: its exit code, and the words among what it prints."""

    code: int
    text: str


NO_NAME = "Name or service not known"
SOCKS_RULES = "Connection not allowed by ruleset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One program, or one library with the few lines around it that its page begins with.

    ``words`` is the command; ``{url}``, ``{host}`` and ``{path}`` stand for the case's own, and
    ``{proxy}`` for the proxy's host and port. ``proxy`` and ``trust`` name the variables it
    reads, of those that ``run`` sets; without ``proxy`` it knows none, and is captured. ``socks``
    is what to set for SOCKS5; None where it cannot. ``tamed`` stops it from trying again for a
    minute.
    """

    name: str
    title: str
    words: tuple[str, ...]
    proxy: tuple[str, ...]
    trust: tuple[str, ...]
    host: Refusal
    captured: Refusal
    request: Refusal
    socks: Mapping[str, str] | None = None
    socks_host: Refusal | None = None
    shows: str = "the origin's own words"
    note: str = ""
    server: str = "http"
    scheme: str = "https"
    input: str = ""
    captured_words: tuple[str, ...] = ()
    socks_words: tuple[str, ...] = ()
    tamed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    modules: tuple[str, ...] = ()
    asks_names: tuple[Entry, ...] = ()

    def words_of(self, entry: Entry) -> tuple[str, ...]:
        """Return the command for an entry."""
        if entry is Entry.CAPTURED and self.captured_words:
            return self.captured_words
        if entry is Entry.SOCKS and self.socks_words:
            return self.socks_words
        return self.words

    def refusal(self, entry: Entry, verdict: Verdict) -> Refusal:
        """Return what it shows when refused."""
        if verdict is Verdict.REQUEST:
            return self.request
        if entry is Entry.SOCKS and self.socks_host is not None:
            return self.socks_host
        if entry is Entry.EXPLICIT and self.proxy:
            return self.host
        return self.captured

    def resolves(self, entry: Entry) -> bool:
        """Whether it asks for the host's name before it connects, as only the captured do."""
        return entry in self.asks_names or not self.proxy or entry is Entry.CAPTURED


@dataclass(frozen=True, slots=True)
class Case:
    """A client, an entry and a verdict; each has a host name of its own, by which it is found."""

    client: Client
    entry: Entry
    verdict: Verdict

    @property
    def name(self) -> str:
        """Return what the case is called, in tests and as the first label of its host."""
        return f"{self.client.name}-{self.entry}-{self.verdict}"


def cases() -> Iterator[Case]:
    """Yield them all; a refused request, which is the same HTTP through all, for one entry."""
    for client in CLIENTS:
        for entry in Entry:
            if entry is Entry.SOCKS and client.socks is None:
                continue
            for verdict in Verdict:
                if verdict is Verdict.REQUEST and entry is not Entry.EXPLICIT:
                    continue
                yield Case(client, entry, verdict)


_SOCKS = MappingProxyType({"ALL_PROXY": "socks5h://{proxy}"})
_SOCKS_HTTPS = MappingProxyType({"HTTPS_PROXY": "socks5h://{proxy}"})
_BODY = "this part is closed to agents"


def _python(name: str, **more: object) -> Client:
    """Make the row of a library for Python, whose refusals end a program by a traceback."""
    row: dict[str, object] = {
        "name": name,
        "words": (*PYTHON, name, "{url}/answer"),
        "proxy": ("HTTPS_PROXY",),
        "trust": ("SSL_CERT_FILE",),
        "captured": Refusal(1, NO_NAME),
        "request": Refusal(1, _BODY),
        "modules": (name,),
    }
    return Client(**{**row, **more})  # type: ignore[arg-type]


CLIENTS: tuple[Client, ...] = (
    Client(
        name="curl",
        title="curl",
        words=("curl", "-sS", "--fail-with-body", "{url}/answer"),
        proxy=("HTTPS_PROXY",),
        trust=("CURL_CA_BUNDLE",),
        socks=_SOCKS,
        host=Refusal(56, "CONNECT tunnel failed, response 403"),
        captured=Refusal(6, "Could not resolve host"),
        socks_host=Refusal(97, "SOCKS5 connection to"),
        request=Refusal(22, _BODY),
        note="`-v` shows the reason of a refused CONNECT",
    ),
    Client(
        name="curl-http",
        title="curl, `http://`",
        words=("curl", "-sS", "--fail-with-body", "{url}/answer"),
        proxy=("http_proxy",),
        trust=(),
        socks=_SOCKS,
        scheme="http",
        server="plain",
        host=Refusal(22, '"reason": "host_not_allowed"'),
        captured=Refusal(6, "Could not resolve host"),
        socks_host=Refusal(97, "SOCKS5 connection to"),
        request=Refusal(22, _BODY),
        note="`HTTP_PROXY` in capitals is not read",
    ),
    Client(
        name="wget",
        title="wget",
        words=("wget", "-nv", "-O-", "{url}/answer"),
        proxy=("https_proxy",),
        trust=("WGETRC",),
        host=Refusal(4, "Proxy tunneling failed: Forbidden (AESP Proxy: host_not_allowed)"),
        captured=Refusal(4, "unable to resolve host address"),
        request=Refusal(8, "ERROR 403: Forbidden (AESP Proxy: rule_denied)"),
    ),
    Client(
        name="git",
        title="git over HTTPS: clone, push",
        words=("sh", str(PROGRAMS / "git.sh"), "{url}"),
        proxy=("HTTPS_PROXY",),
        trust=("GIT_SSL_CAINFO",),
        socks=_SOCKS,
        host=Refusal(128, "CONNECT tunnel failed, response 403"),
        captured=Refusal(128, "Could not resolve host"),
        socks_host=Refusal(128, "SOCKS5 connection to"),
        request=Refusal(128, "The requested URL returned error: 403"),
        note="`http.proxy` in a configuration file wins over the variables; `run` overrides it",
    ),
    Client(
        name="pip",
        title="pip",
        words=(
            *(sys.executable, "-m", "pip", "install", "--disable-pip-version-check"),
            *("--no-cache-dir", "--target", "packages", "--index-url", "{url}/simple/", "tinypack"),
        ),
        proxy=("HTTPS_PROXY",),
        trust=("PIP_CERT",),
        socks=_SOCKS_HTTPS,
        shows="Successfully installed tinypack-1.0",
        host=Refusal(1, "Tunnel connection failed: 403 Forbidden (AESP Proxy: host_not_allowed)"),
        captured=Refusal(1, NO_NAME),
        socks_host=Refusal(1, SOCKS_RULES),
        request=Refusal(1, "No matching distribution found"),
        tamed=MappingProxyType({"PIP_RETRIES": "1", "PIP_CONFIG_FILE": "/dev/null"}),
        note="tries a refused host 6 times (8 s): `PIP_RETRIES=0`; SOCKS needs PySocks beside it; "
        "`-v` shows a 403 of the index",
    ),
    Client(
        name="uv",
        title="uv",
        words=(
            *("uv", "pip", "install", "--no-cache", "--python", sys.executable),
            *("--target", "packages", "--index-url", "{url}/simple/", "tinypack"),
        ),
        proxy=("HTTPS_PROXY",),
        trust=("SSL_CERT_FILE",),
        socks=_SOCKS,
        shows="+ tinypack==1.0",
        host=Refusal(2, "tunnel error: unsuccessful"),
        captured=Refusal(2, NO_NAME),
        socks_host=Refusal(2, "SOCKS error: connection not allowed"),
        request=Refusal(1, "returned a 403 Forbidden error"),
        tamed=MappingProxyType({"UV_HTTP_RETRIES": "0", "UV_NO_CONFIG": "1"}),
        note="tries a refused host 4 times (8 s): `UV_HTTP_RETRIES=0`",
    ),
    Client(
        name="npm",
        title="npm",
        words=(
            *("npm", "install", "--cache", "cache", "--prefix", ".", "--no-audit", "--no-fund"),
            *("--registry", "{url}/npm/", "tinypack"),
        ),
        proxy=("npm_config_https_proxy",),
        trust=("npm_config_cafile",),
        socks=MappingProxyType({"npm_config_https_proxy": "socks5h://{proxy}"}),
        shows="added 1 package",
        host=Refusal(1, "403 Forbidden"),
        captured=Refusal(1, "ENOTFOUND"),
        socks_host=Refusal(1, "Socks5 proxy rejected connection - NotAllowed"),
        request=Refusal(1, "403 Forbidden"),
        tamed=MappingProxyType(
            {"npm_config_fetch_retries": "0", "npm_config_update_notifier": "false"}
        ),
        note="tries a name that is refused 3 times (70 s): `npm_config_fetch_retries=0`",
    ),
    Client(
        name="node-fetch",
        title="Node: `fetch`",
        words=(*NODE, "fetch", "{url}/answer"),
        proxy=(),
        trust=("NODE_EXTRA_CA_CERTS",),
        host=Refusal(1, "getaddrinfo ENOTFOUND"),
        captured=Refusal(1, "getaddrinfo ENOTFOUND"),
        request=Refusal(1, _BODY),
        note="Node 22.21, 24 and newer use `HTTPS_PROXY` with `NODE_USE_ENV_PROXY=1`, "
        "which `run` sets; those before know no proxy",
    ),
    Client(
        name="node-https",
        title="Node: `https.get`",
        words=(*NODE, "https", "{url}/answer"),
        proxy=(),
        trust=("NODE_EXTRA_CA_CERTS",),
        host=Refusal(1, "getaddrinfo ENOTFOUND"),
        captured=Refusal(1, "getaddrinfo ENOTFOUND"),
        request=Refusal(1, _BODY),
        note="the same",
    ),
    Client(
        name="undici",
        title="Node: undici's `EnvHttpProxyAgent`",
        words=(*NODE, "undici", "{url}/answer"),
        proxy=("HTTPS_PROXY",),
        trust=("NODE_EXTRA_CA_CERTS",),
        host=Refusal(1, "Proxy response (403) !== 200 when HTTP Tunneling"),
        captured=Refusal(1, "getaddrinfo ENOTFOUND"),
        request=Refusal(1, _BODY),
        modules=("undici",),
    ),
    Client(
        name="proxy-agent",
        title="Node: `https.get` with proxy-agent",
        words=(*NODE, "agent", "{url}/answer"),
        proxy=("HTTPS_PROXY",),
        trust=("NODE_EXTRA_CA_CERTS",),
        socks=_SOCKS_HTTPS,
        host=Refusal(1, '"reason": "host_not_allowed"'),
        captured=Refusal(1, "getaddrinfo ENOTFOUND"),
        socks_host=Refusal(1, "Socks5 proxy rejected connection - NotAllowed"),
        request=Refusal(1, _BODY),
        modules=("proxy-agent",),
    ),
    _python(
        "urllib",
        title="Python: urllib",
        host=Refusal(1, "Tunnel connection failed: 403 Forbidden (AESP Proxy: host_not_allowed)"),
        request=Refusal(1, "HTTP Error 403: Forbidden (AESP Proxy: rule_denied)"),
        modules=(),
    ),
    _python(
        "requests",
        title="Python: requests",
        trust=("REQUESTS_CA_BUNDLE",),
        socks=_SOCKS,
        host=Refusal(1, "Tunnel connection failed: 403 Forbidden (AESP Proxy: host_not_allowed)"),
        socks_host=Refusal(1, SOCKS_RULES),
        note="SOCKS: `requests[socks]`",
    ),
    _python(
        "httpx",
        title="Python: httpx",
        socks=_SOCKS,
        host=Refusal(1, "403 Forbidden (AESP Proxy: host_not_allowed)"),
        socks_host=Refusal(1, SOCKS_RULES),
        note="SOCKS: `httpx[socks]`",
    ),
    _python(
        "aiohttp",
        title="Python: aiohttp",
        host=Refusal(1, "403, message='Forbidden (AESP Proxy: host_not_allowed)'"),
        note="with `ClientSession(trust_env=True)`; without it, it is captured",
    ),
    _python(
        "websockets",
        title="Python: websockets",
        words=(*PYTHON, "websockets", "{url}/"),
        socks=MappingProxyType({"WSS_PROXY": "socks5h://{proxy}"}),
        shows="one 150000",
        server="websocket",
        host=Refusal(1, "proxy rejected connection: HTTP 403"),
        socks_host=Refusal(1, SOCKS_RULES),
        request=Refusal(1, "server rejected WebSocket connection: HTTP 403"),
        note="15 and newer know proxies; SOCKS: python-socks beside it",
    ),
    Client(
        name="grpc",
        title="Python: grpcio",
        words=(sys.executable, str(PROGRAMS / "grpc_client.py"), "{url}"),
        proxy=("grpc_proxy",),
        trust=("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",),
        shows="the origin's own words one 3 0 1 2 42",
        server="grpc",
        host=Refusal(1, "HTTP proxy returned response code 403"),
        captured=Refusal(1, "Domain name not found"),
        request=Refusal(
            1, f"PERMISSION_DENIED: {REASON}rule_denied: the rule closed denies it: {_BODY}"
        ),
        modules=("grpc",),
        note="also reads `https_proxy`; C, C++, Ruby, PHP and others share this core",
    ),
    Client(
        name="java-client",
        title="Java: `HttpClient`",
        words=("java", "-cp", "{classes}", "Fetch", "client", "{url}/answer"),
        proxy=("JAVA_TOOL_OPTIONS",),
        trust=("JAVA_TOOL_OPTIONS",),
        host=Refusal(1, "Tunnel failed, got: 403"),
        captured=Refusal(1, "UnresolvedAddressException"),
        request=Refusal(1, _BODY),
    ),
    Client(
        name="java-url",
        title="Java: `URLConnection`",
        words=("java", "-cp", "{classes}", "Fetch", "url", "{url}/answer"),
        proxy=("JAVA_TOOL_OPTIONS",),
        trust=("JAVA_TOOL_OPTIONS",),
        socks=MappingProxyType({}),
        socks_words=(
            *("java", "-DsocksProxyHost={proxy_host}", "-DsocksProxyPort={proxy_port}"),
            *("-cp", "{classes}", "Fetch", "url", "{url}/answer"),
        ),
        host=Refusal(1, 'Proxy returns "HTTP/1.1 403 Forbidden (AESP Proxy: host_not_allowed)"'),
        captured=Refusal(1, "java.net.UnknownHostException"),
        socks_host=Refusal(1, "SOCKS: Connection not allowed by ruleset"),
        request=Refusal(1, _BODY),
        asks_names=(Entry.SOCKS,),
        note="SOCKS: `-DsocksProxyHost`, `-DsocksProxyPort`; asks for the host's name itself",
    ),
    Client(
        name="go",
        title="Go: `net/http` (rclone)",
        words=("rclone", "copyurl", "--stdout", "--retries=1", "{url}/answer"),
        proxy=("HTTPS_PROXY",),
        trust=("SSL_CERT_FILE",),
        socks=MappingProxyType({"HTTPS_PROXY": "socks5://{proxy}"}),
        host=Refusal(1, "Forbidden (AESP Proxy: host_not_allowed)"),
        captured=Refusal(1, "no such host"),
        socks_host=Refusal(1, "connection not allowed by ruleset"),
        request=Refusal(1, "403 Forbidden (AESP Proxy: rule_denied)"),
    ),
    Client(
        name="ruby",
        title="Ruby: `Net::HTTP`",
        words=("ruby", str(PROGRAMS / "fetch.rb"), "{url}/answer"),
        proxy=("http_proxy",),
        trust=("SSL_CERT_FILE",),
        host=Refusal(1, '403 "Forbidden (AESP Proxy: host_not_allowed)"'),
        captured=Refusal(1, NO_NAME),
        request=Refusal(1, _BODY),
        asks_names=(Entry.EXPLICIT,),
        note="reads `http_proxy` for `https://` too, and asks for the host's name first",
    ),
    Client(
        name="perl",
        title="Perl: LWP",
        words=("perl", str(PROGRAMS / "fetch.pl"), "{url}/answer"),
        proxy=("https_proxy",),
        trust=("PERL_LWP_SSL_CA_FILE",),
        host=Refusal(
            1, "establishing SSL tunnel failed: 403 Forbidden (AESP Proxy: host_not_allowed)"
        ),
        captured=Refusal(1, NO_NAME),
        request=Refusal(1, _BODY),
        note="with `env_proxy`",
    ),
    Client(
        name="cargo",
        title="cargo",
        words=("cargo", "search", "tinypack", "--registry", "ours"),
        proxy=("CARGO_HTTP_PROXY",),
        trust=("CARGO_HTTP_CAINFO",),
        socks=MappingProxyType({"CARGO_HTTP_PROXY": "socks5h://{proxy}"}),
        host=Refusal(101, "CONNECT tunnel failed, response 403"),
        captured=Refusal(101, "Could not resolve host"),
        socks_host=Refusal(101, "SOCKS5 connection to"),
        request=Refusal(101, _BODY),
        tamed=MappingProxyType({"CARGO_NET_RETRY": "0", "CARGO_REGISTRIES_OURS_TOKEN": "none"}),
        note="tries a refused host 4 times (10 s): `CARGO_NET_RETRY=0`",
    ),
    Client(
        name="aws",
        title="AWS CLI",
        words=("aws", "sts", "get-caller-identity", "--endpoint-url", "{url}/aws"),
        proxy=("HTTPS_PROXY",),
        trust=("AWS_CA_BUNDLE",),
        host=Refusal(255, "Failed to connect to proxy URL"),
        captured=Refusal(255, "Could not connect to the endpoint URL"),
        request=Refusal(255, _BODY),
        tamed=MappingProxyType(
            {
                "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
                "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_MAX_ATTEMPTS": "1",
            }
        ),
        note="the access key id that it sends is a secret until the policy's `credentials` let it "
        "go home",
    ),
    Client(
        name="s-client",
        title="openssl s_client",
        words=(
            *("openssl", "s_client", "-quiet", "-verify_return_error", "-proxy", "{proxy}"),
            *("-connect", "{host}:443", "-servername", "{host}"),
        ),
        captured_words=(
            *("openssl", "s_client", "-quiet", "-verify_return_error"),
            *("-connect", "{host}:443", "-servername", "{host}"),
        ),
        proxy=("-proxy",),
        trust=("SSL_CERT_FILE",),
        input="GET {path}/answer HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
        host=Refusal(1, "403 Forbidden (AESP Proxy: host_not_allowed)"),
        captured=Refusal(1, NO_NAME),
        request=Refusal(0, "HTTP/1.1 403 Forbidden (AESP Proxy: rule_denied)"),
        note="reads no variable for proxies; `-servername` (SNI) must name the host",
    ),
)
