"""Fuzz target: notes, checkpoints, places of tiles, bundles, proofs and policies of logs.

The first byte chooses the parser. What is read is written the same again, and what was
never signed is never accepted.
"""

from __future__ import annotations

import contextlib
from functools import cache

from aesp_proxy.errors import ConfigError, InputError, TrustError
from aesp_proxy.record.merkle import leaf_hash
from aesp_proxy.record.tlog.checkpoint import Checkpoint, parse_checkpoint
from aesp_proxy.record.tlog.note import (
    KeyType,
    Note,
    SigningNoteKey,
    parse_key,
    parse_note,
    parse_signing_key,
    sign_text,
    signing_key,
)
from aesp_proxy.record.tlog.policy import parse_policy, policy_of
from aesp_proxy.record.tlog.proof import LogProof, parse_proof, verify_proof
from aesp_proxy.record.tlog.tile import (
    join_entries,
    join_hashes,
    parse_tile_path,
    split_entries,
    split_hashes,
)
from aesp_proxy.record.tlog.witness import judge, parse_add_checkpoint

ENTRY = b"the entry"


class FindingError(AssertionError):
    """A promise that did not hold."""


@cache
def log() -> SigningNoteKey:
    """Make the key, once."""
    return signing_key("log.example", KeyType.ED25519, bytes(32))


@cache
def whole() -> bytes:
    """Write the proof that the patches are made on."""
    text = Checkpoint(origin="log.example", size=1, root=leaf_hash(ENTRY)).text
    note = Note(text=text, signatures=(sign_text(text, log(), time_s=0),))
    return LogProof(index=0, path=(), note=note).encode()


def patched(data: bytes, patch: bytes) -> bytes:
    """Replace bytes of ``data``: two bytes of place, one of value, and again."""
    changed = bytearray(data)
    for at in range(0, len(patch) - 2, 3):
        changed[int.from_bytes(patch[at : at + 2]) % len(changed)] = patch[at + 2]
    return bytes(changed)


@cache
def request() -> bytes:
    """Write the request to a witness that the patches are made on."""
    return b"old 0\n\n" + parse_proof(whole()).note.encode()


def check_request(data: bytes) -> None:
    """Only the very checkpoint that was signed is cosigned."""
    asked = parse_add_checkpoint(data)
    refused = judge(asked, [log().public], None)
    if refused is None and asked.note.text != parse_proof(whole()).note.text:
        raise FindingError(data)


def fuzz_one(data: bytes) -> None:
    """Run one input; anything but a value or one of the three errors is a finding."""
    choice, rest = data[:1], data[1:]
    with contextlib.suppress(InputError, TrustError, ConfigError):
        match choice:
            case b"\x00":
                same(parse_note(rest).encode(), rest)
            case b"\x01":
                same(parse_checkpoint(rest.decode("latin-1")).text.encode("latin-1"), rest)
            case b"\x02":
                same(parse_tile_path(rest.decode("latin-1")).path.encode(), rest)
            case b"\x03":
                check_tiles(rest[1:], rest[0] if rest else 0)
            case b"\x04":
                check_tiles(rest, len(rest) // 32)
            case b"\x05":
                check_proof(rest)
            case b"\x06":
                check_proof(patched(whole(), rest))
            case b"\x07":
                parse_policy(rest)
            case b"\x08":
                check_request(rest)
            case b"\x09":
                check_request(patched(request(), rest))
            case _:
                text = rest.decode("latin-1")
                with contextlib.suppress(ConfigError):
                    parse_key(text)
                parse_signing_key(text)


def check_tiles(data: bytes, count: int) -> None:
    """What is read of a bundle or a tile is the beginning of it."""
    with contextlib.suppress(InputError):
        entries = split_entries(data, count)
        if len(entries) != count or not data.startswith(join_entries(entries)):
            raise FindingError(data)
    if not data.startswith(join_hashes(split_hashes(data, count))):
        raise FindingError(data)


def same(written: bytes, read: bytes) -> None:
    """Ask that what was read is written the same again."""
    if written != read:
        raise FindingError(read)


def check_proof(data: bytes) -> None:
    """Only the very bytes that were signed prove the entry, by signatures of strangers beside."""
    proof = parse_proof(data)
    same(proof.encode(), data)
    verify_proof(proof, ENTRY, policy_of([log().public], []))
    if proof.note.text != parse_proof(whole()).note.text or proof.path or proof.index:
        raise FindingError(data)
