"""Find out from disk where a chain stands, and finish what a crash left half done.

Rules: the head file counts; a batch behind it that holds is a seal whose head
was not written, and is taken over; one that does not hold was never promised to
anyone and is put aside as evidence. Without a head the batches say where the
chain stands, if all of them are there.
"""

from __future__ import annotations

import logging
from typing import Final

from aesp_proxy.errors import RecordError
from aesp_proxy.record.batch import decode_batch, verify_batch
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.files import Files, write_durable
from aesp_proxy.record.head import Head, genesis
from aesp_proxy.record.header import decode_header
from aesp_proxy.record.keys import SigningKey, load_public_keys
from aesp_proxy.record.state import AuditPaths, list_dir, numbered_batches, read_head, write_head

_log: Final = logging.getLogger(__name__)


def recover_head(paths: AuditPaths, origin: str, key: SigningKey, files: Files) -> Head:
    """Give the head that the disk proves, written down durably. OSError, AespError."""
    _remove_drafts(paths, files)
    head = _head_on_file(paths, origin)
    was_on_file = head is not None
    head = head or _head_without_file(paths, origin)
    keys = {**load_public_keys(paths), key.key_id: key.public_key}
    while paths.batch(head.batch_no + 1).exists():
        following = _take_over(paths, head, keys, files, was_on_file=was_on_file)
        if following is None:
            break
        head = following
    _refuse_to_fork(paths, head)
    if head.batch_no:
        # Written anew even if it was there: what a failed sync left behind is not trusted.
        write_head(paths, files, head)
    return head


def _remove_drafts(paths: AuditPaths, files: Files) -> None:
    for directory in (paths.root, paths.batches):
        for path in list_dir(directory):
            if path.name.endswith(".batch.tmp") or path.name == "head.tmp":
                files.unlink(path)


def _refuse_to_fork(paths: AuditPaths, head: Head) -> None:
    # Sealing on from here would give a second batch a number that is taken.
    beyond = [number for number, _ in numbered_batches(paths.batches) if number > head.batch_no]
    if beyond:
        raise RecordError(
            f"the chain is proved up to batch {head.batch_no} only, and batch {beyond[0]} is here",
            where=str(paths.batches),
            remedy="run `aesp-proxy audit verify`, and restore what it names from a copy",
        )


def _head_on_file(paths: AuditPaths, origin: str) -> Head | None:
    try:
        head = read_head(paths)
    except ChainError as error:
        _log.warning("the head is damaged and is built anew from the batches: %s", error)
        return None
    if head is not None and head.origin != origin:
        raise RecordError(
            f"the head is of origin {head.origin!r}, this host is {origin!r}",
            where=str(paths.head),
            remedy="restore both from the same backup",
        )
    return head


def _head_without_file(paths: AuditPaths, origin: str) -> Head:
    numbers = [number for number, _ in numbered_batches(paths.batches)]
    if numbers and numbers[0] != 1:
        raise RecordError(
            f"the head is gone and batches before {numbers[0]} are released",
            where=str(paths.head),
            remedy="restore the file from a backup",
        )
    if not numbers and (paths.receipt.exists() or paths.head.exists()):
        raise RecordError(
            "the chain has begun and neither head nor batches are here",
            where=str(paths.head),
            remedy="restore the directory from a backup",
        )
    return genesis(origin)


def _take_over(
    paths: AuditPaths, head: Head, keys: dict[str, bytes], files: Files, *, was_on_file: bool
) -> Head | None:
    path = paths.batch(head.batch_no + 1)
    data = path.read_bytes()
    try:
        batch = decode_batch(data)
        signed_by = _key_named(keys, batch.header_bytes)
        verified = verify_batch(batch, public_key=signed_by, previous=head)
    except ChainError as error:
        if not was_on_file:
            raise
        _log.warning("%s does not hold and is put aside: %s", path.name, error)
        files.replace(path, path.with_name(path.name + ".damaged"))
        files.sync_dir(paths.batches)
        return None
    write_durable(files, path, data)
    return verified.head


def _key_named(keys: dict[str, bytes], header_bytes: bytes) -> bytes:
    # The id picks the key; verify_batch checks that it is the one that signed.
    header = decode_header(header_bytes)
    return keys.get(header.key_id, b"")
