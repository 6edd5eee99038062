"""The host CA and the files that make tool chains trust it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mitmproxy import certs

from aesp_proxy import keys
from aesp_proxy.errors import ConfigError
from aesp_proxy.launch.ca import HostCa, ensure_ca
from aesp_proxy.launch.trust import JAVA_STORE_PASSWORD, ensure_trust

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def ca(tmp_path: Path) -> HostCa:
    return ensure_ca(tmp_path / "ca", now=NOW)


def again(ca: HostCa, now: datetime = NOW) -> HostCa:
    return ensure_ca(ca.combined.parent, now=now)


def complaint(ca: HostCa, now: datetime = NOW) -> str:
    with pytest.raises(ConfigError) as caught:
        again(ca, now)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_ca_is_made_once_private_and_in_the_form_that_mitmproxy_reads(ca):
    assert ca.combined.stat().st_mode & 0o777 == 0o600
    assert ca.combined.parent.stat().st_mode & 0o777 == 0o700
    before = ca.combined.read_bytes()
    assert again(ca) == ca
    assert ca.combined.read_bytes() == before
    store = certs.CertStore.from_store(ca.combined.parent, "mitmproxy", 2048)
    assert store.default_ca.to_pem() == ca.certificate.read_bytes()
    assert store.default_ca.keyinfo == ("EC (secp256r1)", 256)


def test_launchers_that_start_at_once_make_one_ca(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ensure_ca(tmp_path / "ca", now=NOW), range(8)))
    assert len({each.combined.read_bytes() for each in made}) == 1


def test_a_ca_whose_key_others_can_read_is_refused(ca):
    ca.combined.chmod(0o644)
    assert "can be read by others" in complaint(ca)


@pytest.mark.parametrize("keep", [0, 1, 50, 200, 300])
def test_a_ca_that_is_cut_short_is_refused(ca, keep):
    ca.combined.write_bytes(ca.combined.read_bytes()[:keep])
    assert "cannot be used" in complaint(ca)


def test_a_ca_of_which_half_is_missing_is_refused(ca):
    ca.combined.unlink()
    assert "cannot be read" in complaint(ca)
    assert not ca.combined.exists()


def test_a_ca_whose_public_half_is_anothers_is_refused(ca, tmp_path):
    other = ensure_ca(tmp_path / "other", now=NOW)
    ca.certificate.write_bytes(other.certificate.read_bytes())
    assert "is not the certificate of" in complaint(ca)


def test_a_ca_whose_key_is_anothers_is_refused(ca, tmp_path):
    _, key = keys.make_ca("other", now=NOW)
    ca.combined.write_bytes(key + ca.certificate.read_bytes())
    assert "do not match" in complaint(ca)


def test_a_leaf_in_place_of_the_ca_is_refused(ca):
    pair = keys.load_ca(ca.combined, now=NOW)
    cert, key = keys.issue_leaf(pair, ["localhost"], purpose=keys.Purpose.SERVER, now=NOW, days=10)
    ca.combined.write_bytes(key + cert)
    ca.certificate.write_bytes(cert)
    assert "is not a certificate authority" in complaint(ca)


def test_a_key_with_a_pass_phrase_does_not_ask_at_the_terminal(ca):
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(ca.combined.read_bytes(), None)
    locked = key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"x")
    )
    ca.combined.write_bytes(locked + ca.certificate.read_bytes())
    assert "cannot be used" in complaint(ca)


@pytest.mark.parametrize(("days", "says"), [(20_000, "expires on"), (-20_000, "not valid before")])
def test_a_ca_out_of_date_is_refused(ca, days, says):
    assert says in complaint(ca, NOW + timedelta(days=days))


def test_a_ca_that_ends_today_is_refused_before_it_breaks_a_run(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca.certificate)
    end = ssl.cert_time_to_seconds(str(context.get_ca_certs()[0]["notAfter"]))
    almost = datetime.fromtimestamp(end, UTC) - timedelta(hours=2)
    assert "expires on" in complaint(ca, almost)


def test_a_directory_that_takes_no_ca_is_the_operators_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot hold the host CA"):
        ensure_ca(tmp_path / "file" / "ca", now=NOW)


def test_the_bundle_holds_the_systems_roots_and_ours(ca, tmp_path):
    other = ensure_ca(tmp_path / "other", now=NOW)
    environ = {"SSL_CERT_FILE": str(other.certificate)}
    trust = ensure_trust(ca.certificate, environ=environ, java=False)
    bundle = trust.bundle.read_bytes()
    assert bundle == other.certificate.read_bytes().rstrip() + b"\n" + ca.certificate.read_bytes()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(trust.bundle)
    assert len(context.get_ca_certs()) == 2


def test_trust_files_are_written_only_when_the_roots_changed(ca, tmp_path):
    trust = ensure_trust(ca.certificate, environ={}, java=True)
    assert trust.java_store is not None
    files = (trust.bundle, trust.wgetrc, trust.java_store)
    before = [file.stat().st_ino for file in files]
    ensure_trust(ca.certificate, environ={}, java=True)
    assert [file.stat().st_ino for file in files] == before
    other = ensure_ca(tmp_path / "other", now=NOW)
    ensure_trust(ca.certificate, environ={"SSL_CERT_FILE": str(other.certificate)}, java=True)
    assert trust.java_store.stat().st_ino != before[2]


def test_the_persons_own_wgetrc_is_kept(ca, tmp_path):
    own = tmp_path / ".wgetrc"
    own.write_text("tries = 3\n")
    trust = ensure_trust(ca.certificate, environ={"HOME": str(tmp_path)}, java=False)
    assert trust.wgetrc.read_text() == f"tries = 3\nca_certificate = {trust.bundle}\n"


@pytest.mark.skipif(shutil.which("keytool") is None, reason="no Java here")
def test_java_reads_its_store(ca):
    trust = ensure_trust(ca.certificate, environ={}, java=True)
    listed = subprocess.run(
        ["keytool", "-list", "-keystore", str(trust.java_store), "-storepass", JAVA_STORE_PASSWORD],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    count = trust.bundle.read_text().count("BEGIN CERTIFICATE")
    assert f"contains {count} entr" in listed.stdout
    assert listed.stdout.count("trustedCertEntry") == count
