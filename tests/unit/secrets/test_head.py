"""Request targets and headers are one scan, and each finding says where it was."""

from __future__ import annotations

import base64
import gzip
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.secrets.head import Head, encoded_offset, lay_out, percent_decoded
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import rule_from_policy
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.model.decision import Severity

PLAIN = (
    (b"host", b"api.example.com"),
    (b"user-agent", b"python-httpx/0.28.1"),
    (b"accept", b"*/*"),
    (b"content-type", b"application/json"),
)


@pytest.fixture
def secret(pack: tuple[Rule, ...]) -> bytes:
    return next(rule for rule in pack if rule.id == "github-pat").positives[0]


def test_an_honest_head_is_clean(scanner: SecretScanner) -> None:
    assert scanner.scan_head(b"/v1/items?limit=20&q=a%20b", PLAIN) == ()
    assert scanner.scan_head(b"", ()) == ()


def test_a_secret_in_the_target_is_told_with_its_offset(
    scanner: SecretScanner, secret: bytes
) -> None:
    (one,) = scanner.scan_head(b"/x?token=" + secret, PLAIN)
    assert (one.rule, one.location, one.offset) == ("github-pat", "url", 9)
    assert one.masked == "ghp_***"


def test_a_secret_in_a_header_is_told_with_its_name_and_offset(
    scanner: SecretScanner, secret: bytes
) -> None:
    headers = (*PLAIN, (b"X-Note", b"see " + secret), (b"accept-language", b"en"))
    (one,) = scanner.scan_head(b"/", headers)
    assert (one.rule, one.location, one.offset) == ("github-pat", "header:x-note", 4)


def test_a_percent_encoded_secret_is_found_where_it_stands(
    scanner: SecretScanner, secret: bytes
) -> None:
    target = b"/a%20b?t=" + b"".join(b"%%%02X" % byte for byte in secret)
    (one,) = scanner.scan_head(target, PLAIN)
    assert (one.rule, one.location, one.offset) == ("github-pat", "url", 9)


def test_a_secret_partly_encoded_is_told_once(scanner: SecretScanner, secret: bytes) -> None:
    found = scanner.scan_head(b"/?a=%41&t=" + secret, PLAIN)
    assert [(one.rule, one.location) for one in found] == [("github-pat", "url")]


@pytest.mark.parametrize("name", [b"Authorization", b"proxy-authorization"])
@pytest.mark.parametrize("strip", [b"", b"="])
def test_a_secret_in_basic_credentials_is_found(
    scanner: SecretScanner, secret: bytes, name: bytes, strip: bytes
) -> None:
    value = b"Basic " + base64.b64encode(b"x-access-token:" + secret).rstrip(strip)
    (one,) = scanner.scan_head(b"/r.git/info/refs", (*PLAIN, (name, value)))
    assert one.rule == "github-pat"
    assert one.location == "header:" + name.decode().lower()


@pytest.mark.parametrize(
    "value", [b"Basic", b"Basic ", b"Basic !!!", b"Basic a", b"Bearer abc", b"", b"  "]
)
def test_odd_authorization_values_are_no_error(scanner: SecretScanner, value: bytes) -> None:
    assert scanner.scan_head(b"/", ((b"authorization", value),)) == ()


def test_a_name_beside_its_value_is_seen(scanner: SecretScanner) -> None:
    value = b"0123456789abcdeffedcba9876543210"
    found = scanner.scan_head(b"/", ((b"x-twilio-auth-token", value),))
    assert [(one.rule, one.location) for one in found] == [
        ("twilio-credential", "header:x-twilio-auth-token")
    ]


def test_one_kind_in_two_places_is_told_twice(scanner: SecretScanner, secret: bytes) -> None:
    found = scanner.scan_head(b"/?t=" + secret, ((b"x", secret),))
    assert {one.location for one in found} == {"url", "header:x"}
    assert len({one.fingerprint for one in found}) == 1


def test_a_flood_of_findings_in_a_head_is_cut_and_says_so(key: bytes) -> None:
    scanner = SecretScanner([rule_from_policy("n", "n-[0-9]{6}", Severity.INFO)], key)
    headers = tuple((b"h%d" % number, b"n-%06d" % number) for number in range(3_000))
    found = scanner.scan_head(b"/", headers)
    assert len(found) < 100
    assert "too-many-findings" in {one.rule for one in found}


@pytest.mark.parametrize(
    ("target", "decoded"),
    [
        (b"/a%2Fb", b"/a/b"),
        (b"/%", b"/%"),
        (b"/%4", b"/%4"),
        (b"/%zz%41", b"/%zzA"),
        (b"%25%34%31", b"%41"),
        (b"", b""),
    ],
)
def test_percent_decoding_is_done_once_and_leaves_what_is_no_escape(
    target: bytes, decoded: bytes
) -> None:
    assert percent_decoded(target) == decoded


SEGMENTS = b"/" + b"/".join([b"of-four-and-twenty-letters"] * 9)


@pytest.mark.parametrize("before", [b"", b"/api/v1", b"/a//b", SEGMENTS[:-30]], ids=len)
def test_base64_behind_slashes_is_read_from_its_first_digit(
    scanner: SecretScanner, secret: bytes, before: bytes
) -> None:
    wrapped = base64.b64encode(b"here it is: " + secret)
    (one,) = scanner.scan_head(before + b"/" + wrapped, PLAIN)
    assert (one.rule, one.location, one.via) == ("github-pat", "url", "base64")
    assert one.offset >= len(before)
    (one,) = scanner.scan_head(b"/", (*PLAIN, (b"x-of", before + b"/" + wrapped)))
    assert (one.rule, one.location) == ("github-pat", "header:x-of")


@pytest.mark.parametrize("count", [1, 9, 30])
@pytest.mark.parametrize("behind", [b"", b"/", b"/x?y=1"], ids=len)
def test_what_is_packed_behind_many_long_segments_is_found(
    scanner: SecretScanner, secret: bytes, count: int, behind: bytes
) -> None:
    # No literal shows: the run must be read from its first digit on.
    wrapped = base64.urlsafe_b64encode(gzip.compress(secret, mtime=0))
    line = b"/" + b"/".join([b"of-four-and-twenty-letters"] * count) + b"/" + wrapped + behind
    (one,) = scanner.scan_head(line, PLAIN)
    assert (one.rule, one.location) == ("github-pat", "url")
    (one,) = scanner.scan_head(b"/", (*PLAIN, (b"referer", line)))
    assert (one.rule, one.location) == ("github-pat", "header:referer")


def test_segments_of_one_line_leave_those_of_another_to_be_read(
    scanner: SecretScanner, secret: bytes
) -> None:
    packed = base64.b64encode(lzma.compress(secret))
    headers = ((b"referer", SEGMENTS), (b"x-of", b"a/" + packed), (b"cookie", SEGMENTS))
    (one,) = scanner.scan_head(SEGMENTS, headers)
    assert (one.rule, one.location) == ("github-pat", "header:x-of")
    assert one.offset >= len(b"a/")


def test_a_line_of_many_segments_is_laid_out_in_bounded_size() -> None:
    line = SEGMENTS * 300
    block, lines, origins = lay_out(line, ((b"a", line),))
    assert len(lines) == len(origins) + 2
    # Each line once more at the most, and what stands behind eight of its segments.
    assert len(block) <= 2 * (2 * len(line) + len(lines)) + 2 * 8 * 4_096


HEAD_LINES = st.text("/ab%: =J", max_size=60).map(str.encode)


@given(HEAD_LINES, st.lists(st.tuples(HEAD_LINES, HEAD_LINES), max_size=4))
def test_every_place_of_a_head_leads_back_to_what_stands_there(
    target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    block, lines, origins = lay_out(target, headers)
    assert block == b"\n".join(lines)
    head = Head(target, headers, lines, origins)
    at = 0
    for line, origin in zip(lines, [*[None] * (len(headers) + 1), *origins], strict=True):
        if origin is None or origin >= 0:
            begin = at if origin is None else origin
            assert block[begin : begin + len(line)] == line
            assert head.place(at) == head.place(begin)
        at += len(line) + 1


@pytest.mark.parametrize("scheme", [b"basic", b"BASIC", b"bAsIc"])
def test_the_scheme_of_credentials_may_be_spelled_in_any_case(
    scanner: SecretScanner, secret: bytes, scheme: bytes
) -> None:
    value = b" " + scheme + b"  " + base64.b64encode(b"x:" + secret)
    (one,) = scanner.scan_head(b"/", ((b"AUTHORIZATION", value),))
    assert (one.rule, one.location) == ("github-pat", "header:authorization")


@given(st.binary(max_size=60), st.data())
def test_an_offset_of_the_decoded_target_leads_back(raw: bytes, data: st.DataObject) -> None:
    target = b"".join(
        b"%%%02x" % byte if data.draw(st.booleans()) or byte == 0x25 else bytes([byte])
        for byte in raw
    )
    assert percent_decoded(target) == raw
    at = data.draw(st.integers(0, len(raw)))
    assert percent_decoded(target[encoded_offset(target, at) :]) == raw[at:]
