"""Each check holds for what its issuer or standard publishes, and breaks when one place changes."""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.secrets.bip39_words import BIP39_WORDS
from aesp_proxy.decide.secrets.structures import aws_account
from aesp_proxy.decide.secrets.validators import VALIDATORS

# Published examples: of the standards, of the issuers, or of the authors of the format.
HOLDS: dict[str, list[bytes]] = {
    "au-tfn": [b"123 456 782"],
    "aws-key-id": [b"ASIAQNZGKIQY56JQ7WML", b"AKIAIOSFODNN7EXAMPLE"],  # aesp-proxy:allow
    "base58check": [
        b"5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
        b"L1aW4aubDFB7yfras2S1mN3bqg9nwySY8nkoLmJebSLD5BWv3ENZ",
        (
            b"xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUt"
            b"g6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi"
        ),
    ],
    "base64-json": [b"sntrys_" + base64.b64encode(b'{"iat":1}')],
    "base64-key-64": [base64.b64encode(bytes(range(64)))],
    "cloudflare-tunnel": [
        base64.b64encode(b'{"a":"%s","t":"c2f2","s":"c2VjcmV0"}' % (b"0f" * 16)),
    ],
    "bech32": [
        b"A12UEL5L",
        b"a1lqfn3a",
        b"nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5",  # aesp-proxy:allow
    ],
    "bip39": [
        b"legal winner thank year wave sausage worth useful legal winner thank yellow",
        b"letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
        b"zoo " * 23 + b"vote",
    ],
    "br-cpf": [b"111.444.777-35"],
    "ca-sin": [b"130 692 544"],
    "card": [b"4111 1111 1111 1111", b"378282246310005", b"5555-5555-5555-4444"],
    "crc32-base62": [b"gh" + b"p_zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17"],
    "de-tax-id": [b"86 095 742 719", b"65929970489"],
    "es-dni": [b"12345678Z", b"X1234567L"],
    "fr-nir": [b"2 55 08 14 168 025 38"],
    "iban": [b"GB82 WEST 1234 5698 7654 32", b"DE89370400440532013000", b"NO9386011117947"],
    "in-aadhaar": [b"9999 4105 7058"],
    "jwt": [base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=") + b".e30.x"],
    "key-bytes": [b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", b"b3BlbnNzaC1rZXktdjEAAAAABG5vbmUA"],
    "luhn": [b"79927398713"],
    "mixed": [b"abc1"],
    "phone": [b"+44 20 7946 0958"],
    "strkey": [b"SBU2RRGLXH3E5CQHTD3ODLDF2BWDCYUSSBLLZ5GNW7JXHDIYKXZWHOKR"],
    "uk-nhs": [b"943 476 5919"],
    "us-aba": [b"021000021", b"111000025"],
    "us-dea": [b"AB1234563"],
    "us-mbi": [b"1EG4-TE5-MK73"],
    "us-npi": [b"1234567893"],
    "us-ssn": [b"219-09-9998", b"536 90 4399"],
}


def _in_base(number: int, base: int, width: int) -> bytes:
    alphabet = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    digits = b""
    while number:
        number, rest = divmod(number, base)
        digits = alphabet[rest : rest + 1] + digits
    return digits.rjust(width, b"0")


def _made() -> dict[str, bytes]:
    """Make tokens as the issuers' own code does."""
    payload = base64.urlsafe_b64encode(b"o:1\nu:1" + bytes(range(17))).rstrip(b"=")
    routable = b"gl" + b"pat-" + payload + b".0" + _in_base(len(payload), 36, 1).lower()
    matrix = b"syt_YWxpY2U_abcdefghijklmnopqrst"
    return {
        "crc32-base36": routable + _in_base(zlib.crc32(routable), 36, 7).lower(),
        "crc32-base62-all": matrix + b"_" + _in_base(zlib.crc32(matrix), 62, 6),
    }


HOLDS |= {name: [value] for name, value in _made().items()}
STRUCTURE_ONLY = {
    "aws-key-id",
    "base64-json",
    "base64-key-64",
    "cloudflare-tunnel",
    "jwt",
    "key-bytes",
    "mixed",
    "phone",
    "us-mbi",
    "us-ssn",
}
SAMPLES = [(name, value) for name in sorted(HOLDS) for value in HOLDS[name]]


def test_every_check_has_an_example() -> None:
    assert set(HOLDS) == set(VALIDATORS)


@pytest.mark.parametrize(("name", "value"), SAMPLES)
def test_a_published_example_holds(name: str, value: bytes) -> None:
    assert VALIDATORS[name](value)


@pytest.mark.parametrize(
    ("name", "value"), [sample for sample in SAMPLES if sample[0] not in STRUCTURE_ONLY]
)
def test_a_check_sum_breaks_with_the_last_place(name: str, value: bytes) -> None:
    follower = {ord("9"): b"0", ord("z"): b"a", ord("Z"): b"A", ord("7"): b"6"}
    last = follower.get(value[-1], bytes([value[-1] + 1]))
    assert not VALIDATORS[name](value[:-1] + last)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("aws-key-id", b"AKIA7" + b"7" * 15),
        ("aws-key-id", b"AKIA1"),
        ("base64-json", b"sntrys_" + base64.b64encode(b"not json")),
        ("base64-key-64", base64.b64encode(bytes(63)) + b"===="),
        ("cloudflare-tunnel", base64.b64encode(b'{"a":"0f","t":"c2f2","s":"c2VjcmV0"}')),
        ("cloudflare-tunnel", base64.b64encode(b'{"a":"%s","t":"c2f2"}' % (b"0f" * 16))),
        ("cloudflare-tunnel", base64.b64encode(b"[]")),
        ("base64-key-64", base64.b64encode(bytes(64))[:-3] + b"B=="),
        ("bip39", b"abandon " * 11 + b"ability"),
        ("bip39", b"about " * 13),
        ("bip39", b"notaword " * 12),
        ("card", b"4111 1111 1111 1112"),
        ("card", b"1234567812345670"),
        ("card", b"0000000000000000"),
        ("iban", b"DE89370400440532013"),
        ("iban", b"ZZ89370400440532013000"),
        ("jwt", b"eyJhbGciOiJub3Q.x.y"),
        ("jwt", base64.b64encode(b'{"typ":"JWT"}') + b".e30.x"),
        ("jwt", base64.b64encode(b"[" * 5000) + b".e30.x"),
        ("key-bytes", base64.b64encode(b"this is no key at all...")),
        ("mixed", b"abcd"),
        ("mixed", b"1234"),
        ("us-dea", b"1B1234563"),
        ("us-mbi", b"0EG4-TE5-MK73"),
        ("us-mbi", b"1SG4-TE5-MK73"),
        ("us-npi", b"3234567893"),
        ("us-ssn", b"078-05-1120"),
        ("us-ssn", b"000-12-3456"),
        ("us-ssn", b"666-12-3456"),
        ("us-ssn", b"900-12-3456"),
        ("us-ssn", b"123-00-4567"),
        ("us-ssn", b"123-45-0000"),
        ("us-ssn", b"111-11-1111"),
    ],
)
def test_what_cannot_be_such_a_thing_does_not_hold(name: str, value: bytes) -> None:
    assert not VALIDATORS[name](value)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=64), st.text(max_size=40).map(str.encode)))
def test_a_check_takes_any_bytes(value: bytes) -> None:
    for check in VALIDATORS.values():
        assert check(value) in (True, False)


def test_a_long_value_costs_little() -> None:
    for check in VALIDATORS.values():
        for filler in (b"1", b"a", b"z", b"A1 "):
            check(filler * 20_000)


def test_the_word_list_is_the_one_of_bip_39() -> None:
    text = "\n".join(BIP39_WORDS) + "\n"
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
    )


def test_the_account_is_read_from_a_key_id() -> None:
    assert aws_account(b"ASIAQNZGKIQY56JQ7WML") == 29608264753  # aesp-proxy:allow
    assert aws_account(b"ASIA1NZGKIQY56JQ7WML") is None
