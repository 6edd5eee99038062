"""What the operator says of TLS: versions, ciphers, and who the proxy is to which host.

Verification of upstream is not among it: it cannot be turned off.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from OpenSSL import SSL

from aesp_proxy.decide.policy.hosts import HostIndex, HostRule, parse_host_rule
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError
from aesp_proxy.keys import check_identity
from aesp_proxy.model.host import Host

_WHERE: Final = "tls.client_certificates"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_OPTIONS = {"1.2": "TLS1_2", "1.3": "TLS1_3"}
# OpenSSL's names of suites without authentication or encryption begin or end like this.
_EMPTY: Final = ("ADH-", "AECDH-", "NULL", "EXP-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ciphers:
    """Suites in order of preference; empty where the built-in list holds."""

    before_1_3: str = ""
    of_1_3: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificates:
    """PEM files with certificate, chain and key, by the hosts they are shown to."""

    index: HostIndex
    files: dict[HostRule, Path]

    def file_for(self, host: Host, port: int) -> Path | None:
        """Give the file for a host, the most exact entry first; None for no certificate."""
        rule = self.index.find(host, port)
        return None if rule is None else self.files[rule]


def _no_certificates() -> ClientCertificates:
    return ClientCertificates(
        index=HostIndex((), ports_without=None, any_is_address=True), files={}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """TLS with the agent and with upstream."""

    version_min: str = "1.2"
    ciphers: Ciphers = Ciphers()
    certificates: ClientCertificates = field(default_factory=_no_certificates)

    @property
    def options(self) -> dict[str, str | None]:
        """The options of mitmproxy that say it."""
        version, ciphers = _OPTIONS[self.version_min], self.ciphers.before_1_3 or None
        return {
            "tls_version_client_min": version,
            "tls_version_server_min": version,
            "ciphers_client": ciphers,
            "ciphers_server": ciphers,
        }


def proxy_context(
    settings: TlsSettings, roots: Path | None, host: Host, port: int
) -> ssl.SSLContext:
    """Make what TLS with a corporate proxy is verified and spoken by.

    The suites of TLS 1.3 are Python's to choose and stay as they are.
    """
    context = ssl.create_default_context(cafile=roots)
    context.minimum_version = _VERSIONS[settings.version_min]
    context.set_alpn_protocols(["http/1.1"])
    if settings.ciphers.before_1_3:
        context.set_ciphers(settings.ciphers.before_1_3)
    file = settings.certificates.file_for(host, port)
    if file is not None:
        context.load_cert_chain(file)
    return context


def parse_ciphers(text: str) -> Ciphers:
    """Read ``tls.ciphers``: OpenSSL's names and words, separated by colons.

    Names that begin with ``TLS_`` are suites of TLS 1.3. Raises ``ConfigError`` for what
    OpenSSL does not know, and for suites that do not encrypt or do not authenticate.
    """
    words = [word.strip() for word in text.split(":") if word.strip()]
    of_1_3 = ":".join(word for word in words if word.startswith("TLS_"))
    before = ":".join(word for word in words if not word.startswith("TLS_"))
    context = SSL.Context(SSL.TLS_METHOD)
    if any(word.startswith("@SECLEVEL") for word in words):
        raise ConfigError("the security level of OpenSSL stays as it is", where="tls.ciphers")
    try:
        if of_1_3:
            context.set_tls13_ciphersuites(of_1_3.encode("ascii"))
        if before:
            context.set_cipher_list(before.encode("ascii"))
    except (SSL.Error, UnicodeEncodeError) as error:
        raise ConfigError(
            "OpenSSL knows no such suites", where="tls.ciphers", remedy="see `openssl ciphers -v`"
        ) from error
    for name in SSL.Connection(context).get_cipher_list():
        if name.startswith(_EMPTY) or "NULL" in name:
            raise ConfigError(
                f"{name} does not encrypt or does not authenticate", where="tls.ciphers"
            )
    return Ciphers(before_1_3=before, of_1_3=of_1_3)


def client_certificates(entries: Sequence[tuple[str, str]]) -> ClientCertificates:
    """Read ``tls.client_certificates``: hosts, as in a policy, to files.

    Raises ``ConfigError`` for a file that others may read, that holds no certificate with
    its key, or whose key asks for a passphrase.
    """
    files: dict[HostRule, Path] = {}
    for name, file in entries:
        rule = parse_host_rule(Sourced(name, f"{_WHERE}.{name}"))
        files[rule] = Path(file)
        check_identity(Path(file))
    index = HostIndex(files, ports_without=None, any_is_address=True)
    return ClientCertificates(index=index, files=files)
