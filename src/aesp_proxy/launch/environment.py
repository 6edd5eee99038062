"""The child's environment: every variable that points a tool chain at the proxy and the CA.

Pure: the launcher's environment goes in, the child's comes out. One table; the
list in ``docs/settings.md`` is generated from it. Variables that would lead around
the proxy (NO_PROXY and its like) are emptied. This steers programs that ask to be
steered and is not a boundary: a program that ignores these variables is caught by
``isolation``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aesp_proxy.launch.trust import JAVA_STORE_PASSWORD, TrustFiles


class Value(StrEnum):
    """What a variable is set to."""

    PROXY_URL = "the proxy's URL"
    PROXY_ADDRESS = "the proxy's host:port"
    CERTIFICATE = "the host CA's certificate"
    BUNDLE = "the bundle: system roots and the host CA"
    WGETRC = "a wgetrc that names the bundle"
    EMPTY = "nothing"
    ONE = "1"


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable, what it is set to, and who reads it."""

    name: str
    value: Value
    readers: str


def _both_cases(name: str, value: Value, readers: str) -> tuple[Variable, Variable]:
    return Variable(name, value, readers), Variable(name.lower(), value, readers)


VARIABLES: Final[tuple[Variable, ...]] = (
    *_both_cases("HTTP_PROXY", Value.PROXY_URL, "nearly everybody, for http"),
    *_both_cases("HTTPS_PROXY", Value.PROXY_URL, "nearly everybody, for https"),
    *_both_cases("ALL_PROXY", Value.PROXY_URL, "curl, git, httpx, aiohttp, Rust, for the rest"),
    *_both_cases("FTP_PROXY", Value.PROXY_URL, "curl, wget, Python's urllib"),
    *_both_cases("WS_PROXY", Value.PROXY_URL, "WebSocket clients"),
    *_both_cases("WSS_PROXY", Value.PROXY_URL, "WebSocket clients"),
    *_both_cases("NO_PROXY", Value.EMPTY, "nearly everybody: nothing goes around"),
    Variable("grpc_proxy", Value.PROXY_URL, "gRPC (C core)"),
    Variable("no_grpc_proxy", Value.EMPTY, "gRPC (C core)"),
    Variable("RSYNC_PROXY", Value.PROXY_ADDRESS, "rsync"),
    Variable("CARGO_HTTP_PROXY", Value.PROXY_URL, "cargo"),
    Variable("npm_config_proxy", Value.PROXY_URL, "npm, yarn 1, pnpm"),
    Variable("npm_config_https_proxy", Value.PROXY_URL, "npm, yarn 1, pnpm"),
    Variable("npm_config_noproxy", Value.EMPTY, "npm, pnpm"),
    Variable("YARN_HTTP_PROXY", Value.PROXY_URL, "yarn 2 and newer"),
    Variable("YARN_HTTPS_PROXY", Value.PROXY_URL, "yarn 2 and newer"),
    Variable("NODE_USE_ENV_PROXY", Value.ONE, "Node 22.21, 24 and newer (fetch, http, https)"),
    Variable("GLOBAL_AGENT_HTTP_PROXY", Value.PROXY_URL, "Node programs with global-agent"),
    Variable("GLOBAL_AGENT_NO_PROXY", Value.EMPTY, "Node programs with global-agent"),
    Variable("ELECTRON_GET_USE_PROXY", Value.ONE, "Electron's downloader"),
    Variable("SSL_CERT_FILE", Value.BUNDLE, "OpenSSL, Go, Ruby, uv, httpx, rustls-native-certs"),
    Variable("CURL_CA_BUNDLE", Value.BUNDLE, "curl, R"),
    Variable("REQUESTS_CA_BUNDLE", Value.BUNDLE, "requests, conda, the Azure CLI"),
    Variable("PIP_CERT", Value.BUNDLE, "pip"),
    Variable("GIT_SSL_CAINFO", Value.BUNDLE, "git"),
    Variable("AWS_CA_BUNDLE", Value.BUNDLE, "the AWS CLI and boto3"),
    Variable("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", Value.BUNDLE, "gcloud"),
    Variable("HTTPLIB2_CA_CERTS", Value.BUNDLE, "httplib2"),
    Variable("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", Value.BUNDLE, "gRPC (C core)"),
    Variable("CARGO_HTTP_CAINFO", Value.BUNDLE, "cargo"),
    Variable("BUNDLE_SSL_CA_CERT", Value.BUNDLE, "Ruby's bundler"),
    Variable("HEX_CACERTS_PATH", Value.BUNDLE, "Erlang's and Elixir's hex"),
    Variable("JULIA_SSL_CA_ROOTS_PATH", Value.BUNDLE, "Julia"),
    Variable("NIX_SSL_CERT_FILE", Value.BUNDLE, "nix"),
    Variable("PERL_LWP_SSL_CA_FILE", Value.BUNDLE, "Perl's LWP"),
    Variable("HTTPS_CA_FILE", Value.BUNDLE, "Perl's Crypt::SSLeay"),
    Variable("npm_config_cafile", Value.BUNDLE, "npm, yarn 1, pnpm"),
    Variable("YARN_HTTPS_CA_FILE_PATH", Value.BUNDLE, "yarn 2 and newer"),
    Variable("NODE_EXTRA_CA_CERTS", Value.CERTIFICATE, "Node, Bun"),
    Variable("DENO_CERT", Value.CERTIFICATE, "Deno"),
    Variable("WGETRC", Value.WGETRC, "wget"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyAddress:
    """Where the proxy listens; ``host`` is an address literal."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


# The operator's own, with a password in it, say: nothing a child may know.
_SECRETS: Final = frozenset({"AESP_UPSTREAM_PROXY"})


def child_environment(
    base: Mapping[str, str], *, proxy: ProxyAddress, trust: TrustFiles
) -> dict[str, str]:
    """Return ``base`` with the child's way out set to ``proxy`` and ``trust``."""
    values = {
        Value.PROXY_URL: f"http://{proxy}",
        Value.PROXY_ADDRESS: str(proxy),
        Value.CERTIFICATE: str(trust.certificate),
        Value.BUNDLE: str(trust.bundle),
        Value.WGETRC: str(trust.wgetrc),
        Value.EMPTY: "",
        Value.ONE: "1",
    }
    environment = {name: value for name, value in base.items() if name not in _SECRETS}
    environment.update({variable.name: values[variable.value] for variable in VARIABLES})
    _configure_git(environment, values[Value.PROXY_URL])
    if trust.java_store is not None:
        _configure_java(environment, proxy, str(trust.java_store))
    return environment


def _configure_git(environment: dict[str, str], proxy_url: str) -> None:
    """Have git use the proxy even when a configuration file names another one.

    git-config(1): GIT_CONFIG_COUNT, KEY_n and VALUE_n override every file, and
    http.proxy overrides the proxy variables.
    """
    count_text = environment.get("GIT_CONFIG_COUNT", "0")
    count = int(count_text) if count_text.isdigit() else 0
    environment[f"GIT_CONFIG_KEY_{count}"] = "http.proxy"
    environment[f"GIT_CONFIG_VALUE_{count}"] = proxy_url
    environment["GIT_CONFIG_COUNT"] = str(count + 1)


def _configure_java(environment: dict[str, str], proxy: ProxyAddress, store: str) -> None:
    """Set what a Java machine takes from JAVA_TOOL_OPTIONS, after what stands there."""
    options = [
        f"-Dhttp.proxyHost={proxy.host}",
        f"-Dhttp.proxyPort={proxy.port}",
        f"-Dhttps.proxyHost={proxy.host}",
        f"-Dhttps.proxyPort={proxy.port}",
        "-Dhttp.nonProxyHosts=",
        f"-Djavax.net.ssl.trustStore={store}",
        f"-Djavax.net.ssl.trustStorePassword={JAVA_STORE_PASSWORD}",
        "-Djavax.net.ssl.trustStoreType=PKCS12",
    ]
    quoted = [f'"{option}"' if " " in option else option for option in options]
    before = environment.get("JAVA_TOOL_OPTIONS", "")
    environment["JAVA_TOOL_OPTIONS"] = " ".join([before, *quoted] if before else quoted)
