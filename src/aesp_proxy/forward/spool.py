"""The spool: sealed batches that stay on disk until a signed receipt covers them.

Rules: only what the durable head names is shipped, so a crash cannot make the
host tell two stories; nothing is removed before a receipt whose signature holds
covers it and half an hour has passed (another region may need it); a receipt
that claims more than was sealed, or another header, is a fork and not stored.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from aesp_proxy.errors import RecordError
from aesp_proxy.record.batch import decode_batch
from aesp_proxy.record.faults import ChainError, Fault
from aesp_proxy.record.files import OS_FILES, Files, write_durable
from aesp_proxy.record.header import header_hash
from aesp_proxy.record.receipt import Receipt, verify_receipt
from aesp_proxy.record.state import AuditPaths, list_dir, numbered_batches, read_head

RETAIN_S: Final = 30 * 60.0
RECEIPT_SUFFIX: Final = ".receipt"
_KEEP_EVERY_S: Final = 60.0


class Spool:
    """The batches of one state and what is promised about them."""

    def __init__(
        self, paths: AuditPaths, origin: str, aggregator_key: bytes, *, files: Files = OS_FILES
    ) -> None:
        self._paths, self._origin, self._key, self._files = paths, origin, aggregator_key, files

    def newest(self) -> int:
        """Number of the newest batch that may be shipped; 0 for none."""
        head = read_head(self._paths)
        return head.batch_no if head else 0

    def covered(self) -> Receipt | None:
        """Give the newest receipt, verified; None when there is none yet.

        ChainError when the file is damaged or another aggregator's.
        """
        try:
            data = self._paths.receipt.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self._paths.receipt, error) from error
        return verify_receipt(data, public_key=self._key, origin=self._origin)

    def read(self, number: int) -> bytes:
        """Read one batch as it is sent. RecordError when it is not here any more."""
        path = self._paths.batch(number)
        try:
            return path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from error

    def has(self, number: int) -> bool:
        """Whether the batch is still on disk."""
        return self._paths.batch(number).exists()

    def store(self, data: bytes) -> Receipt:
        """Check a receipt against key, origin and our own batches, and keep it durably.

        ChainError when it does not hold; RecordError when it cannot be written.
        """
        receipt = verify_receipt(data, public_key=self._key, origin=self._origin)
        newest = self.newest()
        if receipt.batch_no > newest:
            raise ChainError(
                Fault.FORKED,
                f"the receipt covers batch {receipt.batch_no}, this host sealed {newest}",
            )
        self._check_hash(receipt)
        known = self.covered()
        if known is not None and known.batch_no > receipt.batch_no:
            return receipt
        try:
            write_durable(self._files, self._paths.receipt, data)
        except OSError as error:
            raise RecordError(
                f"the receipt cannot be kept: {error.strerror}", where=str(self._paths.receipts)
            ) from error
        return receipt

    def _check_hash(self, receipt: Receipt) -> None:
        path = self._paths.batch(receipt.batch_no)
        if not path.exists():
            return
        own = header_hash(decode_batch(self.read(receipt.batch_no)).header_bytes)
        if own != receipt.header_hash:
            raise ChainError(
                Fault.FORKED, f"the receipt names another batch {receipt.batch_no} than ours"
            )

    def _numbered(self, number: int) -> Path:
        return self._paths.receipts / f"{number:010d}{RECEIPT_SUFFIX}"

    def _kept(self) -> list[tuple[int, Path]]:
        kept = []
        for path in list_dir(self._paths.receipts):
            stem = path.name.removesuffix(RECEIPT_SUFFIX)
            if stem != path.name and stem.isascii() and stem.isdigit():
                kept.append((int(stem), path))
        return sorted(kept)

    def _keep(self, now_s: float) -> None:
        """Keep the newest receipt under its number, once a minute, with the time it came."""
        receipt, kept = self.covered(), self._kept()
        if receipt is None or (kept and receipt.batch_no <= kept[-1][0]):
            return
        if kept and now_s - kept[-1][1].stat().st_mtime < _KEEP_EVERY_S:
            return
        path = self._numbered(receipt.batch_no)
        write_durable(self._files, path, self._paths.receipt.read_bytes())
        os.utime(path, (now_s, now_s))

    def release(self, *, now_s: float, retain_s: float = RETAIN_S) -> int:
        """Remove batches that a receipt has covered for ``retain_s``; gives how many.

        A kept receipt is verified again before anything it covers is removed.
        """
        try:
            self._keep(now_s)
        except OSError as error:
            raise RecordError(
                f"the receipt cannot be kept: {error.strerror}", where=str(self._paths.receipts)
            ) from error
        ripe = [kept for kept in self._kept() if now_s - kept[1].stat().st_mtime >= retain_s]
        if not ripe:
            return 0
        number, path = ripe[-1]
        receipt = verify_receipt(path.read_bytes(), public_key=self._key, origin=self._origin)
        removed = 0
        with contextlib.suppress(OSError):
            # Lowest first: what is left is always a chain without holes.
            covered = [
                (batch_no, batch)
                for batch_no, batch in numbered_batches(self._paths.batches)
                if batch_no <= min(number, receipt.batch_no)
            ]
            for _, batch in covered:
                self._files.unlink(batch)
                removed += 1
            for _, old in ripe[:-1]:
                self._files.unlink(old)
        return removed


def _unreadable(path: Path, error: OSError) -> RecordError:
    return RecordError(f"cannot be read: {error.strerror}", where=str(path))
