"""Who the aggregator is: its CA, its server certificate, its receipt key, its data directory.

Everything is made at the first start and only loaded after it. Rules: private
keys are 0600 in directories of 0700; a damaged or mismatched file is a
``ConfigError`` that names it, never silently made again, because hosts have
pinned the CA and the receipt key.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from aesp_proxy import keys
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.signature import (
    Signer,
    key_id_of,
    new_private_pem,
    public_to_pem,
    signer_from_pem,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

SERVER_DAYS: Final = 825
RENEW_BEFORE: Final = timedelta(days=60)


@dataclass(frozen=True, slots=True)
class DataDir:
    """Where each thing stands under ``--data``."""

    root: Path

    @property
    def ca(self) -> Path:
        """The CA's certificate; its key beside it is ``ca.key``."""
        return self.root / "ca" / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """The CA's private key."""
        return self.root / "ca" / "ca.key"

    @property
    def client_ca(self) -> Path:
        """An enterprise's authorities, whose certificates clients may have; need not be there."""
        return self.root / "ca" / "clients.pem"

    @property
    def server(self) -> Path:
        """The server's certificate."""
        return self.root / "tls" / "server.pem"

    @property
    def server_key(self) -> Path:
        """The server's private key."""
        return self.root / "tls" / "server.key"

    @property
    def receipt_key(self) -> Path:
        """The key that signs receipts."""
        return self.root / "receipts" / "receipt.key"

    @property
    def receipt_public(self) -> Path:
        """Its public half, which hosts pin."""
        return self.root / "receipts" / "aggregator.pub"

    @property
    def log_key(self) -> Path:
        """The keys that sign checkpoints of the log, one a line, the newest first."""
        return self.root / "receipts" / "log.key"

    @property
    def log_public(self) -> Path:
        """Their public halves, for witnesses and auditors."""
        return self.root / "receipts" / "log.vkey"

    @property
    def log_policy(self) -> Path:
        """The witnesses to ask and how many are needed; the operator's, absent for none."""
        return self.root / "log.policy"

    @property
    def log_status(self) -> Path:
        """What the process that writes the log last said; advice only."""
        return self.root / "log.json"

    @property
    def witness_ca(self) -> Path:
        """Authorities that witnesses have their certificates of; need not be there."""
        return self.root / "ca" / "witnesses.pem"

    def origin_public(self, origin: str) -> Path:
        """A host's first public key, so that its chain is verified here without asking it."""
        return self.root / "origins" / f"{origin}.pub"

    @property
    def url(self) -> Path:
        """The address last served, as ``enroll`` hands it out."""
        return self.root / "url"

    @property
    def urls(self) -> Path:
        """Where hosts reach all aggregators on the same stores, one a line; absent for one."""
        return self.root / "urls"

    @property
    def ledger(self) -> Path:
        """Headers, heads, receipts."""
        return self.root / "ledger.sqlite"

    @property
    def control(self) -> Path:
        """Origins, certificates, quarantine."""
        return self.root / "control.sqlite"

    @property
    def index(self) -> Path:
        """Events for queries; derived."""
        return self.root / "index.sqlite"

    @property
    def clickhouse(self) -> Path:
        """Events for queries where ClickHouse is embedded; derived, one process's alone."""
        return self.root / "clickhouse"

    @property
    def index_socket(self) -> Path:
        """Where the process answers that has the embedded ClickHouse."""
        return self.root / "index.sock"

    @property
    def store_settings(self) -> Path:
        """Where the stores are; the operator's, absent when all are embedded here."""
        return self.root / "stores.yaml"

    @property
    def export_settings(self) -> Path:
        """The sinks records are exported to; the operator's, absent for none."""
        return self.root / "export.yaml"

    @property
    def exports(self) -> Path:
        """How far each sink has come, and what it refused."""
        return self.root / "exports.sqlite"

    @property
    def export_lock(self) -> Path:
        """Held by the one exporting process."""
        return self.root / "export.lock"

    @property
    def moved(self) -> Path:
        """Where this aggregator was copied to; then it serves no more."""
        return self.root / "moved"

    @property
    def serve_lock(self) -> Path:
        """Held by the one serving process."""
        return self.root / "serve.lock"

    @property
    def index_lock(self) -> Path:
        """Held by the one indexing process."""
        return self.root / "index.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptKey:
    """The aggregator's signing key; ``public_key`` is 32 raw bytes."""

    key_id: str
    public_key: bytes
    sign: Signer


class FileLock:
    """An exclusive lock on a file, held until closed or the process ends (flock(2))."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def take(self, *, wait: bool = False) -> bool:
        """Take the lock; False when another process holds it and ``wait`` is not asked."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"cannot be opened: {error.strerror}", where=str(self._path)
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    @property
    def is_held(self) -> bool:
        """Whether it was taken and not let go."""
        return self._descriptor >= 0

    @property
    def is_in_place(self) -> bool:
        """Whether the path still names the file that is locked: another's would exclude nobody."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except OSError:
            return False

    def __enter__(self) -> Self:
        self.take(wait=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let the lock go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def prepare(root: Path, *, now: datetime) -> DataDir:
    """Make the data directory, CA and receipt key where they are missing; check them.

    Safe to run from several processes at once. ConfigError for a directory that
    cannot be written and for a CA or key that is damaged or expired.
    """
    data = DataDir(root)
    for directory in (root, data.ca.parent, data.server.parent, data.receipt_key.parent):
        keys.make_private_dir(directory)
    with FileLock(root / "setup.lock"):
        if not data.ca.exists() and not data.ca_key.exists():
            cert_pem, key_pem = keys.make_ca("AESP Proxy aggregator CA", now=now)
            keys.write_atomic(data.ca_key, key_pem)
            keys.write_atomic(data.ca, cert_pem, mode=0o644)
        if not data.receipt_key.exists():
            pem = new_private_pem()
            public_key, _ = signer_from_pem(pem)
            keys.write_atomic(data.receipt_public, public_to_pem(public_key), mode=0o644)
            keys.write_atomic(data.receipt_key, pem)
    load_ca(data, now=now)
    load_receipt_key(data)
    return data


def existing(root: Path) -> DataDir:
    """Return a data directory that an aggregator has made; ConfigError when it is none."""
    data = DataDir(root)
    if not data.ca.is_file():
        raise ConfigError(
            "is not an aggregator's data directory",
            where=str(root),
            remedy=f"run aesp-proxy aggregator serve --data {root} once",
        )
    return data


def living(root: Path) -> DataDir:
    """As :func:`existing`, of an aggregator that was not copied away: its stores may be changed."""
    data = existing(root)
    if data.moved.exists():
        raise ConfigError(
            f"was copied away, as {data.moved} says: what is changed here changes nothing there",
            where=str(root),
            remedy="use the copy; remove that file only if the copy will never be served",
        )
    return data


def load_ca(data: DataDir, *, now: datetime) -> keys.KeyPair:
    """Load and check the CA that signs server and client certificates."""
    return keys.load_pair(data.ca, data.ca_key, now=now, is_ca=True)


def load_receipt_key(data: DataDir) -> ReceiptKey:
    """Load the receipt key; ConfigError when it is damaged or not the published one."""
    where = str(data.receipt_key)
    public_key, sign = signer_from_pem(keys.read_bounded(data.receipt_key), where=where)
    if keys.read_bounded(data.receipt_public) != public_to_pem(public_key):
        raise ConfigError(
            f"is not the key of {data.receipt_public}", where=where, remedy="restore both"
        )
    return ReceiptKey(key_id=key_id_of(public_key), public_key=public_key, sign=sign)


def ensure_server_certificate(data: DataDir, names: Sequence[str], *, now: datetime) -> None:
    """Have a server certificate for exactly ``names``, in date for 60 days at least.

    A certificate that is missing, for other names or soon to expire is issued
    again: hosts pin the CA, not this. ConfigError for a damaged file.
    """
    if data.server.exists() and _still_good(data.server, names, now=now):
        keys.load_pair(data.server, data.server_key, now=now)
        return
    cert_pem, key_pem = keys.issue_leaf(
        load_ca(data, now=now), names, purpose=keys.Purpose.SERVER, now=now, days=SERVER_DAYS
    )
    data.server.unlink(missing_ok=True)  # a crash between the two writes leaves no false pair
    keys.write_atomic(data.server_key, key_pem)
    keys.write_atomic(data.server, cert_pem, mode=0o644)


def _still_good(path: Path, names: Sequence[str], *, now: datetime) -> bool:
    try:
        cert = x509.load_pem_x509_certificate(keys.read_bounded(path))
        held = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise ConfigError(
            "holds no readable certificate", where=str(path), remedy="remove it: it is made again"
        ) from error
    return {str(entry.value) for entry in held} == set(
        names
    ) and cert.not_valid_after_utc - now > RENEW_BEFORE


def fingerprint_of(cert_pem: bytes) -> tuple[bytes, int]:
    """Return SHA-256 of a certificate's DER form, and its end in UTC nanoseconds."""
    cert = x509.load_pem_x509_certificate(cert_pem)
    end = cert.not_valid_after_utc - datetime(1970, 1, 1, tzinfo=UTC)
    return cert.fingerprint(SHA256()), int(end.total_seconds()) * 1_000_000_000
