"""An object store that counts: how long puts take, and what the store did not do."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aesp_proxy.errors import AespError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aesp_proxy.aggregator.metrics import Meter
    from aesp_proxy.aggregator.ports import ObjectStore


class MeteredObjects:
    """Another store, unchanged, and its figures in a ``Meter``."""

    def __init__(self, objects: ObjectStore, meter: Meter) -> None:
        self._objects, self._meter = objects, meter
        self.by_hash = objects.by_hash

    def put_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Store all, and count the time until they were durable."""
        begun_s = time.monotonic()
        with self._counted("put"):
            self._objects.put_all(objects)
        self._meter.objects_put(time.monotonic() - begun_s)

    def get(self, key: str) -> bytes:
        """Return one object's content."""
        with self._counted("get"):
            return self._objects.get(key)

    def find(self, key: str) -> bytes | None:
        """Return one object's content, None when there is none."""
        with self._counted("get"):
            return self._objects.find(key)

    def remove_all(self, keys: Sequence[str]) -> int:
        """Delete what is there of ``keys``; return how many were."""
        with self._counted("remove"):
            return self._objects.remove_all(keys)

    def check(self) -> None:
        """Find out whether it can be used."""
        self._objects.check()

    def close(self) -> None:
        """Let go of what is open."""
        self._objects.close()

    @contextmanager
    def _counted(self, operation: str) -> Iterator[None]:
        try:
            yield
        except AespError:
            self._meter.objects_failed(operation)
            raise
