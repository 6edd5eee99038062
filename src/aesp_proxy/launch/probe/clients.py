"""Which of the tools on PATH will trust the host CA through the environment of ``run``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from aesp_proxy.launch.environment import VARIABLES
from aesp_proxy.launch.probe.finding import Finding, Group, Level

# By which variable of ``environment.VARIABLES`` each one is reached.
TRUSTING: Final = {
    "curl": "CURL_CA_BUNDLE", "wget": "WGETRC", "git": "GIT_SSL_CAINFO", "pip": "PIP_CERT",
    "pip3": "PIP_CERT", "python3": "SSL_CERT_FILE", "uv": "SSL_CERT_FILE", "conda":
    "REQUESTS_CA_BUNDLE", "node": "NODE_EXTRA_CA_CERTS", "npm": "npm_config_cafile",
    "pnpm": "npm_config_cafile", "yarn": "YARN_HTTPS_CA_FILE_PATH", "bun": "NODE_EXTRA_CA_CERTS",
    "deno": "DENO_CERT", "go": "SSL_CERT_FILE", "cargo": "CARGO_HTTP_CAINFO", "ruby":
    "SSL_CERT_FILE", "bundle": "BUNDLE_SSL_CA_CERT", "perl": "PERL_LWP_SSL_CA_FILE",
    "php": "SSL_CERT_FILE", "openssl": "SSL_CERT_FILE", "aws": "AWS_CA_BUNDLE", "az":
    "REQUESTS_CA_BUNDLE", "gcloud": "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "julia":
    "JULIA_SSL_CA_ROOTS_PATH", "nix": "NIX_SSL_CERT_FILE", "mix": "HEX_CACERTS_PATH",
    "dotnet": "SSL_CERT_FILE", "gh": "SSL_CERT_FILE",
}  # fmt: skip
JAVA: Final = ("java", "mvn", "gradle")
# They keep roots of their own that no variable reaches.
OWN_STORE: Final = {
    "firefox": "certutil -A -d sql:PROFILE -t C -n aesp -i STATE/ca/ca-cert.pem",
    "chromium": "certutil -A -d sql:$HOME/.pki/nssdb -t C -n aesp -i STATE/ca/ca-cert.pem",
    "google-chrome": "certutil -A -d sql:$HOME/.pki/nssdb -t C -n aesp -i STATE/ca/ca-cert.pem",
    "kubectl": "put the CA into the kubeconfig, or list its server in egress.passthrough",
}


def client_findings(which: Callable[[str], str | None]) -> Iterator[Finding]:
    """Yield one finding for the tools that will trust, and one for each that will not."""
    names = {variable.name for variable in VARIABLES}
    trusting = [tool for tool, name in TRUSTING.items() if name in names and which(tool)]
    trusting += [tool for tool in JAVA if which(tool)]
    yield Finding(
        group=Group.CLIENTS,
        name="trust by environment",
        level=Level.OK,
        found=", ".join(trusting) or "none of the tools that are known",
        meaning="they trust the host CA under `run` without being set up",
    )
    for tool, how in OWN_STORE.items():
        if which(tool):
            yield Finding(
                group=Group.CLIENTS,
                name=tool,
                level=Level.WEAKER,
                found="keeps its own roots",
                meaning="its TLS fails under `run` until it is told of the host CA",
                remedy=how,
            )
