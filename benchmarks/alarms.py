"""Scan honest traffic and count what is found in it: false alarms, and keys that are real."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from aesp_proxy.cli.scan.leak import Leak, Source
from aesp_proxy.cli.scan.pieces import CHUNK_BYTES, leaks_in
from aesp_proxy.decide.secrets.scanner import SecretScanner
from benchmarks.honest import Document

_PEM_BYTES_MAX = 64 * 1024
_PLACES_MAX = 5


@dataclass(slots=True)
class Alarms:
    """False alarms by (severity, rule, kind of document), with some places of each."""

    bytes_seen: int = 0
    cpu_s: float = 0.0
    count: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    places: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    real_keys: int = 0

    def of_severity(self, word: str) -> int:
        """Return how many there are of a severity."""
        return sum(count for (severity, _, _), count in self.count.items() if severity == word)

    def lines(self) -> list[str]:
        """Return a line for each, the gravest and most frequent first."""
        order = ("critical", "error", "warning", "info")
        rows = sorted(self.count.items(), key=lambda row: (order.index(row[0][0]), -row[1]))
        return [
            f"{severity} {rule} in {kind}: {count} (such as {', '.join(self.places[key][:2])})"
            for key, count in rows
            for severity, rule, kind in [key]
        ]


def alarms_in(scanner: SecretScanner, documents: Iterable[Document]) -> Alarms:
    """Scan documents one by one, as files."""
    seen = Alarms()
    for document in documents:
        data = document.data
        chunks = (data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES))
        source = Source(file=document.name)
        began = time.process_time()
        found = list(leaks_in(lambda block, _: scanner.occurrences(block), source, chunks))
        seen.cpu_s += time.process_time() - began
        seen.bytes_seen += len(data)
        for leak in found:
            _note(seen, leak, document)
    return seen


def _note(seen: Alarms, leak: Leak, document: Document) -> None:
    if is_private_key(document.data[leak.offset : leak.offset + _PEM_BYTES_MAX]):
        seen.real_keys += 1
        return
    key = (leak.severity.word, leak.rule, document.kind)
    seen.count[key] += 1
    places = seen.places.setdefault(key, [])
    if len(places) < _PLACES_MAX:
        places.append(f"{document.name}:{leak.start_line}")


def is_private_key(data: bytes) -> bool:
    """Tell whether what begins here is a private key in PEM form that can be read, or asks for
    its passphrase: no false alarm, wherever it stands."""
    if not data.startswith(b"-----BEGIN "):
        return False
    end = data.find(b"-----END ")
    line_end = data.find(b"-----", end + 9)
    if end < 0 or line_end < 0:
        return False
    try:
        load_pem_private_key(data[: line_end + 5] + b"\n", None)
    except TypeError:
        return True
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True
