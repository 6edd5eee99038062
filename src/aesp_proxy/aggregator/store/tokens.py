"""One-time tokens in the control store: made, used once, listed, taken back.

Rules: a token is known by the hash of its certificate only; using one and registering whom
it lets in are one transaction, so of two uses one wins; a use whose answer was lost may be
asked for again by the same host with the same request, and gives the same certificate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aesp_proxy.aggregator.store.database import Database

_NAME_CHARS: Final = 64  # of SHA-256 in hexadecimal
TOKENS_SCHEMA: Final = """
CREATE TABLE tokens (
    fingerprint BLOB PRIMARY KEY, made_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL,
    origin TEXT NOT NULL, tenants TEXT NOT NULL, labels TEXT NOT NULL,
    used_ns INTEGER, used_by TEXT NOT NULL DEFAULT '', request BLOB, certificate BLOB) STRICT;
CREATE TABLE origin_labels (
    origin TEXT NOT NULL REFERENCES origins(name), name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (origin, name)) STRICT, WITHOUT ROWID
"""


class TokenRefusedError(TrustError):
    """A token that lets nobody in; ``code`` is a word of the API."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTerms:
    """What a token is for: one origin or any (empty), its tenants and labels, its end."""

    fingerprint: bytes
    made_ns: int
    expires_ns: int
    origin: str = ""
    tenants: frozenset[str] = frozenset()
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenState:
    """A token as it stands; ``used_ns`` None and ``used_by`` empty while it is open."""

    terms: TokenTerms
    used_ns: int | None
    used_by: str


class Tokens:
    """The tokens of one control store; in the thread that has its database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, terms: TokenTerms) -> None:
        """Keep a new token's terms, durably."""
        with self._database.transaction():
            self._database.run(
                "INSERT INTO tokens (fingerprint, made_ns, expires_ns, origin, tenants, labels)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    terms.fingerprint,
                    terms.made_ns,
                    terms.expires_ns,
                    terms.origin,
                    json.dumps(sorted(terms.tenants)),
                    json.dumps(terms.labels),
                ),
            )

    def take_back(self, prefix: str) -> int:
        """Remove tokens that nobody has used, by the start of their name; return how many."""
        try:
            first = bytes.fromhex(prefix.ljust(_NAME_CHARS, "0"))
            last = bytes.fromhex(prefix.ljust(_NAME_CHARS, "f"))
        except ValueError:
            return 0  # no hash begins so
        with self._database.transaction():
            return self._database.run(
                "DELETE FROM tokens WHERE used_ns IS NULL AND fingerprint BETWEEN ? AND ?",
                (first, last),
            )

    def all(self) -> list[TokenState]:
        """List every token, newest first."""
        return [_state(row) for row in self._database.rows(_LIST)]

    def use(
        self,
        fingerprint: bytes,
        *,
        origin: str,
        request: bytes,
        now_ns: int,
        admit: Callable[[TokenTerms], bytes],
    ) -> bytes:
        """Use a token up for ``origin`` and give the certificate that ``admit`` issues.

        ``admit`` runs within the transaction: when it raises, the token is as it was.
        TokenRefusedError when the token lets this request in no more, or never did.
        """
        with self._database.transaction():
            rows = self._database.rows(_FIND, (fingerprint,))
            if not rows:
                raise TokenRefusedError("unknown_token", "this token is not known here")
            state, (known_request, known) = _state(rows[0]), rows[0][-2:]
            if state.used_ns is not None:
                if (state.used_by, known_request) == (origin, request):
                    return bytes(known)
                raise TokenRefusedError("token_used", "this token has been used")
            _check(state.terms, origin, now_ns)
            certificate = admit(state.terms)
            self._database.run(
                "UPDATE tokens SET used_ns = ?, used_by = ?, request = ?, certificate = ?"
                " WHERE fingerprint = ?",
                (now_ns, origin, request, certificate, fingerprint),
            )
            return certificate


_LIST: Final = (
    "SELECT fingerprint, made_ns, expires_ns, origin, tenants, labels, used_ns, used_by"
    " FROM tokens ORDER BY made_ns DESC"
)
_FIND: Final = (
    "SELECT fingerprint, made_ns, expires_ns, origin, tenants, labels, used_ns, used_by,"
    " request, certificate FROM tokens WHERE fingerprint = ?"
)


def _state(row: tuple[Any, ...]) -> TokenState:
    terms = TokenTerms(
        fingerprint=row[0],
        made_ns=row[1],
        expires_ns=row[2],
        origin=row[3],
        tenants=frozenset(json.loads(row[4])),
        labels=tuple((name, value) for name, value in json.loads(row[5])),
    )
    return TokenState(terms=terms, used_ns=row[6], used_by=row[7])


def _check(terms: TokenTerms, origin: str, now_ns: int) -> None:
    if now_ns >= terms.expires_ns:
        raise TokenRefusedError("token_expired", "this token has expired")
    if terms.origin not in {"", origin}:
        raise TokenRefusedError("token_for_other_origin", "this token is for another origin")
