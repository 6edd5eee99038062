"""A secret cut to pieces is found with its last piece, wherever they stand; chance is none."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_lab import token

from aesp_proxy.daemon.listener import queues_of
from aesp_proxy.daemon.session_pieces import SessionPieces
from aesp_proxy.daemon.shared_pieces import PieceQueues, Said
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.pieces import PAIR_BYTES, SHAPES_MAX, TAPES_MAX, PieceMemory, Unit
from aesp_proxy.decide.secrets.registered import Hasher, entry
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.secrets.slots import shown, target_slots, text_slots
from aesp_proxy.model.event import DnsQuery, EgressRequest
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.principal import Principal

KEY = b"a key for the tests of pieces..."
VALUE = "".join(random.Random(6).choices(string.ascii_letters + string.digits, k=34))
TOKEN = token(17)
WHO = Principal(principal_id="p", agent_id="a", agent_type="t", session_id="s")
Sent = tuple[str, str, tuple[tuple[bytes, bytes], ...], bytes]
"""Host, target, fields, body."""


@pytest.fixture(scope="module")
def watching(pack: tuple[Rule, ...]) -> SecretScanner:
    exact = ExactIndex(KEY)
    exact.add([entry("V", "t", VALUE.encode(), hasher=Hasher(KEY), fingerprint_key=KEY)])
    return SecretScanner(pack, KEY, exact=exact)


def request(host: str, target: str, fields: tuple[tuple[bytes, bytes], ...] = ()) -> EgressRequest:
    path, _, query = target.partition("?")
    return EgressRequest(
        event_id="", time_ns=0, principal=WHO, scheme="https", method="GET",
        host=parse_host(host), port=443, target=target, path=path, query=query,
        headers=((b"host", host.encode()), (b"user-agent", b"x/1"), *fields), http_version="1.1",
    )  # fmt: skip


def told(pieces: SessionPieces, scanner: SecretScanner, sent: Sent) -> set[str]:
    """Send one request; return the rules of what it completes."""
    host, target, fields, body = sent
    event = request(host, target, fields)
    found = pieces.head(event, scanner)
    found += pieces.text(event, "body", body, scanner) if body and not found else ()
    return {one.rule for one in found}


def cut(secret: str, size: int) -> list[str]:
    return [secret[at : at + size] for at in range(0, len(secret), size)]


Place = Callable[[int, str], Sent]
PLACES: dict[str, Place] = {
    "segment": lambda _, p: ("one.test", f"/up/{p}", (), b""),
    "segments before": lambda n, p: ("one.test", f"/{n}/{p}/x", (), b""),
    "parameter": lambda n, p: ("one.test", f"/up?n={n}&p={p}", (), b""),
    "other names of a parameter": lambda n, p: ("one.test", f"/up?p{n}={p}", (), b""),
    "name of a parameter": lambda _, p: ("one.test", f"/up?{p}=1", (), b""),
    "percent": lambda _, p: ("one.test", "/" + "".join(f"%{ord(c):02x}" for c in p), (), b""),
    "file name": lambda n, p: ("one.test", f"/files/{n}-{p}.txt", (), b""),
    "hosts in turn": lambda n, p: (f"h{n % 3}.test", f"/up/{p}", (), b""),
    "field": lambda _, p: ("one.test", "/", ((b"x-part", p.encode()),), b""),
    "other fields": lambda n, p: ("one.test", "/", ((b"x-%d" % n, p.encode()),), b""),
    "cookie": lambda _, p: ("one.test", "/", ((b"cookie", f"a=b; s={p}".encode()),), b""),
    "body": lambda _, p: ("one.test", "/", (), p.encode()),
    "json": lambda n, p: ("one.test", "/", (), json.dumps({"n": n, "part": p}).encode()),
    "form": lambda n, p: ("one.test", "/", (), f"n={n}&part={p}&end=1".encode()),
    "hex": lambda _, p: ("one.test", f"/{p.encode().hex()}", (), b""),
    "base64": lambda _, p: (
        "one.test", "/", (), json.dumps({"p": base64.b64encode(p.encode()).decode()}).encode()
    ),
}  # fmt: skip
SIZES = (1, 2, 3, 4, 7, 12, 20)


def between(number: int) -> Sent:
    """What an agent says meanwhile, to its model."""
    body = json.dumps({"model": "m", "messages": [{"content": f"turn {number}"}] * 40}).encode()
    return "api.test", "/v1/messages", ((b"x-request-id", b"%032x" % number),), body * 4


@pytest.mark.parametrize("secret", [TOKEN, VALUE], ids=["rule", "registered"])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_the_last_piece_is_stopped(watching: SecretScanner, place: str, secret: str) -> None:
    missed = []
    for size in SIZES:
        if size == 1 and place in ("base64", "file name"):
            continue  # a letter in base64 says nothing, a digit beside a number counts
        pieces, found = SessionPieces(), set()
        for number, piece in enumerate(cut(secret, size)):
            assert not told(pieces, watching, between(number))
            found |= told(pieces, watching, PLACES[place](number, piece))
        if not found:
            missed.append(size)
    assert not missed
    assert found <= {"registered:V", "github-pat"}


@pytest.mark.parametrize("secret", [TOKEN, VALUE], ids=["rule", "registered"])
def test_two_halves_are_found_in_either_order(watching: SecretScanner, secret: str) -> None:
    pieces = SessionPieces()
    assert not told(pieces, watching, PLACES["segment"](0, secret[17:]))
    assert told(pieces, watching, PLACES["segment"](1, secret[:17]))


def test_what_was_refused_has_not_left_and_comes_back_refused(watching: SecretScanner) -> None:
    pieces = SessionPieces()
    assert not told(pieces, watching, PLACES["segment"](0, TOKEN[:20]))
    for _ in range(3):
        assert told(pieces, watching, PLACES["segment"](1, TOKEN[20:])) == {"github-pat"}
    assert not told(pieces, watching, PLACES["segment"](2, "more"))


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_the_last_piece_is_refused_however_often_it_is_sent(
    watching: SecretScanner, place: str
) -> None:
    pieces, make = SessionPieces(), PLACES[place]
    assert not told(pieces, watching, make(0, VALUE[:17]))
    assert [bool(told(pieces, watching, make(1, VALUE[17:]))) for _ in range(4)] == [True] * 4


def test_a_part_in_a_new_field_is_refused_however_often_it_is_sent(
    knowing: SecretScanner,
) -> None:
    pieces, sent = SessionPieces(), ("one.test", "/", ((b"x-one", b"a " + VALUE[:17].encode()),))
    assert not heard(pieces, knowing, (*sent, b""))
    last = ("two.test", "/", ((b"x-two", b"b " + VALUE[17:].encode()),), b"")
    assert [bool(heard(pieces, knowing, last)) for _ in range(4)] == [True] * 4


def test_a_last_label_is_refused_however_often_it_is_asked(watching: SecretScanner) -> None:
    pieces, text = SessionPieces(), VALUE.encode().hex()
    answers = []
    for label in (text[:34], *[text[34:]] * 4):
        event = DnsQuery(
            event_id="", time_ns=0, principal=WHO, host=parse_host(f"{label}.sub.test"),
            record_type="A",
        )  # fmt: skip
        answers.append(bool(pieces.head(event, watching)))
    assert answers == [False, True, True, True, True]


def test_sessions_do_not_meet(watching: SecretScanner) -> None:
    one, two = SessionPieces(), SessionPieces()
    assert not told(one, watching, PLACES["segment"](0, TOKEN[:20]))
    assert not told(two, watching, PLACES["segment"](1, TOKEN[20:]))


def test_labels_of_names_are_pieces(watching: SecretScanner) -> None:
    pieces, found = SessionPieces(), False
    for label in cut(base64.b32encode(VALUE.encode()).decode().rstrip("=").lower(), 8):
        for _ in range(2):  # A and AAAA
            event = DnsQuery(
                event_id="", time_ns=0, principal=WHO, host=parse_host(f"{label}.sub.test"),
                record_type="A",
            )  # fmt: skip
            found = found or bool(pieces.head(event, watching))
    assert found


def test_messages_are_pieces_in_whatever_they_are_wrapped(watching: SecretScanner) -> None:
    pieces, event = SessionPieces(), request("ws.test", "/")
    found = [
        pieces.text(event, "message", json.dumps({"seq": n, "d": piece}).encode(), watching)
        for n, piece in enumerate(cut(TOKEN, 5))
    ]
    assert [bool(one) for one in found] == [False] * 7 + [True]


def honest(seed: int) -> Iterator[Sent]:
    """What agents ask of ordinary services, drawn by chance."""
    chance = random.Random(seed)
    word = lambda: chance.choice(("items", "users", "v1", "repos", "main", "src", "a", "List"))  # noqa: E731
    for number in range(60):
        ident = f"{chance.getrandbits(128):032x}"
        yield "one.test", f"/{word()}/{ident}", (), b""
        yield "one.test", f"/{word()}/{word()}?page={number}&sort={word()}", (), b""
        yield "two.test", f"/{base64.urlsafe_b64encode(chance.randbytes(12)).decode()}", (), b""
        yield "two.test", "/", ((b"etag", ident.encode()),), json.dumps({"id": ident}).encode()
        yield between(number)


BEGINNINGS = ("ghp_", "AKIA", "AKIAIOSF", "sk-ant-api03-", "xoxb-1234", "hf_abc", "npm_", "glpat-")


@pytest.mark.parametrize("seed", range(4))
def test_honest_traffic_completes_nothing(watching: SecretScanner, seed: int) -> None:
    pieces = SessionPieces()
    for number, sent in enumerate(honest(seed)):
        assert not told(pieces, watching, sent), sent
        if number % 9 == 0:  # somebody writes of tokens, and names how they begin
            beginning = BEGINNINGS[number // 9 % len(BEGINNINGS)]
            assert not told(pieces, watching, ("one.test", f"/search/{beginning}", (), b""))


LONG = "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=60))
HAY = "".join(random.Random(8).choices(string.ascii_letters + string.digits, k=400))


def scattered(secret: str, size: int) -> list[Sent]:
    """Pieces out of order, each in another place, between letters that look like more of it."""
    made = []
    for number, piece in enumerate(cut(secret, size)):
        hidden = HAY[number * 9 : number * 9 + 20] + piece + HAY[number * 7 : number * 7 + 11]
        place = list(PLACES.values())[number % 5]
        made.append(place(number, hidden))
        made.append(("api.test", "/v1/messages", (), json.dumps({"said": HAY * 90}).encode()))
        made[-1] = (*made[-1][:3], made[-1][3] + hidden.encode()) if number % 2 else made[-2]
    return random.Random(size).sample(made, len(made))


def heard(pieces: SessionPieces, scanner: SecretScanner, sent: Sent) -> set[str]:
    """Send one request with a body of any length; return the rules of what it completes."""
    host, target, fields, body = sent
    event = request(host, target, fields)
    found = list(pieces.head(event, scanner))
    unit = pieces.covered(event, scanner)
    assert unit is not None
    for at in range(0, len(body), 5_000):
        unit.hear(body[at : at + 5_000])
        found += unit.told()
    return {one.rule for one in found}


@pytest.fixture(scope="module")
def knowing(pack: tuple[Rule, ...]) -> SecretScanner:
    exact = ExactIndex(KEY)
    for name, value in (("V", VALUE), ("L", LONG)):
        made = entry(name, "t", value.encode(), hasher=Hasher(KEY), fingerprint_key=KEY)
        exact.add([made])
    return SecretScanner(pack, KEY, exact=exact)


@pytest.mark.parametrize("size", [8, 9, 11, 13, 17])
@pytest.mark.parametrize("name", ["V", "L"])
def test_scattered_parts_of_a_registered_value_are_put_together(
    knowing: SecretScanner, name: str, size: int
) -> None:
    pieces, found = SessionPieces(), set()
    for sent in scattered({"V": VALUE, "L": LONG}[name], size):
        found |= heard(pieces, knowing, sent)
    assert found == {f"registered:{name}"}


def test_a_refused_part_is_refused_again_in_the_same_body(knowing: SecretScanner) -> None:
    pieces, hay = SessionPieces(), (HAY * 30).encode()
    first, second = (hay + half.encode() + hay for half in (VALUE[:17], VALUE[17:]))
    assert not heard(pieces, knowing, ("one.test", "/", (), first))
    for _ in range(3):
        assert heard(pieces, knowing, ("two.test", "/", (), second)) == {"registered:V"}


def test_in_a_long_body_pieces_of_eleven_bytes_are_found(knowing: SecretScanner) -> None:
    pieces, hay = SessionPieces(), (HAY * 300).encode()
    found: set[str] = set()
    for number, piece in enumerate(cut(LONG, 12)):
        body = hay[number:] + piece.encode() + hay
        found |= heard(pieces, knowing, ("one.test", "/", (), body))
    assert found == {"registered:L"}


def test_what_is_said_of_a_value_in_honest_talk_is_no_leak(knowing: SecretScanner) -> None:
    pieces = SessionPieces()
    for number in range(5):  # how it begins, and the last four; and whole, which its scan judges
        for text in (f"uses {LONG[:12]}...", f"ends in {LONG[-4:]}", f"a {number} b {HAY}", LONG):
            sent = ("api.test", "/v1/messages", (), (HAY * 30 + text).encode())
            assert not heard(pieces, knowing, sent), text


def test_a_conversation_that_is_repeated_is_not_looked_at_again(
    knowing: SecretScanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    index = knowing.exact
    assert index is not None
    find = ExactIndex.parts
    monkeypatch.setattr(
        ExactIndex,
        "parts",
        lambda self, data, stride=1: looked.append(len(data)) or find(self, data, stride),
    )
    pieces, body = SessionPieces(), (HAY * 300).encode()
    for turn in range(4):
        unit = pieces.covered(request("api.test", "/"), knowing)
        assert unit is not None
        unit.hear((body + b"x" * turn)[: 50_000 + turn])  # cut elsewhere each time
        unit.hear((body + b"x" * turn)[50_000 + turn :])
        assert not unit.told()
    assert sum(looked) < 1.2 * len(body)


def test_memory_is_bounded() -> None:
    memory = PieceMemory()
    for number in range(SHAPES_MAX * 2):
        for turn in range(2):
            slots = tuple(b"%d-%d-%d" % (number, turn, slot) for slot in range(number % 60))
            memory.keep(memory.step(Unit(kind="body", host=f"h{number}", slots=slots)))
    long = [Unit(kind="long", host="h", slots=(b"%d" % n + b"x" * 3_000, b"y")) for n in range(9)]
    for unit in long:
        memory.keep(memory.step(unit))
    shapes = memory._shapes
    assert len(shapes) <= SHAPES_MAX
    assert memory._tapes == sum(len(shape.slots) for shape in shapes.values()) <= TAPES_MAX
    for shape in shapes.values():
        for slot in shape.slots.values():
            for tape in (slot.whole, slot.fresh, slot.inner, slot.plain):
                assert sum(map(len, tape.pieces)) == tape.size <= PAIR_BYTES


@given(st.text("ABCZaz247", min_size=15, max_size=80).map("Z".__add__))
def test_pieces_in_base32_say_what_the_standard_library_reads(digits: str) -> None:
    # Digits that make no whole byte say nothing; both cases are digits. Z is none of hex.
    whole = digits[: len(digits) - (len(digits) % 8 in (1, 3, 6))]
    said = base64.b32decode(whole + "=" * (-len(whole) % 8), casefold=True)
    assert said in set(shown(digits.encode()))


def test_what_does_not_change_is_not_joined() -> None:
    memory, unit = PieceMemory(), Unit(kind="k", host="h", slots=text_slots(b'{"a": "same"}'))
    for _ in range(3):
        step = memory.step(unit)
        assert step.joined() == []
        memory.keep(step)
    assert not memory._tapes


PARTS = st.sampled_from(
    (b"a", b"Zx9", b"=", b"/", b"-", b"+", b"eyJ", b"77", b"\xff\0", b" ", b".")
)
TEXTS = st.one_of(st.binary(max_size=40), st.lists(PARTS, max_size=30).map(b"".join))


@given(st.lists(TEXTS, max_size=12))
def test_any_bytes_are_joined_without_failing(texts: list[bytes]) -> None:
    memory = PieceMemory()
    for text in texts:
        for slots in (text_slots(text), target_slots(text), (text,)):
            step = memory.step(Unit(kind="k", host="h", slots=slots))
            for one in step.joined():
                assert isinstance(one.text, bytes)
                assert not one.pieces or b"".join(one.pieces) == one.text
            memory.keep(step)


@pytest.fixture
def workers() -> Iterator[list[SessionPieces]]:
    """The memories of three workers that tell each other."""
    given = queues_of("pieces", 3)
    yield [
        SessionPieces(PieceQueues(queue[0][1], [sock for _, sock in queue[1:]])) for queue in given
    ]
    for queue in given:
        for _, sock in queue:
            sock.close()


def test_what_a_stuck_workers_full_queue_does_not_take_is_counted() -> None:
    lost: list[int] = []
    given = queues_of("pieces", 2)
    queues = PieceQueues(given[0][0][1], [given[0][1][1]], lambda: lost.append(1))
    other = PieceQueues(given[1][0][1], [given[1][1][1]])
    told = 0
    while not lost:
        told += 1
        assert told < 1_000_000
        queues.tell("p", Said(fingerprint="f", bits=1 << 400_000))
    assert len(list(other.heard())) == told - len(lost)
    queues.tell("p", Said(fingerprint="f", bits=1))
    assert (len(lost), len(list(other.heard()))) == (1, 1)
    for _, sock in (*given[0], *given[1]):
        sock.close()


@pytest.mark.parametrize("secret", [TOKEN, VALUE], ids=["rule", "registered"])
@pytest.mark.parametrize("place", ["segment", "hosts in turn", "field", "cookie", "json"])
def test_pieces_that_reach_several_workers_in_turn_are_put_together(
    watching: SecretScanner, workers: list[SessionPieces], place: str, secret: str
) -> None:
    missed = []
    for size in (1, 4, 12):
        for one in workers:
            one.clear()
        found: set[str] = set()
        for number, piece in enumerate(cut(secret, size)):
            assert not told(workers[(number + 1) % 3], watching, between(number))
            found |= told(workers[number % 3], watching, PLACES[place](number, piece))
        if not found:
            missed.append(size)
    assert not missed


def test_scattered_parts_that_reach_several_workers_are_put_together(
    knowing: SecretScanner, workers: list[SessionPieces]
) -> None:
    found: set[str] = set()
    for number, sent in enumerate(scattered(LONG, 9)):
        found |= heard(workers[number % 3], knowing, sent)
    assert found == {"registered:L"}


@pytest.mark.parametrize("heard_or_told", [told, heard], ids=["by rule", "registered"])
def test_of_two_pieces_that_leave_at_the_same_time_one_is_refused(
    knowing: SecretScanner, workers: list[SessionPieces], monkeypatch, heard_or_told
) -> None:
    secret = TOKEN if heard_or_told is told else VALUE
    first, second = (("one.test", f"/up/{piece}", (), b"") for piece in (secret[:17], secret[17:]))
    tell, found = PieceQueues.tell, set()

    def meanwhile(queues: PieceQueues, principal: str, piece: Unit | Said) -> None:
        """Let the other worker do all of its own before this one says anything."""
        monkeypatch.setattr(PieceQueues, "tell", tell)
        found.update(heard_or_told(workers[1], knowing, second))
        tell(queues, principal, piece)

    monkeypatch.setattr(PieceQueues, "tell", meanwhile)
    found |= heard_or_told(workers[0], knowing, first)
    assert found == ({"github-pat"} if secret == TOKEN else {"registered:V"})


def test_what_never_moves_is_told_to_no_other_worker(
    watching: SecretScanner, workers: list[SessionPieces], monkeypatch
) -> None:
    sent: list[Unit | Said] = []
    monkeypatch.setattr(PieceQueues, "tell", lambda _, __, piece: sent.append(piece))
    for _ in range(10):
        assert not told(workers[0], watching, ("api.test", "/v1/messages", (), b'{"a": "b c"}'))
    assert len(sent) <= 2 + 3 * 3  # a name and fields once; what has shapes while it is counted


@pytest.mark.parametrize("secret", [TOKEN, VALUE], ids=["rule", "registered"])
def test_much_that_moves_in_one_place_does_not_hide_the_pieces_in_another(
    watching: SecretScanner, secret: str
) -> None:
    drawn, pieces, found = random.Random(3), SessionPieces(), set()
    for piece in cut(secret, 6):
        values = ("".join(drawn.choices(string.ascii_letters, k=150)) for _ in range(23))
        target = "/?" + "&".join(f"p{number}={value}" for number, value in enumerate(values))
        fields = tuple((b"x-%d" % n, drawn.randbytes(300).hex().encode()) for n in range(5))
        fields = (*fields, (b"z", piece.encode()))
        found |= told(pieces, watching, ("one.test", target, fields, b""))
    assert found
