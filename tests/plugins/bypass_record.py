"""A sealed record of three batches, and the ways in which a thief would change it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.files import OS_FILES
from aesp_proxy.record.journal import Journal, JournalOptions
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.receipt import Receipt, encode_receipt
from aesp_proxy.record.sealer import Sealer, SealerOptions, Stamp
from aesp_proxy.record.signature import (
    key_id_of,
    new_private_pem,
    public_to_pem,
    signer_from_pem,
)
from aesp_proxy.record.state import AuditPaths, ensure_origin, prepare, read_head

_START_NS = 1_792_000_000 * 10**9
_BATCHES = 3
_HOUR_NS = 3_600 * 10**9

Words = tuple[object, ...]


@dataclass
class State:
    """A state directory and how to go on with its chain."""

    directory: Path
    paths: AuditPaths
    wall_ns: int = _START_NS
    mono_ns: int = 10**9

    def seal(self, count: int = 5, *, said: str = "allowed") -> None:
        """Record and seal one more batch."""
        journal = Journal.open(self.directory, options=JournalOptions())
        for number in range(count):
            journal.append(_record(self.wall_ns + number, said))
        journal.close()
        self.wall_ns += _HOUR_NS
        self.mono_ns += _HOUR_NS
        origin = ensure_origin(self.paths, wanted="h-bypass")
        sealer = Sealer.open(
            self.paths,
            origin,
            load_signing_key(self.paths),
            SealerOptions(heartbeat_s=0),
            files=OS_FILES,
            clock=self._now,
        )
        sealer.tick(drain=True)

    def _now(self) -> Stamp:
        return Stamp(wall_ns=self.wall_ns, mono_ns=self.mono_ns, boot_id="boot")


def _record(time_ns: int, said: str) -> Record:
    return Record(
        kind=RecordKind.DECISION,
        time_ns=time_ns,
        event_type="authorization",
        action="http.get",
        outcome=Outcome.SUCCESS,
        verdict="allow",
        reason="allowed",
        guard="egress_allowlist",
        severity="info",
        message=said,
        resource="https://allowed.test:443/",
    )


def sealed_state(directory: Path) -> State:
    """Make a state whose record holds."""
    state = _begun(directory)
    for _ in range(_BATCHES):
        state.seal()
    return state


def _begun(directory: Path) -> State:
    paths = prepare(directory)
    ensure_origin(paths, wanted="h-bypass")
    return State(directory=directory, paths=paths)


def _nothing(state: State) -> Words:
    assert state.paths.batch(_BATCHES).exists()
    return ()


def _changed_byte(state: State) -> Words:
    path = state.paths.batch(2)
    data = bytearray(path.read_bytes())
    data[-30] ^= 0x01
    path.write_bytes(data)
    return ()


def _cut_end(state: State) -> Words:
    state.paths.batch(_BATCHES).unlink()
    return ()


def _cut_end_and_head(state: State) -> Words:
    state.paths.batch(_BATCHES).unlink()
    state.paths.head.unlink()
    return ()


def _cut_end_with_receipt(state: State) -> Words:
    head = read_head(state.paths)
    assert head is not None
    public_key, sign = signer_from_pem(new_private_pem())
    receipt = Receipt(
        origin=head.origin,
        batch_no=head.batch_no,
        header_hash=head.header_hash,
        time_ns=_START_NS,
        key_id=key_id_of(public_key),
    )
    kept, key = state.directory / "kept-receipt", state.directory / "aggregator.pub"
    kept.write_bytes(encode_receipt(receipt, sign))
    key.write_bytes(public_to_pem(public_key))
    _cut_end_and_head(state)
    return ("--receipt", kept, "--aggregator-key", key)


def _missing(state: State) -> Words:
    state.paths.batch(2).unlink()
    return ()


def _swapped(state: State) -> Words:
    second, third = state.paths.batch(2), state.paths.batch(3)
    held = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(held)
    return ()


def _replayed(state: State) -> Words:
    """The second batch once more, as if it were the fourth."""
    shutil.copy(state.paths.batch(2), state.paths.batch(_BATCHES + 1))
    return ()


def _forked(state: State) -> Words:
    """Another history from batch 2 on, sealed with the host's own key, in place of the last."""
    other = state.directory.parent / f"{state.directory.name}-other"
    shutil.copytree(state.directory, other)
    fork = State(directory=other, paths=prepare(other))
    shutil.rmtree(other)
    begun = _begun(other)
    shutil.rmtree(begun.paths.keys)
    shutil.copytree(state.paths.keys, begun.paths.keys)
    for _ in range(_BATCHES):
        fork.seal(said="nothing happened")
    shutil.copy(fork.paths.batch(_BATCHES), state.paths.batch(_BATCHES))
    return ()


def _clock_back(state: State) -> Words:
    state.wall_ns -= 10 * _HOUR_NS
    state.seal()
    return ()


def _rewritten(state: State) -> Words:
    """The whole record anew with a key of one's own; the verifier knows the true key."""
    known = state.directory.parent / "known.pub"
    shutil.copy(next(state.paths.keys.glob("*.pub")), known)
    shutil.rmtree(state.directory)
    sealed_state(state.directory)
    return ("--key", known)


def _rewritten_by_its_key(state: State) -> Words:
    """The whole record anew with the host's own key, which whoever may read it can use."""
    keys = state.directory.parent / f"{state.directory.name}-keys"
    shutil.copytree(state.paths.keys, keys)
    known = next(keys.glob("*.pub"))
    shutil.rmtree(state.directory)
    begun = _begun(state.directory)
    shutil.rmtree(begun.paths.keys)
    shutil.copytree(keys, begun.paths.keys)
    begun.seal(said="nothing happened")
    return ("--key", known)


TAMPERS: dict[str, Callable[[State], Words]] = {
    "nothing": _nothing,
    "changed-byte": _changed_byte,
    "cut-end": _cut_end,
    "cut-end-and-head": _cut_end_and_head,
    "cut-end-with-receipt": _cut_end_with_receipt,
    "missing": _missing,
    "swapped": _swapped,
    "replayed": _replayed,
    "forked": _forked,
    "clock-back": _clock_back,
    "rewritten": _rewritten,
    "rewritten-by-its-key": _rewritten_by_its_key,
}
