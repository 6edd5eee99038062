"""Keep what is known of registered values in the supervisor, and hand it to workers.

A value is hashed here, by a key of this process that is never written, and let go. Workers
are given hashes only. One that takes a dead one's place is given them all again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.control import encode_frame
from aesp_proxy.daemon.fingerprint import load_fingerprint_key
from aesp_proxy.daemon.secret_sources import Broken, Value, collect
from aesp_proxy.daemon.secret_watch import SourceWatch
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.registered import Entry, Hasher, Spelling, entry, plain_name
from aesp_proxy.errors import ConfigError, InputError

_KEY_BYTES: Final = 32
_ENTRIES_A_FRAME: Final = 200
_NAMES_SHOWN_MAX: Final = 12
_ASKED: Final = ("file:", "dir:", "vault:", "exec:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A value that is not looked for, and why; never the value."""

    name: str
    source: str
    reason: str


class Registry:
    """The registered values of one service or run."""

    def __init__(self, fingerprint_key: bytes) -> None:
        self.key = secrets.token_bytes(_KEY_BYTES)
        self._fingerprint_key = fingerprint_key
        self._hasher = Hasher(self.key)
        self._entries: dict[tuple[str, str, str], Entry] = {}
        self.watch: SourceWatch | None = None

    def add(self, values: Iterable[Value]) -> tuple[list[Entry], list[Refused]]:
        """Register values; return those that are new, and those that are not taken."""
        added, refused = [], []
        for value in values:
            try:
                one = entry(
                    value.name,
                    value.source,
                    value.value,
                    hasher=self._hasher,
                    fingerprint_key=self._fingerprint_key,
                )
            except ConfigError as error:
                name = plain_name(value.name)
                refused.append(Refused(name=name, source=value.source, reason=str(error)))
                continue
            identity = (one.name, one.source, one.fingerprint)
            if identity not in self._entries:
                self._entries[identity] = one
                added.append(one)
        return added, refused

    def forget(self, name: str) -> int:
        """Let all values of a name go; return how many there were."""
        gone = [identity for identity in self._entries if identity[0] == name]
        for identity in gone:
            del self._entries[identity]
        return len(gone)

    def listed(self) -> list[dict[str, object]]:
        """Return name and source of each, for a person; never a value."""
        return [{"name": name, "source": source} for name, source, _ in sorted(self._entries)]

    @property
    def broken(self) -> Broken:
        """The well-known files that could not be read whole, each with the reason."""
        return {} if self.watch is None else self.watch.broken

    def index(self) -> ExactIndex:
        """Return what finds the registered values here, as workers do."""
        index = ExactIndex(self.key)
        index.add(list(self._entries.values()))
        return index

    def frames(self) -> list[bytes]:
        """Return the frames that give a worker all that is registered."""
        return list(register_frames(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)


def registry_of(
    settings: Settings,
    environ: Mapping[str, str],
    sources: Sequence[str] = (),
    *,
    say: Callable[[str], None],
    is_agents: bool = True,
) -> Registry:
    """Collect and register what the settings name; ``say`` what that is, by name.

    ``environ`` is ours, and the agent's too if ``is_agents``. Of it and of well-known
    files only what is registered is said. ConfigError for a source that cannot be read.
    """
    registry = Registry(load_fingerprint_key(settings.state_dir))
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    watch = registry.watch = SourceWatch(settings.secrets, home, sources)  # before it is read
    values = collect(
        settings.secrets,
        environ=environ if is_agents else {},
        home=home,
        more=sources,
        broken=watch.broken,
    )
    added, refused = registry.add(values)
    named = [one for one in refused if one.source.startswith(_ASKED)]
    for line in (*told(added, named), *told_broken(watch.broken)):
        say(line)
    return registry


def register_frames(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield frames that have a worker look for ``entries``."""
    every = list(entries)
    for at in range(0, len(every), _ENTRIES_A_FRAME):
        packed = [_packed(one) for one in every[at : at + _ENTRIES_A_FRAME]]
        yield encode_frame({"type": "register", "entries": packed})


def forget_frame(name: str) -> bytes:
    """Encode the order to look for a name's values no more."""
    return encode_frame({"type": "forget", "name": name})


def _packed(one: Entry) -> list[object]:
    spellings = [
        [each.wrapping, each.length, each.window, each.grams, each.digest, each.shapes]
        for each in one.spellings
    ]
    return [one.name, one.source, one.fingerprint, spellings, one.parts]


def entries_of(frame: dict[str, object]) -> list[Entry]:
    """Read what ``register_frames`` wrote; InputError for anything else."""
    packed = frame.get("entries")
    if not isinstance(packed, list):
        raise InputError("the supervisor registers nothing")
    return [_unpacked(one) for one in packed]


def _unpacked(one: object) -> Entry:
    match one:
        case [str(name), str(source), str(fingerprint), [*spellings], bytes(parts)]:
            return Entry(
                name=name,
                source=source,
                fingerprint=fingerprint,
                spellings=tuple(_spelling(each) for each in spellings),
                parts=parts,
            )
        case _:
            raise InputError("the supervisor registers what is no entry")


def _spelling(one: object) -> Spelling:
    match one:
        case [str(wrapping), int(length), int(window), bytes(grams), bytes(digest), bytes(shapes)]:
            return Spelling(
                wrapping=wrapping,
                length=length,
                window=window,
                grams=grams,
                digest=digest,
                shapes=shapes,
            )
        case _:
            raise InputError("the supervisor registers what is no spelling")


def told_broken(broken: Broken) -> list[str]:
    """Return lines that say of which files not all is looked for."""
    return [f"{source}: {why}; of it, only what its lines show is looked for"
            for source, why in sorted(broken.items())]  # fmt: skip


def told(added: Iterable[Entry], refused: Iterable[Refused]) -> list[str]:
    """Return lines that say by name what is looked for now, and what is not and why."""
    names = list(dict.fromkeys(one.name for one in added))
    lines = []
    if names:
        shown = ", ".join(names[:_NAMES_SHOWN_MAX])
        more = f" and {len(names) - _NAMES_SHOWN_MAX} more" if len(names) > _NAMES_SHOWN_MAX else ""
        count = "1 secret value" if len(names) == 1 else f"{len(names)} secret values"
        lines.append(f"registered {count}, which may not leave: {shown}{more}")
    lines += [f"not registered: {one.name} ({one.source}): {one.reason}" for one in refused]
    return lines
