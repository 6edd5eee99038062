"""The control protocol between the supervisor and its worker: frames, and their meaning.

One socket pair, one worker. A frame is a 4-byte big-endian length and that many
bytes of msgpack: a map whose ``type`` says what it is. Everything here is pure,
so that the trio side (supervisor) and the asyncio side (worker) share it.

How the worker is started: ``python -I -m aesp_proxy.daemon.spawned PID SIGNAL
aesp_proxy.daemon.worker --control-fd N --listen-fd N``. ``spawned`` ties the
process to its parent's life and then runs the worker's module as ``__main__``.
Both descriptors are inherited (or handed over, see ``early``): a connected stream
socket, and a listening TCP socket (made with ``IPPROTO_TCP``, bound and listening
already). Standard input is /dev/null, standard output and error a log in the state
directory; the process has a session of its own, so the terminal's signals pass it by.

========== ================== =====================================================
direction  frame              fields
========== ================== =====================================================
to worker  ``config``         ``settings`` (``Settings.to_worker()``),
                              ``session_id``, ``ca_dir`` (text): always the first;
                              ``place`` of ``places``: which of how many workers it is;
                              ``kept`` (text) and ``serial``: a kept policy to read
                              instead of the settings' (see ``policy_kept``), or empty;
                              ``exact_key`` (bytes): the key of registered values, and
                              ``registrations`` (int): how many frames ``register`` are
                              taken before it is ready
to worker  ``register``       ``entries``: hashes of values to look for from now on (see
                              ``secret_registry``); answer ``registered``
to worker  ``forget``         ``name``: look for its values no more; answer ``registered``
to worker  ``reload``         ``kept``, ``serial``: read that policy whole, swap it in,
                              answer ``serving``; what fails ends in ``failed``
to worker  ``refused``        ``message``: record that another policy was not taken, and why
to worker  ``rules``          ``event``, ``message``, ``holds``: record what became of the
                              packet rules of a capture
to worker  ``count``          no fields: answer ``counts``, which also tells that the
                              worker is not stuck
to worker  ``why``            no fields: answer ``denials``
to worker  ``stop``           ``grace_s`` (float): accept nothing new, finish what is
                              under way for at most this long, record, exit 0
from it    ``checked``        no fields: all that an operator could have to mend was read
                              and is good; what is left is to compile, which takes
                              seconds where it was not kept; until ``ready`` whoever
                              connects waits; once
from it    ``ready``          ``port``, ``epoch`` (ints): it accepts, and records as
                              this epoch of the journal; once
from it    ``failed``         ``exit_code`` (3 configuration, 4 runtime), ``message``
                              (one line, ``where: what (remedy)``): then it exits
from it    ``notice``         ``message``: one line for the person at the terminal
from it    ``serving``        ``serial``, ``name``, ``hash``, ``stamp``: the policy it
                              decides by now; after ``ready`` and after each reload
from it    ``registered``     ``names`` (int): of so many names values are looked for
from it    ``counts``         ``connections`` now, requests ``allowed``, attempts
                              ``refused`` since it started
from it    ``denials``        ``rows``: its last refusals, see ``denials``
========== ================== =====================================================

End of file at the worker means that the supervisor is dead: treat it as ``stop``
with no grace. End of file at the supervisor means that the worker is dead: the
plane is closed, and the child is ended. An unknown ``type`` is an error on both
sides: both are of one version, so it can only be damage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

import ormsgpack

from aesp_proxy.daemon.denials import Denials, Denied, read_denials
from aesp_proxy.errors import InputError

FRAME_BYTES_MAX: Final = 1 << 20
_LENGTH_BYTES: Final = 4
_MESSAGE_CHARS_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The policy and what it needs were read and are good; the worker does not accept yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The worker accepts on ``port`` and records as ``epoch``."""

    port: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The worker gives up; ``exit_code`` is 3 or 4, ``message`` one line."""

    exit_code: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One line for the person at the terminal."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The policy that a worker decides by."""

    serial: int
    name: str
    hash: str
    stamp: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a worker has under way, and has done since it started; ``figures`` are of ``tally``."""

    connections: int
    allowed: int
    refused: int
    figures: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """Of so many names a worker looks for values."""

    names: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DenialsTold:
    """What a worker or file guard has refused last."""

    denials: tuple[Denied, ...]


FromWorker = Checked | Ready | Failed | Notice | Serving | Counts | Registered | DenialsTold


def encode_frame(frame: dict[str, object]) -> bytes:
    """Encode one frame with its length.

    Raises InputError when it holds what msgpack does not, or more than
    ``FRAME_BYTES_MAX`` bytes.
    """
    try:
        body = ormsgpack.packb(frame)
    except (TypeError, ValueError) as error:
        raise InputError(f"cannot encode a control frame: {error}") from error
    if len(body) > FRAME_BYTES_MAX:
        raise InputError(f"control frame of {len(body)} bytes; at most {FRAME_BYTES_MAX}")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def config_frame(
    settings: dict[str, object],
    *,
    session_id: str,
    ca_dir: str,
    kept: str = "",
    serial: int = 1,
    exact_key: bytes = b"",
    registrations: int = 0,
    place: int = 0,
    places: int = 1,
) -> bytes:
    """Encode the first frame to a worker."""
    return encode_frame(
        {
            "type": "config",
            "settings": settings,
            "session_id": session_id,
            "ca_dir": ca_dir,
            "kept": kept,
            "serial": serial,
            "exact_key": exact_key,
            "registrations": registrations,
            "place": place,
            "places": places,
        }
    )


def reload_frame(*, kept: str, serial: int) -> bytes:
    """Encode the order to decide by another policy from now on."""
    return encode_frame({"type": "reload", "kept": kept, "serial": serial})


def refused_frame(message: str) -> bytes:
    """Encode the order to record that a policy was not taken."""
    return encode_frame({"type": "refused", "message": message[:_MESSAGE_CHARS_MAX]})


def rules_frame(*, event: str, message: str, holds: bool, subject: str = "capture") -> bytes:
    """Encode the order to record what became of the packet rules, or of the watch of files."""
    message = message[:_MESSAGE_CHARS_MAX]
    frame = {"type": "rules", "event": event, "message": message, "holds": holds}
    return encode_frame({**frame, "subject": subject})


def count_frame() -> bytes:
    """Encode the question how much is under way."""
    return encode_frame({"type": "count"})


def why_frame() -> bytes:
    """Encode the question what was refused last."""
    return encode_frame({"type": "why"})


def denials_frame(denials: Denials) -> bytes:
    """Encode what a worker or file guard has refused last."""
    return encode_frame({"type": "denials", "rows": denials.rows()})


def serving_frame(serving: Serving) -> bytes:
    """Encode a worker's word which policy it decides by."""
    return encode_frame({"type": "serving", **asdict(serving)})


def counts_frame(counts: Counts) -> bytes:
    """Encode a worker's counts."""
    return encode_frame({"type": "counts", **asdict(counts)})


def stop_frame(*, grace_s: float) -> bytes:
    """Encode the request to finish within ``grace_s`` seconds."""
    return encode_frame({"type": "stop", "grace_s": grace_s})


def registered_frame(names: int) -> bytes:
    """Encode a worker's word that it looks for the values of so many names."""
    return encode_frame({"type": "registered", "names": names})


def checked_frame() -> bytes:
    """Encode the worker's word that what it was given is good."""
    return encode_frame({"type": "checked"})


def ready_frame(*, port: int, epoch: int) -> bytes:
    """Encode the worker's word that it accepts connections."""
    return encode_frame({"type": "ready", "port": port, "epoch": epoch})


def failed_frame(*, exit_code: int, message: str) -> bytes:
    """Encode the worker's word that it cannot go on."""
    return encode_frame({"type": "failed", "exit_code": exit_code, "message": message})


def notice_frame(message: str) -> bytes:
    """Encode a line for the person at the terminal."""
    return encode_frame({"type": "notice", "message": message})


class FrameDecoder:
    """Cut a byte stream into frames; feed it whatever a read returned."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending_bytes(self) -> int:
        """How much of an unfinished frame is held; more than 0 at EOF means a torn frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[dict[str, object]]:
        """Take ``data`` and return the frames that are now whole, in order.

        Raises InputError for a frame that is too long, is not msgpack, or is not
        a map with a text ``type``; the stream cannot be used after that.
        """
        self._buffer += data
        frames: list[dict[str, object]] = []
        while len(self._buffer) >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if length > FRAME_BYTES_MAX:
                raise InputError(f"control frame of {length} bytes; at most {FRAME_BYTES_MAX}")
            end = _LENGTH_BYTES + length
            if len(self._buffer) < end:
                break
            frames.append(_decode_body(bytes(self._buffer[_LENGTH_BYTES:end])))
            del self._buffer[:end]
        return frames


def _decode_body(body: bytes) -> dict[str, object]:
    try:
        frame = ormsgpack.unpackb(body)
    except ValueError as error:
        raise InputError(f"control frame is not msgpack: {error}") from error
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise InputError("control frame is not a map with a type")
    return frame


def from_worker(frame: dict[str, object]) -> FromWorker:
    """Read a frame that a worker sent; InputError for anything but its types."""
    match frame:
        case {"type": "ready", "port": int(port), "epoch": int(epoch)} if 0 < port < 65536:
            return Ready(port=port, epoch=epoch)
        case {"type": "checked"}:
            return Checked()
        case {"type": "failed", "exit_code": int(exit_code), "message": str(message)}:
            return Failed(exit_code=exit_code, message=message)
        case {"type": "notice", "message": str(message)}:
            return Notice(message=message)
        case {
            "type": "serving",
            "serial": int(serial),
            "name": str(name),
            "hash": str(digest),
            "stamp": str(stamp),
        }:
            return Serving(serial=serial, name=name, hash=digest, stamp=stamp)
        case {
            "type": "counts",
            "connections": int(connections),
            "allowed": int(allowed),
            "refused": int(refused),
        }:
            figures = frame.get("figures")
            return Counts(
                connections=connections,
                allowed=allowed,
                refused=refused,
                figures=figures if isinstance(figures, dict) else {},
            )
        case {"type": "registered", "names": int(names)}:
            return Registered(names=names)
        case {"type": "denials", "rows": rows}:
            return DenialsTold(denials=read_denials(rows))
        case _:
            raise InputError(f"a worker sent a control frame of type {frame['type']!r}")
