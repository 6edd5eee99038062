"""Redacted bodies: same length, no byte of the secret, the format still whole, however cut."""

from __future__ import annotations

import gzip
import json
import random
import string
import urllib.parse
import zlib

import brotli
import pytest
import zstandard
from scan_lab import token

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.overwrite import overwrite
from aesp_proxy.decide.secrets.registered import Hasher, entry
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.secrets.signed import signed_by
from aesp_proxy.model.decision import Severity, Verdict

KEY = b"a key of the tests of masked bodies"
CHANCE = random.Random(8)
LETTERS = string.ascii_letters + string.digits


GITHUB = token(1)
VALUE = "q9Zt4LmX0vKc7RbYw2NsD5hJ8gFp3TaUe6WiQo1"
LINES = ["".join(CHANCE.choices(LETTERS, k=64)) for _ in range(40)]
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\n" + "\n".join(LINES) + "\n-----END RSA PRIV" + "ATE KEY-----"
)
SIZES = (1, 7, 64, 1_000, 65_536)


@pytest.fixture(scope="module")
def scanner(pack: tuple[Rule, ...]) -> SecretScanner:
    index = ExactIndex(KEY)
    index.add([entry("V", "t", VALUE.encode(), hasher=Hasher(KEY), fingerprint_key=KEY)])
    return SecretScanner(pack, KEY, exact=index)


def redact(rule: str, severity: Severity) -> Verdict:
    return Verdict.AUDIT if severity < Severity.ERROR else Verdict.REDACT


def masked(scanner: SecretScanner, body: bytes, size: int, **more: object) -> bytes | None:
    """What leaves of a body that is cut into pieces; None when it is stopped."""
    policy = StreamPolicy(verdict=redact, redacts=True, **more)
    out = b""
    with scanner.stream("body", policy=policy) as scan:
        for at in range(0, len(body), size):
            out += scan.feed(body[at : at + size]).data
        out += scan.finish().data
        return None if scan.unscannable else out


PACK = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip, deflate": lambda data: zlib.compress(gzip.compress(data)),
}


def unpacked(scanner: SecretScanner, coding: str, packed: bytes, size: int, **more: object):
    """What leaves of a compressed body that is unpacked, and why it was stopped."""
    policy = StreamPolicy(verdict=redact, redacts=True, unpacks=True, **more)
    out = b""
    with scanner.stream("body", encoding=coding, policy=policy) as scan:
        for at in range(0, len(packed), size):
            out += scan.feed(packed[at : at + size]).data
        out += scan.finish().data
        return out, scan.unscannable


@pytest.mark.parametrize("size", [1, 64, 65_536])
@pytest.mark.parametrize("coding", PACK, ids=str)
def test_a_compressed_body_leaves_as_what_it_inflates_to_masked(
    scanner, coding: str, size: int
) -> None:
    body = (f"a {GITHUB} b " + "honest words " * 300 + f'"{VALUE}" c').encode()
    out, why = unpacked(scanner, coding, PACK[coding](body), size)
    assert (out, why) == (masked(scanner, body, 65_536), "")
    assert len(out) == len(body)


@pytest.mark.parametrize("records", [False, True], ids=["block", "record"])
@pytest.mark.parametrize("damage", ["cut", "noise", "more", "too much"])
def test_what_cannot_be_unpacked_stops_whatever_the_policy_says(scanner, damage, records) -> None:
    text = CHANCE.randbytes(20_000)
    packed = {
        "cut": gzip.compress(text)[:-10],
        "noise": gzip.compress(text)[:9_000] + b"\xff" * 300,
        "more": gzip.compress(text) + b"more",
        "too much": gzip.compress(b"\0" * (4 << 20)),
    }[damage]
    out, why = unpacked(
        scanner, "gzip", packed, 1_000, records_unscannable=records, inflated_bytes_max=1 << 20
    )
    assert why
    assert out in text or not out.strip(b"\0")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("secret", [GITHUB, VALUE])
def test_json_stays_json_of_the_same_length(scanner, secret: str, size: int):
    whole = {
        "a": "x" * 3_000,
        "k": f'say "{secret}"\n',
        "n": [1, 2],
        "z": "y" * 3_000,
        "k2": secret,
    }
    body = json.dumps(json.dumps(whole)).encode()
    out = masked(scanner, body, size)
    assert out is not None
    assert len(out) == len(body)
    again = json.loads(json.loads(out))
    assert again["n"] == [1, 2]
    assert again["k"] == 'say "' + "*" * len(secret) + '"\n'
    assert again["k2"] == "*" * len(secret)


@pytest.mark.parametrize("size", SIZES)
def test_a_form_stays_a_form(scanner, size: int):
    body = urllib.parse.urlencode({"a": "1 2", "token": GITHUB, "b": "%x&="}).encode()
    out = masked(scanner, body, size)
    assert out is not None
    fields = dict(urllib.parse.parse_qsl(out.decode(), strict_parsing=True))
    assert fields == {"a": "1 2", "token": "*" * len(GITHUB), "b": "%x&="}


def test_a_number_of_json_stays_a_number(scanner):
    body = b'{"card": 4539578763621486, "name": "4539578763621486"}'
    data = bytearray(body)
    overwrite(data, 9, 25, json=True)
    overwrite(data, 36, 52, json=True)
    assert json.loads(bytes(data)) == {"card": 1111111111111111, "name": "*" * 16}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quoted", [False, True])
def test_a_private_key_is_masked_to_its_end(scanner, size: int, *, quoted: bool):
    text = json.dumps({"key": PEM, "after": "stays"}) if quoted else f"x\n{PEM}\nafter: stays\n"
    body = b"before " * 400 + text.encode()
    out = masked(scanner, body, size)
    assert out is not None
    assert len(out) == len(body)
    for line in LINES:
        assert line[:12].encode() not in out
        assert line[-12:].encode() not in out
    assert b"stays" in out
    if quoted:
        assert json.loads(out[len(b"before ") * 400 :])["after"] == "stays"


def test_a_private_key_without_an_end_stops_the_body(scanner):
    body = PEM[:600].encode() + ("A" * 63 + "\n").encode() * 2_000
    assert masked(scanner, body, 4_096) is None


@pytest.mark.parametrize("size", SIZES)
def test_what_adjoins_a_secret_is_masked_with_it_to_the_end_of_the_token(scanner, size: int):
    body = b"a " + GITHUB.encode() + b"Zz9" * 2_000 + b" end"
    out = masked(scanner, body, size)
    assert out is not None
    assert out.startswith(b"a ")
    assert out.endswith(b" end")
    assert set(out[2:-4]) == {ord("*")} or b"Zz9" not in out[2:-4]


def test_random_bodies_full_of_secrets_keep_their_length_and_lose_every_secret(scanner):
    for seed in range(60):
        chance = random.Random(seed)
        parts = []
        for _ in range(chance.randrange(1, 12)):
            parts.append(
                "".join(chance.choices(LETTERS + ' "\\\n{}[],:é€', k=chance.randrange(900)))
            )
            parts.append(
                " " + chance.choice((GITHUB, VALUE, VALUE[::-1], VALUE.encode().hex())) + " "
            )
        body = "".join(parts).encode()
        out = masked(scanner, body, chance.choice(SIZES[1:]))
        assert out is not None
        assert len(out) == len(body)
        assert out.decode()
        for secret in (GITHUB, VALUE, VALUE[::-1], VALUE.encode().hex()):
            assert secret[:16].encode() not in out
            assert secret[-16:].encode() not in out


def test_messages_are_masked_each_as_a_whole_and_one_that_was_begun_is_stopped(scanner):
    policy = StreamPolicy(verdict=redact, redacts=True, window_bytes=0)
    with scanner.stream("frame", policy=policy) as scan:
        first = scan.feed(b'{"k": "' + GITHUB.encode() + b'"}')
        assert json.loads(first.data) == {"k": "*" * len(GITHUB)}
        assert [one.rule for one in first.findings] == ["github-token"] or first.findings
        assert scan.feed(b"plain").data == b"plain"
        assert scan.feed(GITHUB[:20].encode()).data
        last = scan.feed(GITHUB[20:].encode())
        assert last.unscannable
        assert not last.data


def test_a_key_that_goes_on_in_the_next_message_is_stopped(scanner):
    policy = StreamPolicy(verdict=redact, redacts=True, window_bytes=0)
    with scanner.stream("frame", policy=policy) as scan:
        assert scan.feed(PEM[:700].encode()).unscannable


def test_what_is_compressed_is_refused_and_not_masked(scanner):
    import gzip

    body = gzip.compress(b"x" * 100 + GITHUB.encode())
    policy = StreamPolicy(verdict=redact, redacts=True)
    with scanner.stream("body", encoding="gzip", policy=policy) as scan:
        assert not scan.feed(body).data
        assert not scan.finish().data
        assert scan.stopped


def test_too_many_different_secrets_stop_the_body(scanner):
    body = b" ".join(token(seed).encode() for seed in range(90))

    def verdict(rule: str, severity: Severity) -> Verdict:
        return Verdict.DENY if rule == "too-many-findings" else redact(rule, severity)

    with scanner.stream("body", policy=StreamPolicy(verdict=verdict, redacts=True)) as scan:
        assert not scan.feed(body).data
        assert scan.stopped


@pytest.mark.parametrize(
    ("name", "value", "signed"),
    [
        (b"Content-MD5", b"x", True),
        (b"digest", b"sha-256=x", True),
        (b"content-digest", b"sha-256=:x:", True),
        (b"signature-input", b"sig1=()", True),
        (b"authorization", b"AWS4-HMAC-SHA256 Credential=x", True),
        (b"x-amz-content-sha256", b"0" * 64, True),
        (b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD", False),
        (b"x-amz-checksum-crc32", b"x", True),
        (b"x-goog-hash", b"md5=x", True),
        (b"x-hub-signature-256", b"sha256=x", True),
        (b"authorization", b"Bearer x", False),
        (b"accept", b"x", False),
    ],
)
def test_a_signed_body_is_known(name: bytes, value: bytes, *, signed: bool):
    assert bool(signed_by([(b"host", b"a"), (name, value)])) is signed


def test_a_payload_that_aws_does_not_sign_is_not_signed():
    fields = [
        (b"authorization", b"AWS4-HMAC-SHA256 x"),
        (b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD"),
    ]
    assert not signed_by(fields)
