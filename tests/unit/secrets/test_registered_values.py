"""Registered values: found in every spelling, however cut, and kept only as hashes."""

from __future__ import annotations

import base64
import gc
import pickle
import random
import string
import subprocess
import sys

import pytest

from aesp_proxy.decide.secrets.body import StreamPolicy
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.registered import Entry, Hasher, entry
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.decide.secrets.worth import unworthy
from aesp_proxy.decide.secrets.wrappings import spellings
from aesp_proxy.errors import ConfigError

KEY = b"a key of the tests of registered values"
HASHER = Hasher(KEY)
TOKEN = b"q9Zt4LmX0vKc7RbYw2NsD5hJ8gFp3TaUe6WiQo1"
LETTERS = string.ascii_letters + string.digits


def kept(value: bytes, name: str = "DEPLOY_TOKEN") -> Entry:
    return entry(name, "test", value, hasher=HASHER, fingerprint_key=KEY)


def index_of(*values: bytes) -> ExactIndex:
    index = ExactIndex(KEY)
    index.add([kept(value, f"V{number}") for number, value in enumerate(values)])
    return index


def names_in(index: ExactIndex, data: bytes) -> set[str]:
    return {candidate.rule.id for candidate in index.block(data)[0]}


def names_in_stream(index: ExactIndex, pieces: list[bytes]) -> set[str]:
    watch, tail, base, found = index.open(), b"", 0, set()
    for piece in pieces:
        found |= {candidate.rule.id for candidate in watch.see(tail, piece, base)}
        tail, base = (tail + piece)[-1_102:], base + len(piece)
    return found


@pytest.mark.parametrize("size", [8, 12, 14, 15, 16, 22, 23, 24, 35, 36, 40, 64, 93, 200])
def test_every_spelling_is_found_at_every_alignment(size: int):
    chance = random.Random(size)
    value = ("".join(chance.choices(LETTERS, k=size - 2)) + "7!").encode()
    index = index_of(value)
    for name, text in spellings(value):
        for before in range(17):
            data = chance.randbytes(before) + text + chance.randbytes(9)
            assert names_in(index, data) == {"registered:V0"}, (name, before)


def test_every_cut_of_a_stream_finds_it():
    index, data = index_of(TOKEN), b"{'x': '" + base64.b64encode(b"id=" + TOKEN) + b"'}"
    for cut in range(1, len(data)):
        assert names_in_stream(index, [data[:cut], data[cut:]]) == {"registered:V0"}
    assert names_in_stream(index, [bytes([byte]) for byte in data]) == {"registered:V0"}


def test_half_of_a_long_value_is_a_leak():
    index = index_of(TOKEN + TOKEN[::-1])
    assert names_in(index, b"first: " + TOKEN) == {"registered:V0"}
    assert names_in(index, b"second: " + TOKEN[::-1]) == {"registered:V0"}
    assert names_in(index, TOKEN[:16]) == set()


def test_a_private_key_is_known_by_its_own_lines_and_not_by_what_all_keys_share():
    chance = random.Random(4)
    shared = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC" + "A" * 13
    lines = [shared, *("".join(chance.choices(LETTERS, k=64)) for _ in range(12))]
    pem = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(lines) + "\n-----END PRIVATE KEY-----\n"
    index = index_of(pem.encode())
    assert names_in(index, lines[6].encode()) == {"registered:V0"}
    assert names_in(index, ("\\n".join(lines[2:])).encode()) == {"registered:V0"}
    assert names_in(index, shared.encode()) == set()


def test_of_a_jwt_only_the_signature_is_taken():
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"1234"}').rstrip(b"=")
    index = index_of(head + b"." + head + b"." + TOKEN)
    assert names_in(index, head + b"." + head + b".other") == set()
    assert names_in(index, TOKEN) == {"registered:V0"}


def test_what_is_added_counts_in_a_stream_that_flows_and_what_is_forgotten_does_not():
    index = ExactIndex(KEY)
    watch = index.open()
    assert watch.see(b"", b"before ", 0) == []
    index.add([kept(TOKEN)])
    found = watch.see(b"before ", TOKEN, 7)
    assert {(one.rule.id, one.start) for one in found} >= {("registered:DEPLOY_TOKEN", 7)}
    assert index.forget("DEPLOY_TOKEN")
    assert not index.forget("DEPLOY_TOKEN")
    assert names_in(index, TOKEN) == set()


def test_values_added_one_by_one_are_found_like_values_added_at_once():
    chance = random.Random(9)
    values = ["".join(chance.choices(LETTERS, k=32)).encode() for _ in range(700)]
    index = ExactIndex(KEY)
    for number, value in enumerate(values):
        index.add([kept(value, f"V{number}")])
    for number, value in enumerate(values):
        assert names_in(index, value) == {f"registered:V{number}"}
    assert len(index) == len(values)


def test_two_names_of_one_value_are_both_told_and_forgotten_apart():
    index = ExactIndex(KEY)
    index.add([kept(TOKEN, "A"), kept(TOKEN, "B")])
    assert names_in(index, TOKEN) == {"registered:A", "registered:B"}
    index.forget("A")
    assert names_in(index, TOKEN) == {"registered:B"}


def test_nothing_that_is_kept_holds_four_bytes_of_the_value():
    value = TOKEN + b"-tail"
    one = kept(value)
    index = ExactIndex(KEY)
    index.add([one])
    kept_by = [*index._tables.values(), index._parts]
    tables = b"".join(each for table in kept_by for each in table._known)
    tables += b"".join(bytes(words) for table in kept_by for words in table._filters)
    whole = pickle.dumps(one) + tables + pickle.dumps(list(index._by_digest))
    for _, text in spellings(value):
        for at in range(len(text) - 5):
            assert text[at : at + 6] not in whole
    del value
    gc.collect()


def test_honest_bytes_are_never_a_finding():
    chance = random.Random(11)
    values = ["".join(chance.choices(LETTERS, k=40)).encode() for _ in range(300)]
    index = index_of(*values)
    assert names_in(index, base64.b64encode(chance.randbytes(1 << 20))) == set()


def test_grams_of_a_value_over_and_over_are_a_cut_and_not_a_hang():
    index = index_of(TOKEN[:35])
    data = (TOKEN[:34] + b"#") * 60_000
    found, cut = index.block(data)
    assert cut
    assert not found


@pytest.mark.parametrize(
    "value",
    [b"true", b"localhost", b"changeme", b"12345678901", b"production", b"/home/agent/.ssh/id",
     b"https://db.example/app", b"aaaaaaaaaaaaaaaa", b"Sk-Xxxx", b""],
)  # fmt: skip
def test_what_is_no_secret_by_its_looks_is_refused_with_a_reason(value: bytes):
    with pytest.raises(ConfigError) as refused:
        kept(value)
    assert str(refused.value)
    assert not value or value.decode() not in str(refused.value)


@pytest.mark.parametrize(
    "value", [b"hunter2!", b"correct horse battery", TOKEN, b"0" * 8 + b"1234"]
)
def test_what_may_be_a_secret_is_taken(value: bytes):
    assert unworthy(value) == "" or value.startswith(b"0")


def test_findings_name_the_value_and_never_show_it(pack: tuple[Rule, ...]):
    index = ExactIndex(KEY)
    index.add([kept(TOKEN)])
    scanner = SecretScanner(pack[:2], KEY, exact=index)
    (found,) = scanner.scan(b"x " + base64.b64encode(TOKEN), "body")
    (plain,) = scanner.scan(b"x " + TOKEN, "body")
    assert found.rule == "registered:DEPLOY_TOKEN"
    assert found.masked == "***"
    assert found.fingerprint == plain.fingerprint
    (head,) = scanner.scan_head(b"/", [(b"x-key", TOKEN)])
    assert head.location == "header:x-key"


def test_no_byte_of_a_registered_value_leaves_a_stream(pack: tuple[Rule, ...]):
    index = ExactIndex(KEY)
    index.add([kept(TOKEN)])
    scanner = SecretScanner(pack[:2], KEY, exact=index)
    data = b"a" * 5_000 + TOKEN + b"b" * 5_000
    for size in (1, 7, 100, 4_096):
        out = b""
        with scanner.stream("body", policy=StreamPolicy()) as body:
            for at in range(0, len(data), size):
                out += body.feed(data[at : at + size]).data
            assert body.stopped
        assert data.startswith(out)
        assert len(out) <= 5_000


def test_who_registers_nothing_does_not_load_what_is_for_values():
    # 0.1 s and 20 MB in each process; the service's unit forbids a call that numpy makes.
    code = (
        "import sys; from aesp_proxy.decide.secrets.exact import ExactIndex; "
        "ExactIndex(bytes(32)).add([]); sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
