"""What ``aesp-proxy aggregator proof`` does: name the event, ask for its proof, check it, tell.

Over HTTPS nothing of the answer is believed: the log's keys only as the pinned receipt key
signs them, the record only by the signatures and paths that lead to it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aesp_proxy.cli.output import line, printable
from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aesp_proxy.aggregator.proof_check import ProvedEvent
    from aesp_proxy.record.tlog.note import NoteKey


def read_event(file: Path) -> tuple[str, int | None]:
    """Read which record an event of a SIEM is of, and the batch that it says."""
    from aesp_proxy.aggregator.export.identify import EVENT_CHARS_MAX, identify

    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(4 * EVENT_CHARS_MAX + 1)
        else:
            with file.open("rb") as stream:
                data = stream.read(4 * EVENT_CHARS_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(file)) from error
    return identify(data.decode("utf-8", errors="replace"))


def ask_stores(data: Path, event_id: str, key: Path | None) -> tuple[dict[str, Any], ProvedEvent]:
    """Make the proof from the stores of this machine."""
    from aesp_proxy.aggregator.identity import existing
    from aesp_proxy.aggregator.log.keys import load_log_keys
    from aesp_proxy.aggregator.proof import event_proof

    home = existing(data)
    said = event_proof(home, event_id)
    return said, _checked(said, key, load_log_keys(home).public if said["log"] else ())


def ask_server(
    client: Path, url: str | None, event_id: str, key: Path | None
) -> tuple[dict[str, Any], ProvedEvent]:
    """Ask an aggregator for the proof, and check it by what is pinned in ``client``."""
    from aesp_proxy.aggregator.client import ask_proof
    from aesp_proxy.forward.transport import urls
    from aesp_proxy.keys import read_bounded
    from aesp_proxy.record.signature import public_from_pem
    from aesp_proxy.record.tlog.key_list import read_key_list

    pinned = client / "aggregator.pub"
    receipt_key = public_from_pem(read_bounded(pinned), where=str(pinned))
    said, keys = ask_proof(urls(client) if url is None else (url,), client, event_id)
    logs = read_key_list(keys, public_key=receipt_key) if said.get("log") else ()
    return said, _checked(said, key, logs)


def _checked(said: dict[str, Any], key: Path | None, logs: Sequence[NoteKey]) -> ProvedEvent:
    from aesp_proxy.aggregator.proof_check import read_event_proof, verify_event_proof
    from aesp_proxy.keys import read_bounded
    from aesp_proxy.record.signature import public_from_pem
    from aesp_proxy.record.tlog.policy import policy_of

    public_key = public_from_pem(read_bounded(key), where=str(key)) if key else None
    return verify_event_proof(
        read_event_proof(json.dumps(said).encode()),
        public_key=public_key,
        policy=policy_of(logs, []) if logs else None,
    )


def tell(proved: ProvedEvent, *, key_is_pinned: bool) -> None:
    """Say on standard error what was proved, and what was not."""
    from aesp_proxy.cli.audit import time_text

    record = proved.record
    told = f"{time_text(record.time_ns)} {record.verdict or record.kind.value} {record.resource}"
    line(printable(f"holds: {proved.record_id} in batch {proved.batch_no}: {told}"))
    if proved.log is None:
        line("its batch is not in the log yet; ask again in some seconds")
    else:
        entry = f"entry {proved.log_index} of {proved.log.checkpoint.size}"
        line(printable(f"logged as {entry} of {proved.log.checkpoint.origin}"))
    if not key_is_pinned:
        line("the host's key came with the proof; give the key you know with --key")
