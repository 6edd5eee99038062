"""Who may ship and read: the ``ControlStore``, the embedded one in SQLite.

Rules: a certificate that is not in this store opens nothing, whoever signed it;
a batch key belongs to one origin for ever; quarantine and its evidence are one
durable transaction. What the operator's commands, or other aggregators, change is
seen at the next question (``Database.version``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.ports import (
    Certificate,
    Evidence,
    Identity,
    Origin,
    Refusals,
    Role,
)
from aesp_proxy.aggregator.store.sqlite import SqliteDatabase, open_database
from aesp_proxy.aggregator.store.tokens import TOKENS_SCHEMA, Tokens
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.signature import key_id_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from aesp_proxy.aggregator.store.database import Database

VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE origins (
    name TEXT PRIMARY KEY, enrolled_ns INTEGER NOT NULL,
    key_id TEXT NOT NULL UNIQUE, public_key BLOB NOT NULL,
    quarantined_ns INTEGER, quarantine_reason TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE origin_tenants (
    origin TEXT NOT NULL REFERENCES origins(name), tenant TEXT NOT NULL,
    PRIMARY KEY (origin, tenant)) STRICT, WITHOUT ROWID;
CREATE TABLE certificates (
    fingerprint BLOB PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL,
    issued_ns INTEGER NOT NULL, not_after_ns INTEGER NOT NULL, revoked_ns INTEGER) STRICT;
CREATE TABLE evidence (
    origin TEXT NOT NULL, batch_no INTEGER NOT NULL, kind TEXT NOT NULL,
    stored_key TEXT NOT NULL, offered_key TEXT NOT NULL, noted_ns INTEGER NOT NULL,
    PRIMARY KEY (origin, offered_key)) STRICT;
CREATE TABLE refusals (
    origin TEXT NOT NULL, kind TEXT NOT NULL, count INTEGER NOT NULL,
    first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    PRIMARY KEY (origin, kind)) STRICT, WITHOUT ROWID;
"""


class Control:
    """The statements, on any database; use an instance in one thread at a time."""

    def __init__(self, database: Database, *, is_remote: bool = False) -> None:
        self._database = database
        self.is_remote = is_remote
        self.tokens = Tokens(database)
        self._origins: dict[str, Origin] = {}
        self._version: int | None = None

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def enrol(
        self,
        name: str,
        *,
        public_key: bytes,
        tenants: frozenset[str],
        certificate: Certificate,
    ) -> None:
        """Register an origin, its key, tenants and certificate together.

        Enrolling again with the same key renews the certificate, adds tenants
        and revokes the certificates issued before. ConfigError when the key is
        another's, or the origin already has another key: replacing a key is a
        rotation, which the old key must sign.
        """
        with self._database.transaction():
            self.enrol_within(name, public_key=public_key, tenants=tenants, certificate=certificate)

    def enrol_within(
        self,
        name: str,
        *,
        public_key: bytes,
        tenants: frozenset[str],
        certificate: Certificate,
        labels: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Do what :meth:`enrol` does within the caller's transaction."""
        self._bind_key(name, public_key, certificate.issued_ns)
        for tenant in sorted(tenants):
            self._run(_ADD_TENANT, (name, tenant))
        for label, value in labels:
            self._run(_SET_LABEL, (name, label, value))
        self._revoke(certificate.identity, certificate.issued_ns)
        self._add_certificate(certificate)
        self._origins.clear()

    def labels(self, name: str) -> dict[str, str]:
        """Return the labels of an origin, by name."""
        sql = "SELECT name, value FROM origin_labels WHERE origin = ? ORDER BY name"
        return dict(self._rows(sql, (name,)))

    def renew(self, certificate: Certificate, *, asked_with: bytes) -> None:
        """Add a certificate beside the one it was asked for with, and revoke every other.

        The old one stays open, for the answer may be lost. It ends by itself.
        """
        identity = certificate.identity
        with self._database.transaction():
            self._run(
                "UPDATE certificates SET revoked_ns = ? WHERE role = ? AND name = ?"
                " AND revoked_ns IS NULL AND fingerprint != ?",
                (certificate.issued_ns, identity.role, identity.name, asked_with),
            )
            self._add_certificate(certificate)

    def admit_reader(self, certificate: Certificate) -> None:
        """Register a reader's certificate, revoking those of the same name before it."""
        with self._database.transaction():
            self._revoke(certificate.identity, certificate.issued_ns)
            self._add_certificate(certificate)

    def revoke(self, identity: Identity, *, now_ns: int) -> int:
        """Shut out every certificate of ``identity``; return how many were open."""
        with self._database.transaction():
            return self._revoke(identity, now_ns)

    def origin(self, name: str) -> Origin | None:
        """Return an enrolled origin, None when unknown."""
        version = self._database.version()
        if version is None or version != self._version:
            self._origins.clear()
            self._version = version
        if name not in self._origins:
            found = self._load_origin(name)
            if found is None:
                return None
            self._origins[name] = found
        return self._origins[name]

    def origins(self) -> list[Origin]:
        """Return every enrolled origin by name."""
        names = [row[0] for row in self._rows("SELECT name FROM origins ORDER BY name", ())]
        return [origin for origin in map(self._load_origin, names) if origin is not None]

    def identity(self, fingerprint: bytes, *, now_ns: int) -> Identity | None:
        """Return who a certificate stands for; None when unknown, revoked or expired."""
        rows = self._rows(
            "SELECT role, name FROM certificates"
            " WHERE fingerprint = ? AND revoked_ns IS NULL AND not_after_ns > ?",
            (fingerprint, now_ns),
        )
        return Identity(role=Role(rows[0][0]), name=rows[0][1]) if rows else None

    def key_owner(self, key_id: str) -> str | None:
        """Return the origin a key is bound to, None when the key is unknown."""
        rows = self._rows("SELECT name FROM origins WHERE key_id = ?", (key_id,))
        return str(rows[0][0]) if rows else None

    def quarantine(self, evidence: Evidence) -> None:
        """Shut the origin out and keep where the evidence is."""
        with self._database.transaction():
            self._run(
                "UPDATE origins SET quarantined_ns = ?, quarantine_reason = ?"
                " WHERE name = ? AND quarantined_ns IS NULL",
                (
                    evidence.noted_ns,
                    f"{evidence.kind} at batch {evidence.batch_no}",
                    evidence.origin,
                ),
            )
            self._run(
                "INSERT INTO evidence VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    evidence.origin,
                    evidence.batch_no,
                    evidence.kind,
                    evidence.stored_key,
                    evidence.offered_key,
                    evidence.noted_ns,
                ),
            )
        self._origins.clear()

    def release(self, name: str) -> bool:
        """End a quarantine; the evidence stays. False when there was none."""
        with self._database.transaction():
            changed = self._database.run(
                "UPDATE origins SET quarantined_ns = NULL, quarantine_reason = ''"
                " WHERE name = ? AND quarantined_ns IS NOT NULL",
                (name,),
            )
        self._origins.clear()
        return changed > 0

    def evidence(self, name: str) -> list[Evidence]:
        """Return the evidence held against an origin, oldest first."""
        rows = self._rows(
            "SELECT origin, batch_no, kind, stored_key, offered_key, noted_ns FROM evidence"
            " WHERE origin = ? ORDER BY noted_ns, offered_key",
            (name,),
        )
        return [
            Evidence(
                origin=row[0],
                batch_no=row[1],
                kind=row[2],
                stored_key=row[3],
                offered_key=row[4],
                noted_ns=row[5],
            )
            for row in rows
        ]

    def note_refusals(self, counts: Mapping[tuple[str, str], int], *, now_ns: int) -> None:
        """Add to the counters of refused batches by (origin, kind)."""
        with self._database.transaction():
            for (origin, kind), count in counts.items():
                self._run(
                    "INSERT INTO refusals VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin, kind)"
                    " DO UPDATE SET count = refusals.count + excluded.count,"
                    " last_ns = excluded.last_ns",
                    (origin, kind, count, now_ns, now_ns),
                )

    def certificate(self, identity: Identity) -> Certificate | None:
        """Return the certificate of ``identity`` that is not revoked, None when there is none."""
        rows = self._rows(
            "SELECT fingerprint, issued_ns, not_after_ns FROM certificates"
            " WHERE role = ? AND name = ? AND revoked_ns IS NULL ORDER BY issued_ns DESC LIMIT 1",
            (identity.role, identity.name),
        )
        if not rows:
            return None
        return Certificate(
            fingerprint=rows[0][0],
            identity=identity,
            issued_ns=rows[0][1],
            not_after_ns=rows[0][2],
        )

    def refusals(self, name: str) -> list[Refusals]:
        """Return the counters of refused batches of an origin, newest first."""
        rows = self._rows(
            "SELECT origin, kind, count, first_ns, last_ns FROM refusals"
            " WHERE origin = ? ORDER BY last_ns DESC, kind",
            (name,),
        )
        return [
            Refusals(origin=row[0], kind=row[1], count=row[2], first_ns=row[3], last_ns=row[4])
            for row in rows
        ]

    def _bind_key(self, name: str, public_key: bytes, now_ns: int) -> None:
        key_id = key_id_of(public_key)
        owner = self.key_owner(key_id)
        if owner is not None and owner != name:
            raise ConfigError(f"key {key_id} already belongs to origin {owner!r}", where=name)
        if owner == name:
            return
        if self._rows("SELECT 1 FROM origins WHERE name = ?", (name,)):
            raise ConfigError(
                "is enrolled with another key",
                where=name,
                remedy="rotate keys on the host, or enrol it under a new origin",
            )
        self._run(
            "INSERT INTO origins (name, enrolled_ns, key_id, public_key) VALUES (?, ?, ?, ?)",
            (name, now_ns, key_id, public_key),
        )

    def _add_certificate(self, certificate: Certificate) -> None:
        self._run(
            "INSERT INTO certificates VALUES (?, ?, ?, ?, ?, NULL)",
            (
                certificate.fingerprint,
                certificate.identity.role,
                certificate.identity.name,
                certificate.issued_ns,
                certificate.not_after_ns,
            ),
        )

    def _revoke(self, identity: Identity, now_ns: int) -> int:
        return self._database.run(
            "UPDATE certificates SET revoked_ns = ?"
            " WHERE role = ? AND name = ? AND revoked_ns IS NULL",
            (now_ns, identity.role, identity.name),
        )

    def _load_origin(self, name: str) -> Origin | None:
        rows = self._rows(
            "SELECT enrolled_ns, public_key, quarantined_ns, quarantine_reason"
            " FROM origins WHERE name = ?",
            (name,),
        )
        if not rows:
            return None
        tenants = self._rows("SELECT tenant FROM origin_tenants WHERE origin = ?", (name,))
        return Origin(
            name=name,
            enrolled_ns=rows[0][0],
            public_key=rows[0][1],
            quarantined_ns=rows[0][2],
            quarantine_reason=rows[0][3],
            tenants=frozenset(row[0] for row in tenants),
        )

    def _run(self, sql: str, values: Sequence[object]) -> None:
        self._database.run(sql, values)

    def _rows(self, sql: str, values: Sequence[object]) -> list[Any]:
        return self._database.rows(sql, values)


class SqliteControl(Control):
    """The embedded one: a SQLite file."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_control_rows(path))


def open_control_rows(path: Path) -> SqliteDatabase:
    """Open the file; its rows as they are, to be copied."""
    connection = open_database(
        path,
        schema=_SCHEMA + TOKENS_SCHEMA,
        version=VERSION,
        durability="FULL",
        upgrades={1: TOKENS_SCHEMA},
    )
    return SqliteDatabase(connection)


_ADD_TENANT: Final = "INSERT INTO origin_tenants VALUES (?, ?) ON CONFLICT DO NOTHING"
_SET_LABEL: Final = (
    "INSERT INTO origin_labels VALUES (?, ?, ?)"
    " ON CONFLICT (origin, name) DO UPDATE SET value = excluded.value"
)
