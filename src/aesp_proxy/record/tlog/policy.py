"""Whose word about a log is enough: trust policies (C2SP tlog-policy).

A policy names logs and witnesses by their keys, and a quorum of witnesses. Rules: a
checkpoint counts when one of the logs has signed it and the quorum has cosigned it; a name
is defined before it is used, and is a member of one group at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aesp_proxy.errors import ConfigError, TrustError
from aesp_proxy.record.tlog.checkpoint import Checkpoint, parse_checkpoint
from aesp_proxy.record.tlog.note import KeyType, Note, NoteKey, parse_key, verify_note

POLICY_BYTES_MAX: Final = 262_144
NONE: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """One witness: the policy's name for it, its key, and where it takes checkpoints."""

    name: str
    key: NoteKey
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """``need`` of the members, each a witness or another group."""

    need: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A checkpoint that counts, and the names of the witnesses that cosigned it."""

    checkpoint: Checkpoint
    log_key: NoteKey
    witnesses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPolicy:
    """Logs, witnesses and the quorum; an empty quorum is that of no witness."""

    logs: tuple[NoteKey, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    groups: dict[str, Group] = field(default_factory=dict)
    quorum: str = NONE

    def is_quorum(self, cosigned: Sequence[str]) -> bool:
        """Whether these witnesses are enough."""
        return self.quorum == NONE or self._has(self.quorum, frozenset(cosigned))

    def _has(self, name: str, cosigned: frozenset[str]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in cosigned
        return sum(self._has(member, cosigned) for member in group.members) >= group.need

    def cosigners(self, note: Note) -> tuple[str, ...]:
        """Name the witnesses whose cosignature the note carries. TrustError for a false one."""
        held = {signed.key for signed in verify_note(note, [w.key for w in self.witnesses])}
        return tuple(witness.name for witness in self.witnesses if witness.key in held)

    def accept(self, note: Note) -> Accepted:
        """Give the checkpoint of a note that counts.

        InputError when it is no checkpoint; TrustError when no log of the policy has signed
        it, when a known signature fails, or when too few witnesses have cosigned it.
        """
        checkpoint = parse_checkpoint(note.text)
        logs = [key for key in self.logs if key.name == checkpoint.origin]
        signed = verify_note(note, logs)
        if not signed:
            raise TrustError(f"no log key that is trusted has signed for {checkpoint.origin!r}")
        cosigned = self.cosigners(note)
        if not self.is_quorum(cosigned):
            names = ", ".join(cosigned) or "none"
            raise TrustError(f"too few witnesses have cosigned: {names}; asked is {self.quorum}")
        return Accepted(checkpoint=checkpoint, log_key=signed[0].key, witnesses=cosigned)


def policy_of(logs: Sequence[NoteKey], witnesses: Sequence[NoteKey], *, need: int = 0) -> LogPolicy:
    """Make a policy of keys alone: ``need`` of the witnesses, all of them where it is 0."""
    shared = Counter(key.name for key in witnesses)
    known = tuple(
        Witness(name=key.name if shared[key.name] == 1 else str(key), key=key) for key in witnesses
    )
    names = tuple(witness.name for witness in known)
    if not names:
        return LogPolicy(logs=tuple(logs))
    group = Group(need=need or len(names), members=names)
    return LogPolicy(logs=tuple(logs), witnesses=known, groups={"all": group}, quorum="all")


def parse_policy(data: bytes, *, where: str = "") -> LogPolicy:
    """Read a policy file. ConfigError names file and line."""
    if len(data) > POLICY_BYTES_MAX:
        raise ConfigError("is too large for a policy of logs", where=where)
    reader = _Reader()
    for number, line in enumerate(data.split(b"\n"), 1):
        at = f"{where}:{number}"
        if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in line):
            raise ConfigError("holds a control character", where=at)
        try:
            words = line.decode().replace("\t", " ").split(" ")
        except UnicodeDecodeError as error:
            raise ConfigError("is not UTF-8", where=at) from error
        words = [word for word in words if word]
        if words and not words[0].startswith("#"):
            reader.take(words, at)
    if reader.quorum is None:
        raise ConfigError("has no quorum line", where=where, remedy="write `quorum none`")
    return LogPolicy(
        logs=tuple(reader.logs),
        witnesses=tuple(reader.witnesses),
        groups=reader.groups,
        quorum=reader.quorum,
    )


class _Reader:
    """The lines read so far."""

    def __init__(self) -> None:
        self.logs: list[NoteKey] = []
        self.witnesses: list[Witness] = []
        self.groups: dict[str, Group] = {}
        self.quorum: str | None = None
        self._members: set[str] = set()

    def take(self, words: list[str], at: str) -> None:
        """Read one line."""
        match words:
            case ["log", text] | ["log", text, _]:
                self._log(parse_key(text, where=at), at)
            case ["witness", name, text]:
                self._witness(Witness(name=name, key=parse_key(text, where=at)), at)
            case ["witness", name, text, url]:
                self._witness(Witness(name=name, key=parse_key(text, where=at), url=url), at)
            case ["group", name, count, *members] if members:
                self._group(name, count, tuple(members), at)
            case ["quorum", name]:
                self._quorum(name, at)
            case _:
                raise ConfigError("is no line of a policy of logs", where=at)

    def _log(self, key: NoteKey, at: str) -> None:
        if any(known.public_key == key.public_key for known in self.logs):
            raise ConfigError("names the same log key twice", where=at)
        self.logs.append(key)

    def _witness(self, witness: Witness, at: str) -> None:
        if witness.key.kind is not KeyType.COSIGNATURE:
            raise ConfigError("is not the key of a witness (type 4)", where=at)
        if any(known.key.public_key == witness.key.public_key for known in self.witnesses):
            raise ConfigError("names the same witness key twice", where=at)
        self._define(witness.name, at)
        self.witnesses.append(witness)

    def _group(self, name: str, count: str, members: tuple[str, ...], at: str) -> None:
        counts = {"any": 1, "all": len(members)}
        need = counts.get(count) or (int(count) if count.isascii() and count.isdigit() else 0)
        if not 1 <= need <= len(members):
            raise ConfigError(f"needs {count[:20]!r} of {len(members)}", where=at)
        for member in members:
            if not self._is_defined(member) or member in self._members:
                raise ConfigError(
                    f"{member[:80]!r} is not defined above, or a member already", where=at
                )
            self._members.add(member)
        self._define(name, at)
        self.groups[name] = Group(need=need, members=members)

    def _quorum(self, name: str, at: str) -> None:
        if self.quorum is not None or not (name == NONE or self._is_defined(name)):
            raise ConfigError("is a second quorum, or names what is not defined above", where=at)
        self.quorum = name

    def _is_defined(self, name: str) -> bool:
        return name in self.groups or any(name == witness.name for witness in self.witnesses)

    def _define(self, name: str, at: str) -> None:
        if name == NONE or self._is_defined(name):
            raise ConfigError(f"{name[:80]!r} is defined already", where=at)
