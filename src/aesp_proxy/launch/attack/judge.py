"""What got out: by what the canaries saw, not by what the attacker says."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import unquote_to_bytes

from aesp_proxy.launch.attack.catalogue import Attack

_INFLATED_BYTES_MAX: Final = 1 << 20


class Outcome(StrEnum):
    """How an attack ended."""

    STOPPED = "stopped"
    PASSED = "passed"
    GOT_OUT = "GOT OUT"
    NOT_TRIED = "could not be tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one canary received on one connection."""

    place: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the attacker says: ``state`` is tried, cannot or proof."""

    state: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One attack and how it ended."""

    attack: Attack
    outcome: Outcome
    detail: str


def seen_by(sightings: Sequence[Sighting], token: str) -> str:
    """Return the place where a token was seen in any form, or nothing."""
    wanted = token.lower().encode()
    for sighting in sightings:
        if any(wanted in form.lower() for form in _forms(sighting.data)):
            return sighting.place
    return ""


def _forms(data: bytes) -> list[bytes]:
    """Return what was received: as it came, and as it may be meant."""
    body = data.partition(b"\r\n\r\n")[2]
    plain = [data, _unchunked(body), unquote_to_bytes(data), _inflated(body)]
    words = [word for form in plain for word in form.split() if len(word) > 20]
    for word in words:
        plain += [_decoded(word), word.replace(b"\\u00", b"%")]
        plain.append(unquote_to_bytes(word.replace(b"\\u00", b"%")))
    return plain


def _unchunked(body: bytes) -> bytes:
    """Return the chunks of a body joined, as far as it is one."""
    found = b""
    while body:
        line, _, rest = body.partition(b"\r\n")
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            return found
        found, body = found + rest[:size], rest[size + 2 :]
        if not size:
            return found + body
    return found


def _inflated(body: bytes) -> bytes:
    for form in (body, _unchunked(body)):
        if form[:2] == b"\x1f\x8b":
            try:
                return zlib.decompressobj(31).decompress(form, _INFLATED_BYTES_MAX)
            except (zlib.error, gzip.BadGzipFile):
                continue
    return b""


def _decoded(word: bytes) -> bytes:
    try:
        return bytes.fromhex(word.decode("ascii"))
    except ValueError:
        pass
    try:
        return base64.b64decode(word, validate=True)
    except ValueError:
        return b""


def judge(
    attack: Attack,
    said: Said | None,
    *,
    place: str,
    proofs: Mapping[str, str],
) -> Told:
    """Say how an attack ended.

    ``place`` is where a canary saw it, if any did; ``proofs`` hold what a proof must
    contain, for the attacks that can be checked.
    """
    if place:
        outcome = Outcome.PASSED if attack.passes else Outcome.GOT_OUT
        detail = "" if attack.passes else f"seen by {place}"
        return _told(attack, outcome, detail)
    if said is None:
        return _told(attack, Outcome.NOT_TRIED, "the attacker ended before it came to it")
    if said.state == "cannot":
        return _told(attack, Outcome.NOT_TRIED, said.text)
    if attack.passes:
        return _told(attack, Outcome.NOT_TRIED, f"it did not pass: {said.text}")
    if said.state == "proof" and proofs.get(attack.id, "") in said.text:
        return _told(attack, Outcome.GOT_OUT, said.text[:200])
    return _told(attack, Outcome.STOPPED, said.text)


def _told(attack: Attack, outcome: Outcome, detail: str) -> Told:
    if outcome is Outcome.GOT_OUT and attack.gap:
        detail = f"{detail}; {attack.gap}"
    return Told(attack=attack, outcome=outcome, detail=detail)
