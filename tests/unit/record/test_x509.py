from __future__ import annotations

import os
import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from aesp_proxy.errors import ConfigError
from aesp_proxy.keys import (
    KeyPair,
    Purpose,
    check_pair,
    issue_leaf,
    load_ca,
    load_pair,
    make_ca,
    make_private_dir,
    read_bounded,
    write_atomic,
)

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def ca() -> KeyPair:
    cert_pem, key_pem = make_ca("test authority", now=datetime.now(UTC))
    return KeyPair(cert_pem=cert_pem, key_pem=key_pem)


def _leaf(ca: KeyPair, purpose: Purpose, *names: str) -> KeyPair:
    now = datetime.now(UTC)
    cert_pem, key_pem = issue_leaf(ca, names, purpose=purpose, now=now, days=30)
    return check_pair(cert_pem, key_pem, now=now, where="leaf")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=name)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [here, there]
    for _ in range(10):
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert not waiting


def _contexts(
    tmp_path: Path, ca: KeyPair, server: KeyPair, client: KeyPair
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    contexts = []
    for name, pair, side in (
        ("server", server, ssl.PROTOCOL_TLS_SERVER),
        ("client", client, ssl.PROTOCOL_TLS_CLIENT),
    ):
        file = tmp_path / name
        write_atomic(file, pair.combined_pem)
        context = ssl.SSLContext(side)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(file)
        context.load_verify_locations(cadata=ca.cert_pem.decode())
        contexts.append(context)
    contexts[0].verify_mode = ssl.CERT_REQUIRED
    return contexts[0], contexts[1]


def test_both_sides_of_mutual_tls_accept_each_other_strictly(tmp_path: Path, ca: KeyPair) -> None:
    server = _leaf(ca, Purpose.SERVER, "proxy.example.test", "127.0.0.1")
    client = _leaf(ca, Purpose.CLIENT, "h-test")
    contexts = _contexts(tmp_path, ca, server, client)
    _handshake(*contexts, "proxy.example.test")
    _handshake(*contexts, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(*contexts, "other.example.test")


def test_a_client_certificate_cannot_serve(tmp_path: Path, ca: KeyPair) -> None:
    client = _leaf(ca, Purpose.CLIENT, "proxy.example.test")
    contexts = _contexts(tmp_path, ca, client, client)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(*contexts, "proxy.example.test")


def test_a_leaf_never_outlives_its_authority_nor_signs(ca: KeyPair) -> None:
    cert_pem, _ = issue_leaf(
        ca, ["a.test"], purpose=Purpose.SERVER, now=datetime.now(UTC), days=99_999
    )
    leaf = x509.load_pem_x509_certificate(cert_pem)
    issuer = x509.load_pem_x509_certificate(ca.cert_pem)
    assert leaf.not_valid_after_utc <= issuer.not_valid_after_utc
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_openssl_verifies_the_leaf(tmp_path: Path, ca: KeyPair) -> None:
    leaf = _leaf(ca, Purpose.SERVER, "a.example.test")
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem)
    (tmp_path / "leaf.pem").write_bytes(leaf.cert_pem)
    subprocess.run(
        [
            "openssl", "verify", "-x509_strict", "-CAfile", tmp_path / "ca.pem",
            "-verify_hostname", "a.example.test", tmp_path / "leaf.pem",
        ],
        check=True, capture_output=True,
    )  # fmt: skip


def test_a_ca_file_in_mitmproxys_form_is_read_back(tmp_path: Path, ca: KeyPair) -> None:
    file = tmp_path / "mitmproxy-ca.pem"
    write_atomic(file, ca.combined_pem)
    loaded = load_ca(file, now=datetime.now(UTC))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"PRIVATE KEY" in loaded.key_pem
    assert x509.load_pem_x509_certificate(loaded.cert_pem).subject


def _other(now: datetime = NOW) -> KeyPair:
    cert_pem, key_pem = make_ca("other", now=now)
    return KeyPair(cert_pem=cert_pem, key_pem=key_pem)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda pair: (b"", pair.key_pem), "no readable certificate"),
        (lambda pair: (pair.cert_pem, b""), "no readable private key"),
        (lambda pair: (pair.cert_pem[:200], pair.key_pem), "no readable certificate"),
        (lambda pair: (pair.cert_pem, pair.key_pem[:100]), "no readable private key"),
        (lambda pair: (pair.cert_pem, _other().key_pem), "do not match"),
    ],
)
def test_damaged_or_mismatched_files_are_named(make, told: str) -> None:
    cert_pem, key_pem = make(_other())
    with pytest.raises(ConfigError, match=told) as caught:
        check_pair(cert_pem, key_pem, now=NOW, where="state/ca.pem", is_ca=True)
    assert str(caught.value).startswith("state/ca.pem: ")


def test_dates_are_checked_against_the_time_given() -> None:
    pair = _other()
    for when, told in ((timedelta(days=-9), "not valid before"), (timedelta(9999), "expired")):
        with pytest.raises(ConfigError, match=told):
            check_pair(pair.cert_pem, pair.key_pem, now=NOW + when, where="x", is_ca=True)


def test_a_leaf_is_no_authority(ca: KeyPair) -> None:
    leaf = _leaf(ca, Purpose.SERVER, "a.test")
    with pytest.raises(ConfigError, match="not a certificate authority"):
        check_pair(leaf.cert_pem, leaf.key_pem, now=datetime.now(UTC), where="x", is_ca=True)


def test_a_name_no_certificate_can_hold_is_refused(ca: KeyPair) -> None:
    with pytest.raises(ConfigError, match="cannot be a certificate's name"):
        _leaf(ca, Purpose.SERVER, "bücher.test")


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_bounded(tmp_path / "absent")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_atomic(tmp_path / "absent" / "file", b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be made"):
        make_private_dir(tmp_path / "file" / "dir")
    with pytest.raises(ConfigError):
        load_pair(tmp_path / "a", tmp_path / "b", now=NOW)


def test_a_write_replaces_the_whole_file_and_leaves_no_draft(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write_atomic(file, b"first, longer")
    write_atomic(file, b"second")
    assert file.read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_certificate_without_basic_constraints_is_told_apart_from_noise() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "h-one")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    made = made.public_key(key.public_key()).not_valid_before(NOW)
    pem = made.not_valid_after(NOW + timedelta(days=1)).sign(key, SHA256())
    with pytest.raises(ConfigError, match="basic constraints"):
        check_pair(pem.public_bytes(Encoding.PEM), b"", now=NOW, where="--certificate")


def test_no_file_is_put_in_the_place_of_a_pipe(tmp_path):
    place = tmp_path / "pipe"
    os.mkfifo(place)
    with pytest.raises(ConfigError, match="is there and is no file"):
        write_atomic(place, b"key")
    assert stat.S_ISFIFO(place.lstat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
