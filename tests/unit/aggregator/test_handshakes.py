"""A handshake that is refused is counted by reason, and strangers cannot fill the log."""

from __future__ import annotations

import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from aesp_proxy import keys
from aesp_proxy.aggregator.handshakes import watch

NOW = datetime.now(UTC)


def new_authority() -> keys.KeyPair:
    cert_pem, key_pem = keys.make_ca("a CA", now=NOW)
    return keys.KeyPair(cert_pem=cert_pem, key_pem=key_pem)


@pytest.fixture(scope="module")
def authority() -> keys.KeyPair:
    return new_authority()


def loaded(context: ssl.SSLContext, directory: Path, pems: tuple[bytes, bytes]) -> ssl.SSLContext:
    place = directory / "pair.pem"
    place.write_bytes(pems[1] + pems[0])
    context.load_cert_chain(place)
    return context


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Let two sides talk in memory until one refuses or both are done."""
    wires = [ssl.MemoryBIO() for _ in range(4)]
    ours = server.wrap_bio(wires[0], wires[1], server_side=True)
    theirs = client.wrap_bio(wires[2], wires[3])
    for _ in range(4):
        for side in (theirs, ours):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            wires[0].write(wires[3].read())
            wires[2].write(wires[1].read())


def client_of(directory: Path, authority: keys.KeyPair, *, now: datetime) -> ssl.SSLContext:
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    leaf = keys.issue_leaf(authority, (), purpose=keys.Purpose.CLIENT, now=now, days=1)
    return loaded(client, directory, leaf)


@pytest.fixture
def server(tmp_path: Path, authority: keys.KeyPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.cert_pem.decode())
    leaf = keys.issue_leaf(authority, ("a",), purpose=keys.Purpose.SERVER, now=NOW, days=1)
    return loaded(context, tmp_path, leaf)


def test_a_certificate_of_ours_is_no_refusal(server, tmp_path: Path, authority) -> None:
    refused = watch(server)
    shake(server, client_of(tmp_path, authority, now=NOW))
    assert refused.total == 0


def test_each_reason_has_its_word(server, tmp_path: Path, authority) -> None:
    refused = watch(server)
    stranger = new_authority()
    none = ssl.create_default_context()
    none.check_hostname, none.verify_mode = False, ssl.CERT_NONE
    words = []
    for client in (
        client_of(tmp_path, stranger, now=NOW),
        client_of(tmp_path, authority, now=NOW - timedelta(days=9)),
        none,
    ):
        refused._told_s = float("-inf")
        with capture_logs() as logs, pytest.raises(ssl.SSLError):
            shake(server, client)
        words += [key for key in logs[0] if key not in {"event", "log_level", "total"}]
    assert words == [
        "unable_to_get_local_issuer_certificate",
        "certificate_has_expired",
        "peer_did_not_return_a_certificate",
    ]


def test_a_flood_is_one_line_with_its_number(server) -> None:
    refused = watch(server)
    with capture_logs() as logs:
        for _ in range(1000):
            refused.note(ssl.SSLError(1, "x"))
        refused._told_s = float("-inf")
        refused.note(ssl.SSLError(1, "x"))
    assert [line["unreadable"] for line in logs] == [1, 1000]
    assert logs[-1]["total"] == 1001
