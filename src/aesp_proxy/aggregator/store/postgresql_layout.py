"""The tables in PostgreSQL, in a schema of their own, their version, and the way up to it.

The same columns as in SQLite. Texts compare byte by byte, as there. ``positions`` has one
row: it is changed in the transaction that stores batches, so positions have no gap and
stand in the order of the commits, and a reader that saw one has seen all before it.
A new database is made as the first layout and led up the same steps as an old one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.errors import InsufficientPrivilege

from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    import psycopg

SCHEMA: Final = "aesp_proxy"
TABLES: Final = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    "CREATE TABLE layout (version integer PRIMARY KEY)",
    """CREATE TABLE positions (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one), last bigint NOT NULL)""",
    "INSERT INTO positions (last) VALUES (0)",
    """CREATE TABLE batches (
    position bigint PRIMARY KEY,
    origin text COLLATE "C" NOT NULL, batch_no bigint NOT NULL,
    epoch bigint NOT NULL, first_seq bigint NOT NULL, count bigint NOT NULL,
    header_hash bytea NOT NULL, header bytea NOT NULL, signature bytea NOT NULL,
    batch_bytes bigint NOT NULL, received_ns bigint NOT NULL,
    UNIQUE (origin, batch_no))""",
    "CREATE INDEX batches_by_seq ON batches (origin, epoch, first_seq) WHERE count > 0",
    # An origin's row is made before its first batch, to be locked while that is judged.
    'CREATE TABLE heads (origin text COLLATE "C" PRIMARY KEY, head bytea)',
    """CREATE TABLE rotations (
    origin text COLLATE "C" NOT NULL, from_batch bigint NOT NULL,
    key_id text COLLATE "C" NOT NULL UNIQUE, public_key bytea NOT NULL,
    PRIMARY KEY (origin, from_batch))""",
    """CREATE TABLE notices (
    origin text COLLATE "C" NOT NULL, batch_no bigint NOT NULL,
    notice text COLLATE "C" NOT NULL, detail text NOT NULL, noted_ns bigint NOT NULL,
    PRIMARY KEY (origin, batch_no, notice))""",
    """CREATE TABLE receipts (
    origin text COLLATE "C" PRIMARY KEY, batch_no bigint NOT NULL, receipt bytea NOT NULL)""",
    """CREATE TABLE origins (
    name text COLLATE "C" PRIMARY KEY, enrolled_ns bigint NOT NULL,
    key_id text COLLATE "C" NOT NULL UNIQUE, public_key bytea NOT NULL,
    quarantined_ns bigint, quarantine_reason text NOT NULL DEFAULT '')""",
    """CREATE TABLE origin_tenants (
    origin text COLLATE "C" NOT NULL REFERENCES origins(name),
    tenant text COLLATE "C" NOT NULL, PRIMARY KEY (origin, tenant))""",
    """CREATE TABLE origin_labels (
    origin text COLLATE "C" NOT NULL REFERENCES origins(name),
    name text COLLATE "C" NOT NULL, value text NOT NULL, PRIMARY KEY (origin, name))""",
    """CREATE TABLE certificates (
    fingerprint bytea PRIMARY KEY, role text NOT NULL, name text COLLATE "C" NOT NULL,
    issued_ns bigint NOT NULL, not_after_ns bigint NOT NULL, revoked_ns bigint)""",
    "CREATE INDEX certificates_by_name ON certificates (role, name) WHERE revoked_ns IS NULL",
    """CREATE TABLE evidence (
    origin text COLLATE "C" NOT NULL, batch_no bigint NOT NULL, kind text NOT NULL,
    stored_key text NOT NULL, offered_key text COLLATE "C" NOT NULL, noted_ns bigint NOT NULL,
    PRIMARY KEY (origin, offered_key))""",
    """CREATE TABLE refusals (
    origin text COLLATE "C" NOT NULL, kind text COLLATE "C" NOT NULL, count bigint NOT NULL,
    first_ns bigint NOT NULL, last_ns bigint NOT NULL, PRIMARY KEY (origin, kind))""",
    """CREATE TABLE tokens (
    fingerprint bytea PRIMARY KEY, made_ns bigint NOT NULL, expires_ns bigint NOT NULL,
    origin text NOT NULL, tenants text NOT NULL, labels text NOT NULL,
    used_ns bigint, used_by text NOT NULL DEFAULT '', request bytea, certificate bytea)""",
    """CREATE TABLE lanes (
    sink text COLLATE "C" NOT NULL, lane text NOT NULL, position bigint NOT NULL,
    "row" bigint NOT NULL, until_position bigint, PRIMARY KEY (sink, lane))""",
    """CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sink text COLLATE "C" NOT NULL,
    position bigint NOT NULL, "row" bigint NOT NULL, event text NOT NULL, reason text NOT NULL,
    noted_ns bigint NOT NULL, queued bigint NOT NULL DEFAULT 0, UNIQUE (sink, position, "row"))""",
    """CREATE TABLE health (
    sink text COLLATE "C" PRIMARY KEY, delivered bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0, failures bigint NOT NULL DEFAULT 0,
    failing bigint NOT NULL DEFAULT 0, last_delivered_ns bigint NOT NULL DEFAULT 0,
    last_error text NOT NULL DEFAULT '', last_error_ns bigint NOT NULL DEFAULT 0,
    next_try_ns bigint NOT NULL DEFAULT 0, stopped_ns bigint NOT NULL DEFAULT 0,
    dropped bigint NOT NULL DEFAULT 0)""",
)
STEPS: Final = (
    # 2: the turns of leases' holders (store/fences.py).
    ('CREATE TABLE fences (name text COLLATE "C" PRIMARY KEY, number bigint NOT NULL)',),
)
"""What leads from each layout to the next; the first is ``TABLES``."""
VERSION: Final = 1 + len(STEPS)


def bring_up(connection: psycopg.Connection[Any], *, lock: tuple[int, int]) -> None:
    """Make the tables where there are none, or lead an older layout up, all or nothing.

    Of several that try at once one does it, and the others wait (the advisory ``lock``).
    ConfigError for a newer layout, and for a role that may not change an older one.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", lock)
        found = _layout_of(connection)
        if found > VERSION:
            raise ConfigError(
                f"the database has layout {found}, this program knows {VERSION}",
                remedy="use the version that wrote it, or a newer one",
            )
        try:
            _lead_up(connection, found)
        except InsufficientPrivilege as error:
            raise ConfigError(
                f"the database has layout {found}, and this role may not make it {VERSION}",
                remedy="run aesp-proxy aggregator check once as the owner of schema aesp_proxy",
            ) from error


def _layout_of(connection: psycopg.Connection[Any]) -> int:
    """Return the version of the layout, 0 where there are no tables yet."""
    # Asked for first: who has no right to make a schema may use one that is there.
    there = connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.layout",)).fetchall()
    if there[0][0] is None:
        return 0
    return int(connection.execute("SELECT version FROM layout").fetchall()[0][0])


def _lead_up(connection: psycopg.Connection[Any], found: int) -> None:
    if found == 0:
        for text in TABLES:
            connection.execute(text.encode())
        connection.execute("INSERT INTO layout VALUES (1)")
        found = 1
    for number, texts in enumerate(STEPS[found - 1 :], start=found + 1):
        for text in texts:
            connection.execute(text.encode())
        connection.execute("UPDATE layout SET version = %s", (number,))
