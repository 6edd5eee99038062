"""What is wrapped is found and said to be; what only looks like it is not even decoded."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import json
import lzma
import quopri
import random
import re
import time
import urllib.parse

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scan_lab import token

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.hyperscan_gates import (
    OPENINGS_MAX,
    PAD,
    GateLocator,
    Traits,
    even_run_traits,
    mixed_run_traits,
    promise_traits,
    run_traits,
)
from aesp_proxy.decide.secrets.reference import compile_re2
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.secrets.views import run_spans
from aesp_proxy.decide.secrets.views.lens import SHORT_BYTES
from aesp_proxy.decide.secrets.views.runs import LOOPS
from aesp_proxy.decide.secrets.views.text_forms import (
    IN_EVEN_RUNS,
    IN_MIXED_RUNS,
    PROMISES,
    RUN,
    RUN_BYTES_MIN,
)
from aesp_proxy.model.decision import Severity

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=22, max_size=60)
WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
RUN_LETTERS = re.compile(rb"[A-Za-z0-9+/_-]{%d,}" % RUN_BYTES_MIN)
TRAITS = {
    "run": (run_traits, (RUN,)),
    "mixed": (mixed_run_traits, IN_MIXED_RUNS),
    "even": (even_run_traits, IN_EVEN_RUNS),
    "promise": (promise_traits, PROMISES),
}


@given(text=PRINTABLE, before=st.binary(max_size=5), behind=st.binary(max_size=5))
def test_text_in_base64_shows_whatever_stands_beside_it(
    text: str, before: bytes, behind: bytes
) -> None:
    data = before + text.encode() + behind
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert mixed_run_traits().first(encode(data)) >= 0


@given(text=PRINTABLE, order=st.sampled_from(["utf-16-le", "utf-16-be"]), shift=st.integers(0, 2))
def test_wide_text_in_base64_shows(text: str, order: str, shift: int) -> None:
    data = b"\xff" * shift + text.encode(order)
    assert mixed_run_traits().first(base64.b64encode(data)) >= 0


@given(text=PRINTABLE)
def test_text_in_base32_and_hex_shows(text: str) -> None:
    for digits in (base64.b32encode(text.encode()), text.encode().hex().encode()):
        for spelled in (digits, digits.lower(), digits.upper()):
            assert even_run_traits().first(b"\n" + spelled.rstrip(b"=")) >= 0


def test_digests_show_nothing() -> None:
    shown = 0
    for number in range(2_000):
        digest = hashlib.sha512(b"%d" % number).digest()
        shown += mixed_run_traits().first(b"\n" + base64.b64encode(digest)) >= 0
        shown += even_run_traits().first(b"\n" + digest.hex().encode()) >= 0
    assert shown <= 2


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(TRAITS)),
    data=st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.text("ABCabcXYZ019+/_-", max_size=60).map(str.encode),
            PRINTABLE.map(lambda text: base64.b64encode(text.encode())),
            PRINTABLE.map(lambda text: b"\n" + text.encode().hex().encode()),
            PRINTABLE.map(lambda text: text.encode("utf-16-le")),
        ),
        max_size=6,
    ).map(b"".join),
)
def test_the_engine_shows_what_re2_shows(name: str, data: bytes) -> None:
    traits, expressions = TRAITS[name]
    matches = [compile_re2(expression).search(data) for expression in expressions]
    assert (traits().first(data) >= 0) == any(match is not None for match in matches)


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.integers(0, 120), st.sampled_from([" ", "\n", '"', "é", ". "])), max_size=14
    ),
    at=st.integers(0, 40),
)
@example(parts=[(48, " ")] * 8, at=0)
@example(parts=[(47, " "), (48, " "), (0, " "), (49, " ")], at=0)
def test_runs_are_where_a_regex_says(parts: list[tuple[int, str]], at: int) -> None:
    letters = base64.b64encode(hashlib.sha512(b"runs").digest() * 2)
    text = " " * 41 + "".join(letters[:size].decode() + mark for size, mark in parts)
    data = text.encode()
    want = [match.span() for match in RUN_LETTERS.finditer(data, at)]
    assert run_spans.spans(data, at, 0, 0) == want
    assert LOOPS.spans(data, at, 0, 0) == want


@pytest.fixture
def secret(pack: tuple[Rule, ...]) -> bytes:
    return next(rule for rule in pack if rule.id == "github-pat").positives[0]


BEFORE, AFTER = b"Here is what the log says: ", b" and nothing else.\n"


def _quoted(text: bytes) -> bytes:
    """Return quoted-printable with a soft line break within the prefix of the token."""
    at = text.index(b"ghp_") + 2
    return quopri.encodestring(text[:at]) + b"=\r\n" + quopri.encodestring(text[at:])


WRAPPED = {
    "base64 twice": (lambda s: base64.b64encode(base64.b64encode(s)), "base64 > base64"),
    "base64 of a text": (lambda s: base64.b64encode(BEFORE * 9 + s + AFTER), "base64"),
    "hex of base64": (lambda s: base64.b64encode(s).hex().encode(), "hex > base64"),
    "base32 of base64": (lambda s: base64.b32encode(base64.b64encode(s)), "base32 > base64"),
    "a form": (lambda s: urllib.parse.urlencode({"a": BEFORE + s}).encode(), ""),
    "a name in a form": (lambda s: urllib.parse.quote(b'TOKEN="%s"' % s, safe="").encode(), ""),
    "an attribute": (lambda s: b"<p title=&quot;" + s + b"&quot;>", ""),
    "quoted-printable": (_quoted, "quoted-printable"),
}


@pytest.mark.parametrize("way", sorted(WRAPPED))
def test_what_is_wrapped_is_found_and_says_so(
    scanner: SecretScanner, secret: bytes, way: str
) -> None:
    wrap, via = WRAPPED[way]
    found = scanner.scan(BEFORE + wrap(secret) + AFTER, "body")
    assert "github-pat" in {one.rule for one in found}
    assert any(one.via.startswith(via) for one in found if one.rule == "github-pat")


@pytest.mark.parametrize("way", sorted(WRAPPED))
def test_what_a_short_text_shows_does_not_depend_on_what_follows(
    scanner: SecretScanner, secret: bytes, way: str
) -> None:
    # A short text is asked at once whether it opens a view, a longer one piece by piece.
    wrapped = WRAPPED[way][0](secret)
    for size in (SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1):
        text = b"\n" + wrapped + b"\n"
        text = b" " * (size - len(text)) + text
        assert "github-pat" in {one.rule for one in scanner.scan(text, "body")}, size


@pytest.mark.parametrize("size", [64, 8_192])
def test_too_many_gates_are_told_wherever_they_end(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    # The engine stops at so many, of which some end in what was put behind the data.
    many = [(size + 1, 0)] * OPENINGS_MAX
    monkeypatch.setattr(GateLocator, "find", lambda *_: many)
    found = GateLocator([], []).find_padded(memoryview(b"x" * size))
    assert len(found) >= OPENINGS_MAX


@pytest.mark.parametrize("letter", ["\u200b", "\uff41"])
def test_a_letter_above_ascii_in_a_short_text_opens_its_view(
    scanner: SecretScanner, secret: bytes, letter: str
) -> None:
    said = secret.decode()
    cut = said[:9] + letter + said[9:] if letter == "\u200b" else said.translate(WIDE)
    assert "github-pat" in {one.rule for one in scanner.scan(cut.encode(), "body")}


NAMED = {
    "a form": lambda text: urllib.parse.urlencode({"a": text.decode()}).encode(),
    "percent": lambda text: urllib.parse.quote(text, safe="").encode(),
    "entities": lambda text: text.replace(b'"', b"&quot;"),
    "quoted-printable": quopri.encodestring,
}


@pytest.mark.parametrize("way", sorted(NAMED))
def test_a_value_known_by_its_name_is_found_wrapped(scanner: SecretScanner, way: str) -> None:
    chance = random.Random(way)
    value = "".join(chance.choices("0123456789abcdef", k=32)).encode()
    found = scanner.scan(NAMED[way](b'export DATADOG_API_KEY="%s" # here' % value), "body")
    assert "datadog-api-key" in {one.rule for one in found}


HONEST = {
    "names": b"def _unpack_opargs(self): __slots__ = ('a',); is_unpacked = t.__unpacked__\n" * 40,
    "a sum of strings": b"nargs='+', '=' + '-', x = 'abc' + 'def', cmd = 'PORT ' + ','\n" * 40,
    "names of C++": b"_ZN4absl12lts_20260107container_internal12raw_hash_setINS1_17FlatHashMap\0"
    * 40,
    "escapes": b'{"a": "token\\": \\"none\\", mnemonic:\\n  the word \\\\n secret\\\\n"}' * 40,
    "a list": b'"a","b","c","d","e","f","g","h","i","j"\n' * 40,
}


@pytest.mark.parametrize("kind", sorted(HONEST))
def test_honest_text_opens_no_view(
    scanner: SecretScanner, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    lens = scanner._sight._lens
    monkeypatch.setattr(type(lens), "shown", lambda _self, text, *_: opened.append(text[:80]) or [])
    assert scanner.scan(HONEST[kind], "body") == ()
    assert opened == []


CYRILLIC = "съешь же ещё этих мягких французских булок, да выпей чаю "
SCRIPTS = {
    "Cyrillic in JSON": json.dumps(CYRILLIC * 40).encode(),
    "Greek in JSON": json.dumps("ξεσκεπάζω την ψυχοφθόρα βδελυγμία " * 40).encode(),
    "Persian in JSON": json.dumps("می\u200cخواهم " * 40).encode(),  # noqa: RUF001
    "Cyrillic in braces": "".join(f"\\u{{{ord(one):04x}}}" for one in CYRILLIC[:5] * 40).encode(),
    "Cyrillic by number": "".join(f"&#{ord(one)};" for one in CYRILLIC[:5] * 40).encode(),
    "Cyrillic by hex number": "".join(f"&#x{ord(one):04X};" for one in CYRILLIC[:5] * 40).encode(),
}


@pytest.mark.parametrize("kind", sorted(SCRIPTS))
def test_text_of_another_script_that_is_escaped_opens_no_gate(
    scanner: SecretScanner, kind: str
) -> None:
    gates = scanner._sight._lens.gates
    opened = [gates.views[gate] for _, gate in gates.find(SCRIPTS[kind] + PAD)]
    assert {"escapes", "entities"} & set(opened) == set()


ALIKES = {"a": "\u0430", "c": "\u0441", "e": "\u0435", "o": "\u043e", "p": "\u0440", "x": "\u0445"}


@pytest.mark.parametrize("seed", range(8))
def test_a_letter_that_looks_alike_is_seen_through_wherever_it_stands(
    scanner: SecretScanner, seed: int
) -> None:
    value = token(seed)
    places = [at for at, one in enumerate(value) if at and one in ALIKES]
    written = {at: json.dumps(ALIKES[value[at]])[1:-1] for at in places}
    ways = [{at} for at in places] + [set(places), set(places[::2])]
    for way in ways:
        text = "".join(written[at] if at in way else one for at, one in enumerate(value))
        found = scanner.scan(json.dumps({"text": "this "}).replace("this", text).encode(), "body")
        assert "github-pat" in {one.rule for one in found}, text


@pytest.mark.parametrize("at", [1, 2, 3, 4, 20])
def test_a_mark_that_nobody_sees_is_seen_through_at_the_very_beginning_too(
    scanner: SecretScanner, at: int
) -> None:
    text = f"{token(1)[:at]}\\u200b{token(1)[at:]}"
    assert "github-pat" in {one.rule for one in scanner.scan(text.encode(), "body")}


@pytest.mark.parametrize("form", ["&#{};", "&#{}", "&#x{:x};", "\\u{{{:x}}}", "\\u{{0000{:x}}}"])
@pytest.mark.parametrize("behind", ["", " ", '"'])
def test_a_numeric_reference_is_seen_at_the_end_too(
    scanner: SecretScanner, form: str, behind: str
) -> None:
    text = "".join(form.format(ord(one)) for one in token(1)) + behind
    assert "github-pat" in {one.rule for one in scanner.scan(text.encode(), "body")}


def test_traits_of_nothing_are_none() -> None:
    assert Traits((b"a",)).first(b"") == -1
    assert Traits((b"a",)).first(memoryview(b"xxa")[1:]) == 2


FLOODS = {
    "one letter": b"A" * 2_000_000,
    "one digit": b"0" * 2_000_000,
    "base64 of text": base64.b64encode(b"the quick brown fox jumps 1 " * 20_000),
    "wide text": ("the quick brown fox 12 " * 20_000).encode("utf-16-le"),
    "every gate": b' ghp_ %41 \\u0041 "a"+"b" &#65; =\nA %3Dabcdefghijkl1 g h p _ ' * 30_000,
    "openings": b'"ghp_" + "abc1"\n' * 60_000,
}
FLOOD_CPU_S = 10.0


@pytest.mark.parametrize("kind", sorted(FLOODS))
def test_what_opens_views_everywhere_takes_bounded_time(scanner: SecretScanner, kind: str) -> None:
    data = FLOODS[kind]
    began = time.process_time()
    with scanner.stream("body", policy=StreamPolicy(threshold=Severity.CRITICAL)) as body:
        for at in range(0, len(data), 16_384):
            body.feed(data[at : at + 16_384])
            if body.stopped:
                break
        else:
            body.finish()
    assert time.process_time() - began < FLOOD_CPU_S


GITHUB = token(1)
PACKERS = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "xz, checked by CRC32": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    **{f"bzip2 -{n}": lambda data, n=n: bz2.compress(data, n) for n in range(1, 10)},
}


@pytest.mark.parametrize("kind", PACKERS, ids=str)
def test_what_is_packed_is_found_at_every_level(scanner: SecretScanner, kind: str) -> None:
    packed = PACKERS[kind](f"key {GITHUB} end".encode())
    found = scanner.scan(b"before " + packed + b" behind", "body")
    assert "github-pat" in {one.rule for one in found}


@pytest.mark.parametrize("kind", ["gzip", "xz", "xz, checked by CRC32", "zstd"])
@pytest.mark.parametrize("filler_bytes", [0, 100_000])
def test_a_broken_check_sum_hides_nothing_as_many_receivers_do_not_ask_it(
    scanner: SecretScanner, kind: str, filler_bytes: int
) -> None:
    filler = random.Random(3).randbytes(filler_bytes)
    packed = bytearray(PACKERS[kind](filler + f" key {GITHUB} end".encode()))
    for at in range(len(packed) - 24 if "xz" in kind else len(packed) - 8, len(packed)):
        packed[at] ^= 0x55
    found = scanner.scan(b"before " + bytes(packed), "body")
    assert "github-pat" in {one.rule for one in found}


def test_what_is_damaged_too_far_inside_to_be_read_again_is_unscannable(
    scanner: SecretScanner,
) -> None:
    packed = bytearray(lzma.compress(random.Random(3).randbytes(400_000) + GITHUB.encode()))
    packed[-60:] = b"U" * 60
    found = scanner.scan(bytes(packed), "body")
    assert "unscannable" in {one.rule for one in found}
