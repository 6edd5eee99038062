"""Let hosts and readers in: a certificate each, bound to a name in the control store.

A host's batch key and its certificate are registered together, by an operator
who has access to the data directory. Hosts that can reach the aggregator enrol
themselves: ``admission``.

Rules: the certificate is bound by its fingerprint, so one that this CA signed
and this store does not know opens nothing; enrolling again replaces the
certificate and never the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aesp_proxy import keys
from aesp_proxy.aggregator.identity import (
    DataDir,
    fingerprint_of,
    load_ca,
    load_receipt_key,
)
from aesp_proxy.aggregator.ports import Certificate, Identity, Role
from aesp_proxy.aggregator.stores import open_control
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.header import decode_header, is_origin
from aesp_proxy.record.signature import key_id_of, public_from_pem, public_to_pem
from aesp_proxy.record.state import audit_paths, load_origin, numbered_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

CLIENT_DAYS: Final = 397
READER_CHARS_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """An origin and the raw public key of its first batch."""

    origin: str
    public_key: bytes


def host_of_state(state: Path) -> HostKey:
    """Read origin and first key from a host's state directory on this machine."""
    paths = audit_paths(state)
    origin = load_origin(paths)
    public_keys = {}
    for path in sorted(paths.keys.glob("*.pub")):
        public_key = public_from_pem(keys.read_bounded(path), where=str(path))
        public_keys[key_id_of(public_key)] = public_key
    if not public_keys:
        raise ConfigError(
            "holds no public key", where=str(paths.keys), remedy="run the host once, then enrol it"
        )
    if len(public_keys) == 1:
        return HostKey(origin=origin, public_key=next(iter(public_keys.values())))
    key_id = _first_key_id(state)
    if key_id not in public_keys:
        raise ConfigError(
            "holds several keys and not that of the first batch",
            where=str(paths.keys),
            remedy="give --origin and --key",
        )
    return HostKey(origin=origin, public_key=public_keys[key_id])


def host_of_key(origin: str, key_file: Path) -> HostKey:
    """Read a host's public key (PEM) that was brought here, for the origin named."""
    if not is_origin(origin):
        raise ConfigError(f"{origin!r} cannot name an origin", remedy="use a-z 0-9 . _ -")
    pem = keys.read_bounded(key_file)
    return HostKey(origin=origin, public_key=public_from_pem(pem, where=str(key_file)))


def enrol_host(
    data: DataDir,
    host: HostKey,
    *,
    out: Path,
    url: str,
    tenants: Sequence[str],
    now: datetime,
) -> Certificate:
    """Register a host and write its ``forward`` directory to ``out``; ``url`` one a line.

    ConfigError when the origin or its key belongs to another host.
    """
    identity = Identity(role=Role.HOST, name=host.origin)
    certificate, cert_pem, key_pem = _issue(data, identity, now=now)
    control = open_control(data)
    try:
        keys.make_private_dir(out)
        control.enrol(
            host.origin,
            public_key=host.public_key,
            tenants=frozenset(tenants),
            certificate=certificate,
        )
    finally:
        control.close()
    keep_public_key(data, host.origin, host.public_key)
    _write_client(data, out, cert_pem=cert_pem, key_pem=key_pem, url=url)
    return certificate


def keep_public_key(data: DataDir, origin: str, public_key: bytes) -> None:
    """Write a host's first public key, by which ``audit verify`` checks its chain here."""
    place = data.origin_public(origin)
    keys.make_private_dir(place.parent)
    keys.write_atomic(place, public_to_pem(public_key), mode=0o644)


def admit_reader(data: DataDir, name: str, *, out: Path, url: str, now: datetime) -> Certificate:
    """Register a reader, who may query everything, and write its directory to ``out``."""
    if not is_origin(name) or len(name) > READER_CHARS_MAX:
        raise ConfigError(f"{name!r} cannot name a reader", remedy="use a-z 0-9 . _ -")
    identity = Identity(role=Role.READER, name=name)
    certificate, cert_pem, key_pem = _issue(data, identity, now=now)
    control = open_control(data)
    try:
        keys.make_private_dir(out)
        control.admit_reader(certificate)
    finally:
        control.close()
    _write_client(data, out, cert_pem=cert_pem, key_pem=key_pem, url=url)
    return certificate


def served_urls(data: DataDir) -> tuple[str, ...]:
    """Return where hosts reach the aggregators; ConfigError when this one never served."""
    for path in (data.urls, data.url):
        try:
            return tuple(path.read_text("ascii").split())
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("cannot be read", where=str(path), remedy="start it again") from error
    raise ConfigError(
        "no address is known yet",
        where=str(data.url),
        remedy="start the aggregator once, or give --url",
    )


def _issue(data: DataDir, identity: Identity, *, now: datetime) -> tuple[Certificate, bytes, bytes]:
    cert_pem, key_pem = keys.issue_leaf(
        load_ca(data, now=now),
        (),
        purpose=keys.Purpose.CLIENT,
        now=now,
        days=CLIENT_DAYS,
        common_name=f"{identity.role} {identity.name}",
        uris=(f"urn:aesp-proxy:{identity.role}:{identity.name}",),
    )
    fingerprint, not_after_ns = fingerprint_of(cert_pem)
    issued_ns = int((now - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e9)
    certificate = Certificate(
        fingerprint=fingerprint, identity=identity, issued_ns=issued_ns, not_after_ns=not_after_ns
    )
    return certificate, cert_pem, key_pem


def _write_client(data: DataDir, out: Path, *, cert_pem: bytes, key_pem: bytes, url: str) -> None:
    """Write what a client needs; ``url`` last, because its presence says "complete"."""
    keys.make_private_dir(out)
    receipt_key = load_receipt_key(data)
    (out / "url").unlink(missing_ok=True)
    keys.write_atomic(out / "ca.pem", keys.read_bounded(data.ca), mode=0o644)
    keys.write_atomic(out / "client.key", key_pem)
    keys.write_atomic(out / "client.pem", cert_pem, mode=0o644)
    keys.write_atomic(out / "aggregator.pub", public_to_pem(receipt_key.public_key), mode=0o644)
    keys.write_atomic(out / "url", url.encode() + b"\n", mode=0o644)


def _first_key_id(state: Path) -> str:
    batches = numbered_batches(audit_paths(state).batches)
    if not batches or batches[0][0] != 1:
        return ""
    try:
        return decode_header(decode_batch(batches[0][1].read_bytes()).header_bytes).key_id
    except (OSError, ChainError) as error:
        raise ConfigError("is damaged", where=str(batches[0][1])) from error
