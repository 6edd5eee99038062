"""A registered value that is taken apart in one body is found; what reads like it is not."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable

import pytest

from aesp_proxy.decide.secrets.covered import FINE_BYTES, CoveredMemory
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.registered import Hasher, entry
from aesp_proxy.decide.secrets.respelled import NUMBERS, SPREAD, readings

KEY = b"a key for the tests of readings."
VALUE = "".join(random.Random(11).choices(string.ascii_letters + string.digits, k=40)).encode()
DASHED = b"sk-" + VALUE[:12] + b"_" + VALUE[12:30] + b"-x9"
WAYS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "spaced": (SPREAD, lambda v: b" ".join(bytes((c,)) for c in v)),
    "lines": (SPREAD, lambda v: b"\n-\n".join(bytes((c,)) for c in v)),
    "hex with colons": (SPREAD, lambda v: v.hex(":").encode()),
    "hex with dashes": (SPREAD, lambda v: v.hex("-").encode()),
    "hex as addresses": (SPREAD, lambda v: v.hex(":", 2).encode()),
    "quoted-printable": (SPREAD, lambda v: b"".join(b"=%02X" % c for c in v)),
    "spaced base64": (
        SPREAD,
        lambda v: b" ".join(base64.b64encode(v)[n : n + 4] for n in range(0, 80, 4)),
    ),
    "concatenated": (SPREAD, lambda v: b"' . '".join(v[n : n + 9] for n in range(0, len(v), 9))),
    "escaped": (SPREAD, lambda v: b"".join(b"\\%c" % c for c in v)),
    "decimal": (NUMBERS, lambda v: str(list(v)).encode()),
    "decimal, spaced": (NUMBERS, lambda v: " ".join(map(str, v)).encode()),
    "octal": (NUMBERS, lambda v: " ".join(f"{c:03o}" for c in v).encode()),
    "binary": (NUMBERS, lambda v: " ".join(f"{c:08b}" for c in v).encode()),
    "hexadecimal": (NUMBERS, lambda v: ", ".join(f"0x{c:02x}" for c in v).encode()),
    "chr": (NUMBERS, lambda v: "+".join(f"chr({c})" for c in v).encode()),
    "char codes": (NUMBERS, lambda v: b"f(" + ",".join(map(str, v)).encode() + b")"),
    "addresses": (
        NUMBERS,
        lambda v: " ".join(".".join(map(str, v[n : n + 4])) for n in range(0, len(v), 4)).encode(),
    ),
}


@pytest.fixture(scope="module")
def index() -> ExactIndex:
    made = ExactIndex(KEY)
    hasher = Hasher(KEY)
    for name, value in (("V", VALUE), ("D", DASHED)):
        made.add([entry(name, "t", value, hasher=hasher, fingerprint_key=KEY)])
    return made


def told(index: ExactIndex, text: bytes, *, cut: int = 700) -> set[tuple[str, str]]:
    unit = CoveredMemory().open(index)
    found = set()
    for at in range(0, len(text), cut):
        unit.hear(text[at : at + cut])
        found |= {(one.rule, one.via) for one in unit.told()}
    return found


@pytest.mark.parametrize("cut", [97, 5_000])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_value_that_is_taken_apart_is_found(index: ExactIndex, way: str, cut: int) -> None:
    via, make = WAYS[way]
    text = b"what the 7 log says: " * 20 + make(VALUE) + b" and 3 more words" * 20
    assert ("registered:V", via) in told(index, text, cut=cut)


def test_a_value_with_marks_is_found_without_them(index: ExactIndex) -> None:
    text = b"words " * 9 + b" ".join(bytes((c,)) for c in DASHED) + b" words"
    assert ("registered:D", SPREAD) in told(index, text)


def test_halves_that_are_turned_are_found(index: ExactIndex) -> None:
    found = told(index, VALUE[17:] + b" then " + VALUE[:17] + b" more words" * 9)
    assert ("registered:V", "") in found
    short = ExactIndex(KEY)
    short.add([entry("S", "t", VALUE[:30], hasher=Hasher(KEY), fingerprint_key=KEY)])
    assert told(short, VALUE[15:30] + b" then " + VALUE[:15]) == {("registered:S", "")}


def test_what_stands_in_clear_is_left_to_its_scan(index: ExactIndex) -> None:
    assert told(index, b"words before " + VALUE + b" words behind") == set()
    assert told(index, b"a" * 600 + VALUE + b"b" * 600) == set()


def test_honest_text_says_nothing(index: ExactIndex) -> None:
    chance = random.Random(3)
    numbers = ", ".join(str(chance.randrange(256)) for _ in range(2_000)).encode()
    assert told(index, numbers + VALUE[:8] + b" " + VALUE[30:] + b" words" * 50) == set()


ODD = (b"", b"1", b"0x" * 99, b"9" * 99, b"9," * 999, b"0x4,0xz", b"\xff" * 99)


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_text_is_read_without_failing(text: bytes) -> None:
    assert all(isinstance(shown, bytes) for _, shown in readings(text * 3))


def test_a_long_body_is_read_so_at_its_beginning(index: ExactIndex) -> None:
    spaced = b" ".join(bytes((c,)) for c in VALUE)
    chance = random.Random(5)
    noise = bytes(chance.choices(b"abcdef ghij klmnop.", k=FINE_BYTES + 9_000))
    assert told(index, spaced + noise, cut=9_000)
    assert not told(index, noise + spaced, cut=9_000)
