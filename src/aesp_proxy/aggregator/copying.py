"""Copy a whole aggregator into other stores: what grew too large embedded, and back.

The order: nothing serves either side; keys and settings, so that hosts take the copy for the
same aggregator; batches in the order of their positions, each held against its accepted hash,
the object before its row; then the other rows, evidence, and the log's files. Then the copy is
proved: every batch, every row, the whole log. Only then the old one is marked as moved and the
new one gets its authority's certificate, without which it does not serve. So it is whole or it
is not there; whatever is interrupted is gone on with when the same command is given again.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aesp_proxy import keys
from aesp_proxy.aggregator.copy_log import copy_log
from aesp_proxy.aggregator.identity import (
    DataDir,
    FileLock,
    existing,
    living,
    load_ca,
    load_receipt_key,
)
from aesp_proxy.aggregator.indexing import stored_batch
from aesp_proxy.aggregator.joining import copy_keys, keep_public_keys
from aesp_proxy.aggregator.log.check import check_log
from aesp_proxy.aggregator.log.keys import load_log_keys
from aesp_proxy.aggregator.log.process import LEASE
from aesp_proxy.aggregator.ports import key_in
from aesp_proxy.aggregator.store.tables import (
    TABLES,
    add_batches,
    batch_rows,
    check_same,
    is_beginning_of,
    newest_batch,
    replace_tables,
)
from aesp_proxy.aggregator.store_check import check_stores
from aesp_proxy.aggregator.store_settings import load_store_settings
from aesp_proxy.aggregator.stores import (
    has_shared_rows,
    ledger_over,
    open_leases,
    open_objects,
    open_rows,
)
from aesp_proxy.errors import ConfigError, RecordError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from aesp_proxy.aggregator.ports import BatchPlace, ObjectStore
    from aesp_proxy.aggregator.store.database import Database
    from aesp_proxy.aggregator.store.ledger import LedgerReader

    Progress = Callable[[str, int, int], None]

BATCHES_AT_ONCE: Final = 64
GROUP_BYTES_MAX: Final = 64 << 20
_MARK: Final = "copying.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One of the two: where it is, its objects, and a database for each of its stores."""

    data: DataDir
    objects: ObjectStore
    rows: dict[str, Database]
    is_remote: bool

    @property
    def ledger(self) -> LedgerReader:
        """The batches, to be read."""
        return ledger_over(self.rows["ledger"], self.objects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What the copy holds."""

    batches: int
    rows: int
    logged: int


def check_may_serve(root: Path) -> None:
    """Refuse to serve half a copy, and what was copied away. ConfigError."""
    if (root / _MARK).exists():
        raise ConfigError(
            "a copy into this directory is not complete", where=str(root), remedy="give it again"
        )
    if DataDir(root).moved.exists():
        living(root)


def copy_aggregator(root: Path, source: Path, *, now: datetime, progress: Progress) -> Copied:
    """Copy the aggregator of ``source`` into the stores that ``root/stores.yaml`` names.

    ConfigError when they may not be copied, UnavailableError while one of them serves or a
    store cannot be asked, RecordError or TrustError for what does not hold.
    """
    theirs, ours = existing(source), DataDir(root)
    if theirs.moved.exists() and theirs.moved.read_text().strip() != str(root.resolve()):
        living(source)
    _check_apart(theirs, ours)
    with ExitStack() as stack:
        _begin(theirs, ours)
        for data in (theirs, ours):
            _keep_from_serving(stack, data)
        old, new = _open(stack, theirs), _open(stack, ours)
        if not is_beginning_of(new.rows["ledger"], old.rows["ledger"]):
            raise ConfigError(
                "holds batches of another aggregator", where=str(root), remedy="name empty stores"
            )
        _copy_batches(old, new, progress)
        for store in TABLES:
            replace_tables(old.rows[store], new.rows[store], store, is_remote=new.is_remote)
        _copy_evidence(old, new)
        copy_log(old.objects, new.objects, load_log_keys(ours).public)
        copied = _prove(old, new, progress)
        # What was proved is a while ago: an aggregator elsewhere may have begun to serve.
        for store in TABLES:
            check_same(old.rows[store], new.rows[store], store)
        _finish(theirs, ours, now=now)
    return copied


def _check_apart(theirs: DataDir, ours: DataDir) -> None:
    here, there = (load_store_settings(data.store_settings) for data in (ours, theirs))
    same = None
    if ours.root.resolve() == theirs.root.resolve():
        same = "the directory"
    elif here.database and here.database == there.database:
        same = "the database"
    elif here.objects_s3 and there.objects_s3:
        places = [(s.endpoint, s.bucket, s.prefix) for s in (here.objects_s3, there.objects_s3)]
        same = "the bucket" if places[0] == places[1] else None
    elif here.objects_directory and here.objects_directory == there.objects_directory:
        same = "the place of objects"
    if same:
        raise ConfigError(
            f"{same} is that of {theirs.root}", where=str(ours.root), remedy="name another"
        )
    if ours.ca.exists() and not (ours.root / _MARK).exists():
        raise ConfigError(
            "is an aggregator already", where=str(ours.root), remedy="choose a new directory"
        )


def _begin(theirs: DataDir, ours: DataDir) -> None:
    """Mark the new directory as half a copy of this aggregator, or find that it is."""
    keys.make_private_dir(ours.root)
    mark = ours.root / _MARK
    said = {"aggregator": load_receipt_key(theirs).key_id}
    if mark.exists() and json.loads(keys.read_bounded(mark)) != said:
        raise ConfigError(
            "holds the beginning of another's copy",
            where=str(ours.root),
            remedy="choose a new directory",
        )
    keys.write_atomic(mark, json.dumps(said).encode())
    copy_keys(theirs, ours)


def _keep_from_serving(stack: ExitStack, data: DataDir) -> None:
    """Take what every aggregator that serves this directory or its database holds."""
    for path in (data.serve_lock, data.export_lock, data.index_lock):
        lock = FileLock(path)
        if not lock.take():
            raise UnavailableError(
                f"something works here ({path.name})", where=str(data.root), remedy="stop it"
            )
        stack.callback(lock.release)
    leases = open_leases(data)
    stack.callback(leases.close)
    lease = leases.take(LEASE)
    if lease is None:
        raise UnavailableError(
            "an aggregator serves this database", where=str(data.root), remedy="stop all of them"
        )
    stack.callback(lease.release)


def _open(stack: ExitStack, data: DataDir) -> _Side:
    objects = open_objects(data)
    stack.callback(objects.close)
    rows = {}
    for store in TABLES:
        rows[store] = open_rows(data, store)
        stack.callback(rows[store].close)
    return _Side(data=data, objects=objects, rows=rows, is_remote=has_shared_rows(data))


def _copy_batches(old: _Side, new: _Side, progress: Progress) -> None:
    """Copy blocks of batches: objects, each as it was accepted, then their rows."""
    count, _, _ = newest_batch(old.rows["ledger"])
    done, position, _ = newest_batch(new.rows["ledger"])
    while rows := batch_rows(old.rows["ledger"], position, limit=BATCHES_AT_ONCE):
        places = old.ledger.after(position, limit=BATCHES_AT_ONCE)
        for some in _in_groups(old, places):
            new.objects.put_all([(place.key_in(new.objects), data) for place, data in some])
        add_batches(new.rows["ledger"], rows, is_remote=new.is_remote)
        position, done = rows[-1][0], done + len(rows)
        progress("copied", done, count)


def _in_groups(
    old: _Side, places: Sequence[BatchPlace]
) -> Iterator[list[tuple[BatchPlace, bytes]]]:
    """Yield batches, each proved to be what was accepted, in groups that memory has room for."""
    group, size = [], 0
    for place in places:
        data, _, _ = stored_batch(old.ledger, place)
        group.append((place, data))
        size += len(data)
        if size > GROUP_BYTES_MAX:
            yield group
            group, size = [], 0
    if group:
        yield group


def _copy_evidence(old: _Side, new: _Side) -> None:
    """Copy both histories of each fork, and say where the stored one is now."""
    found = old.rows["control"].rows("SELECT origin, stored_key, offered_key FROM evidence")
    changed = []
    for origin, stored, offered in found:
        new.objects.put_all([(offered, old.objects.get(offered))])
        key = _key_there(new, origin, stored)
        if key != stored:
            changed.append((key, origin, offered))
    with new.rows["control"].transaction():
        for values in changed:
            new.rows["control"].run(
                "UPDATE evidence SET stored_key = ? WHERE origin = ? AND offered_key = ?", values
            )


def _key_there(new: _Side, origin: str, stored: str) -> str:
    """Return the key under which a stored batch is in the new store."""
    if not stored.startswith("batches/"):
        return stored
    number = int(stored.rpartition("/")[2][:10])
    place = new.ledger.find(origin, number)
    return key_in(new.objects, origin, number, place.header_hash) if place else stored


def _prove(old: _Side, new: _Side, progress: Progress) -> Copied:
    """Read everything in the new stores and hold it against the old rows."""
    count, position, done = newest_batch(new.rows["ledger"])[0], 0, 0
    while places := new.ledger.after(position, limit=BATCHES_AT_ONCE):
        for place in places:
            stored_batch(new.ledger, place)
        position, done = places[-1].position, done + len(places)
        progress("proved", done, count)
    rows = sum(check_same(old.rows[store], new.rows[store], store) for store in TABLES)
    for found in check_stores(new.data):
        if found.exit_code:
            raise RecordError(found.text, where=found.store, remedy="mend it, and run it again")
    return Copied(batches=count, rows=rows, logged=check_log(new.data).signed.size)


def _finish(theirs: DataDir, ours: DataDir, *, now: datetime) -> None:
    """Mark the old one as moved, then make the new one an aggregator."""
    keep_public_keys(ours)
    keys.write_atomic(theirs.moved, f"{ours.root.resolve()}\n".encode(), mode=0o644)
    keys.write_atomic(ours.ca, keys.read_bounded(theirs.ca), mode=0o644)
    load_ca(ours, now=now)
    (ours.root / _MARK).unlink()
