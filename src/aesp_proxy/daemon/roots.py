"""The roots that upstream certificates are verified against: the system's and the operator's.

The host's own CA is never among them: a certificate that this proxy made must
not convince this proxy.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

from aesp_proxy.errors import ConfigError
from aesp_proxy.keys import read_bounded, write_atomic


def upstream_roots(ca_file: Path | None, state_dir: Path) -> Path | None:
    """Give the PEM file to verify upstream with; None for the packaged roots alone.

    With ``upstream.ca_file`` the roots are the system's and that file's. Raises
    ``ConfigError`` when the file cannot be read or holds no certificate.
    """
    system = _system_file()
    if ca_file is None:
        return system
    own = read_bounded(ca_file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=own.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:  # not text, nothing in it, or no certificate
        raise ConfigError(
            "holds no certificate in PEM form", where=str(ca_file), remedy="see upstream.ca_file"
        ) from error
    merged = state_dir / "upstream-roots.pem"
    roots = system.read_bytes() if system is not None else b""
    write_atomic(merged, roots + b"\n" + own, mode=0o644)
    return merged


# Where distributions keep their bundle: Debian and Arch, Fedora, openSUSE, Alpine.
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def _system_file() -> Path | None:
    named = (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *_BUNDLES)
    return next((Path(name) for name in named if name and Path(name).is_file()), None)
