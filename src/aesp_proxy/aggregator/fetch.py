"""Bring the batches of one host from the stores into a directory that proves itself off line.

Rules: each is held against the hash that was receipted before it is written; a file that is
there already is held against it too, and kept, so that an interrupted copy is gone on with.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aesp_proxy import keys
from aesp_proxy.aggregator.indexing import stored_batch
from aesp_proxy.aggregator.stores import open_control, open_ledger_reader, open_objects
from aesp_proxy.errors import ConfigError, RecordError
from aesp_proxy.record.signature import public_to_pem

if TYPE_CHECKING:
    from pathlib import Path

    from aesp_proxy.aggregator.identity import DataDir


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """How many batches the directory holds now, and the file with the host's first key."""

    batches: int
    key_file: Path


def fetch_batches(data: DataDir, origin: str, out: Path) -> Fetched:
    """Write all stored batches of ``origin`` to ``out``, numbered, and its first public key.

    ConfigError for an origin that is not enrolled, ChainError or RecordError for a batch that
    is not what was accepted, UnavailableError when the stores cannot be asked now.
    """
    with ExitStack() as stack:
        control = open_control(data)
        stack.callback(control.close)
        enrolled = control.origin(origin)
        if enrolled is None:
            raise ConfigError(f"{origin!r} is not enrolled", remedy="see aggregator origins")
        objects = open_objects(data)
        stack.callback(objects.close)
        ledger = open_ledger_reader(data, objects)
        stack.callback(ledger.close)
        keys.make_private_dir(out)
        last = ledger.last_batch(origin)
        count = last.batch_no if last else 0
        for batch_no in range(1, count + 1):
            place = ledger.find(origin, batch_no)
            if place is None:
                raise RecordError(f"batch {batch_no} has no header here", where=origin)
            content, _, _ = stored_batch(ledger, place)
            _write(out / f"{batch_no:010d}.batch", content)
    key_file = out / f"{origin}.pub"
    keys.write_atomic(key_file, public_to_pem(enrolled.public_key), mode=0o644)
    return Fetched(batches=count, key_file=key_file)


def _write(path: Path, content: bytes) -> None:
    try:
        if path.exists():
            if path.read_bytes() != content:
                raise RecordError(
                    "is there already, and is not the stored batch",
                    where=str(path),
                    remedy="give another --out, and compare",
                )
            return
        part = path.with_suffix(".part")
        part.write_bytes(content)
        part.rename(path)
    except OSError as error:
        raise RecordError(f"cannot be written: {error.strerror}", where=str(path)) from error
