"""Look at the spool before a run begins: is the newest sealed batch still what it was.

Damage to older batches is found by ``audit verify``; this finds what a bad disk or a
careless hand leaves most often, in the time of one file, before anything depends on it.
A damaged head is no damage of the record: it is built anew from the batches.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from aesp_proxy.errors import ConfigError, RecordError
from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.header import decode_header, header_hash
from aesp_proxy.record.state import audit_paths, read_head


def check_newest_batch(state_dir: Path) -> None:
    """Raise ``ConfigError`` when the newest sealed batch is damaged; nothing sealed is fine."""
    paths = audit_paths(state_dir)
    try:
        head = read_head(paths)
    except (ChainError, RecordError):
        return
    path = paths.batch(head.batch_no) if head is not None and head.batch_no else None
    if head is None or path is None or not path.exists():
        return
    try:
        batch = decode_batch(path.read_bytes())
        holds = (
            header_hash(batch.header_bytes) == head.header_hash
            and sha256(batch.body).digest() == decode_header(batch.header_bytes).body_hash
        )
        why = "" if holds else "its bytes are not those that were signed"
    except ChainError as error:
        why = error.message
    except OSError as error:
        why = f"it cannot be read: {error.strerror}"
    if why:
        raise ConfigError(
            f"the newest batch of the record is damaged: {why}",
            where=str(path),
            remedy=f"`aesp-proxy audit verify {state_dir}` says what holds; put the file back from "
            "the aggregator's copy, or keep this state as evidence and give --state another",
        )
