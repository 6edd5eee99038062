"""What the quality of the scan is measured by: honest bytes, wrappings that wrap, real keys."""

from __future__ import annotations

import random

import pytest
from benchmarks.alarms import is_private_key
from benchmarks.honest import KINDS, MB, documents
from benchmarks.wrappings import WRAPPINGS, Wrapping
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

SAMPLE = b'key = "a+b/c=d&e<f>g"\n'
CLEAR = {"as it is", "quoted-printable", "multipart", "protobuf"}


def test_there_is_enough_honest_traffic():
    assert sum(size for size, _ in KINDS.values()) >= 110 * MB


def test_what_is_made_is_the_same_every_time():
    made = [[d for d in documents(share=0.001) if d.name.startswith("made/")] for _ in range(2)]
    assert made[0] == made[1]
    assert {d.kind for d in made[0]} >= {"chats", "lock files", "identifiers", "manuals"}


@pytest.mark.parametrize("wrapping", WRAPPINGS, ids=lambda one: one.name)
def test_a_wrapping_hides_what_it_wraps(wrapping: Wrapping):
    body = wrapping.wrap(SAMPLE, random.Random(1))
    assert body == wrapping.wrap(SAMPLE, random.Random(1))
    assert (SAMPLE in body) is (wrapping.name in CLEAR - {"quoted-printable"})


def test_names_of_wrappings_are_different():
    assert len({wrapping.name for wrapping in WRAPPINGS}) == len(WRAPPINGS)


def test_a_private_key_is_told_from_what_looks_like_one():
    key = ec.generate_private_key(ec.SECP256R1())
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    assert is_private_key(plain + b"more")
    assert is_private_key(locked)
    assert not is_private_key(b"x" + plain)
    assert not is_private_key(plain[:60])
    assert not is_private_key(plain.replace(plain[40:80], b"A" * 40))
