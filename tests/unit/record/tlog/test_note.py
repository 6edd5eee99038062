from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.errors import ConfigError, InputError, TrustError
from aesp_proxy.record.tlog.checkpoint import Checkpoint, parse_checkpoint
from aesp_proxy.record.tlog.note import (
    KeyType,
    Note,
    parse_key,
    parse_note,
    parse_signing_key,
    sign_text,
    signing_key,
    verify_note,
)

# The example of golang.org/x/mod/sumdb/note.
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
LINE = (
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqf"
    "qdngotpRZb6KE6RyyBwJnAM=\n"
)
NOTE = f"{TEXT}\n{LINE}".encode()
# The example of C2SP tlog-checkpoint.
SOFA = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"

LOG = signing_key("log.example/1", KeyType.ED25519, b"\x01" * 32)
WITNESS = signing_key("witness.example/w", KeyType.COSIGNATURE, b"\x02" * 32)


def test_the_note_of_the_go_library_is_verified_and_signed_to_the_same_bytes():
    key = parse_key(VKEY)
    assert str(key) == VKEY
    assert [item.key for item in verify_note(parse_note(NOTE), [key])] == [key]
    signer = parse_signing_key(SKEY)
    assert signer.text == SKEY
    assert signer.public == key
    signature = sign_text(TEXT, signer, time_s=0)
    assert Note(text=TEXT, signatures=(signature,)).encode() == NOTE


def test_the_key_of_the_go_checksum_database_has_its_own_id():
    text = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    assert str(parse_key(text)) == text


def test_a_cosignature_says_when_and_holds_for_that_time_only():
    signature = sign_text(SOFA, WITNESS, time_s=1_679_315_147)
    note = Note(text=SOFA, signatures=(signature,))
    (signed,) = verify_note(parse_note(note.encode()), [WITNESS.public])
    assert signed.time_s == 1_679_315_147
    moved = bytes([*signature.blob[:7], signature.blob[7] ^ 1, *signature.blob[8:]])
    forged = Note(
        text=SOFA,
        signatures=(type(signature)(name=signature.name, key_id=signature.key_id, blob=moved),),
    )
    with pytest.raises(TrustError):
        verify_note(forged, [WITNESS.public])


def test_signatures_of_unknown_keys_are_ignored_even_under_a_known_name():
    other = signing_key(LOG.public.name, KeyType.ED25519, b"\x09" * 32)
    note = Note(text=TEXT, signatures=(sign_text(TEXT, other, time_s=0),))
    assert verify_note(note, [LOG.public]) == ()


def test_one_false_signature_of_a_known_key_condemns_the_note():
    true, false = sign_text(TEXT, LOG, time_s=0), sign_text("other\n", LOG, time_s=0)
    with pytest.raises(TrustError):
        verify_note(Note(text=TEXT, signatures=(true, false)), [LOG.public])


@pytest.mark.parametrize("at", range(len(NOTE)))
def test_no_changed_byte_of_a_note_passes(at: int):
    for value in (NOTE[at] ^ 1, NOTE[at] ^ 0x20, 0x0A):
        changed = NOTE[:at] + bytes([value]) + NOTE[at + 1 :]
        if changed == NOTE:
            continue
        try:
            held = verify_note(parse_note(changed), [parse_key(VKEY)])
        except (InputError, TrustError):
            continue
        assert held == ()


@given(st.binary(max_size=300))
def test_what_is_read_as_a_note_is_written_the_same(data: bytes):
    for whole in (data, TEXT.encode() + b"\n" + data, NOTE + data):
        try:
            note = parse_note(whole)
        except InputError:
            continue
        assert note.encode() == whole


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "a b+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        VKEY.replace("c74f20a3", "c74f20a4"),
        VKEY.replace("+AR", "+BR"),
        VKEY[:-4],
        VKEY + "A",
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str):
    with pytest.raises(ConfigError):
        parse_key(text)


def test_the_example_of_the_checkpoint_specification_is_read_and_written():
    checkpoint = parse_checkpoint(SOFA)
    assert checkpoint.size == 20_852_163
    assert checkpoint.text == SOFA
    more = parse_checkpoint(SOFA + "an extension\n")
    assert more.extensions == ("an extension",)
    assert more.text == SOFA + "an extension\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o\n1\n",
        SOFA[:-1],
        SOFA + "\n",
        SOFA.replace("20852163", "020852163"),
        SOFA.replace("20852163", "-1"),
        SOFA.replace("20852163", str(1 << 63)),
        SOFA.replace("20852163", "0"),
        SOFA.replace("q2I=", "q2J="),
        SOFA.replace("example.com/behind-the-sofa", ""),
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str):
    with pytest.raises(InputError):
        parse_checkpoint(text)


def test_a_checkpoint_of_nothing_has_the_root_of_nothing():
    root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert parse_checkpoint(f"o\n0\n{root}\n") == Checkpoint(
        origin="o", size=0, root=parse_checkpoint(f"o\n1\n{root}\n").root
    )
