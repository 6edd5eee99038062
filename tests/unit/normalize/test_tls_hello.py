"""The first message of TLS: real ones, cut anywhere, and what could be read in two ways."""

from __future__ import annotations

import socket
import struct
import subprocess

import pytest
from entries import hello, with_extension

from aesp_proxy.errors import InputError
from aesp_proxy.normalize.tls_hello import ClientHello, HelloReader

NAMED = ClientHello(server_name="allowed.test", has_ech=False)


def read(data: bytes) -> ClientHello | None:
    return HelloReader().feed(data)


def in_records(data: bytes, size: int) -> bytes:
    message = data[5:]
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(data[:3] + struct.pack("!H", len(part)) + part for part in parts)


def built(extensions: bytes) -> bytes:
    """Make a ClientHello of nothing but extensions, in one record."""
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += struct.pack("!H", len(extensions)) + extensions
    message = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + struct.pack("!H", len(message)) + message


def name_extension(*names: tuple[int, bytes]) -> bytes:
    entries = b"".join(struct.pack("!BH", kind, len(name)) + name for kind, name in names)
    return struct.pack("!HHH", 0, len(entries) + 2, len(entries)) + entries


def test_the_name_of_a_real_client_is_read() -> None:
    assert read(hello("allowed.test")) == NAMED
    assert read(hello(None)) == ClientHello(server_name="", has_ech=False)


def test_the_name_is_read_from_what_the_openssl_command_sends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        command = ["openssl", "s_client", "-connect", place, "-servername", "a.b"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:  # fmt: skip
            sock, _ = server.accept()
            with sock:
                data = sock.recv(65_536)
            process.communicate(timeout=10)
    assert read(data) == ClientHello(server_name="a.b", has_ech=False)


def test_it_may_be_split_at_every_byte() -> None:
    data = hello("allowed.test")
    for cut in range(1, len(data)):
        reader = HelloReader()
        assert reader.feed(data[:cut]) is None, cut
        assert reader.feed(data[cut:]) == NAMED


def test_it_may_come_byte_by_byte() -> None:
    reader = HelloReader()
    answers = [reader.feed(bytes([byte])) for byte in hello("allowed.test")]
    assert answers[-1] == NAMED
    assert set(answers[:-1]) == {None}


@pytest.mark.parametrize("size", [16, 100, 16_384])
def test_it_may_be_spread_over_records(size: int) -> None:
    assert read(in_records(hello("allowed.test"), size)) == NAMED


def test_what_comes_in_later_records_is_not_looked_at() -> None:
    assert read(hello("allowed.test") + b"\x14\x03\x03\x00\x01\x01anything") == NAMED


@pytest.mark.parametrize("kind", [0xFE0D, 0xFFCE, 0xFE0A])
def test_a_name_that_may_be_hidden_is_told(kind: int) -> None:
    assert read(with_extension(hello("allowed.test"), kind, b"\0" * 20)) == ClientHello(
        server_name="allowed.test", has_ech=True
    )


def test_no_extensions_at_all_name_nothing() -> None:
    body = b"\x03\x01" + bytes(32) + b"\0" + b"\0\x02\0\x2f" + b"\x01\0"
    message = b"\x01" + len(body).to_bytes(3) + body
    data = b"\x16\x03\x01" + struct.pack("!H", len(message)) + message
    assert read(data) == ClientHello(server_name="", has_ech=False)


GOOD_NAME = name_extension((0, b"allowed.test"))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x17\x03\x03\x00\x01a", "no handshake"),
        (b"\x16\x02\x00", "version"),
        (b"\x16\x03\x01\x00\x00", "length of the TLS record"),
        (b"\x16\x03\x01\x40\x01", "length of the TLS record"),
        (b"\x16\x03\x01\x00\x04\x02\0\0\0", "no ClientHello"),
        (b"\x16\x03\x01\x00\x04\x01\x01\0\0", "over 65536"),
        (b"\x16\x03\x01\x00\x05\x01\0\0\x01\x03", "cut short"),
        (in_records(hello("allowed.test"), 2), "more than 64 records"),
        (built(GOOD_NAME + GOOD_NAME), "twice"),
        (built(name_extension((0, b"allowed.test"), (0, b"evil.test"))), "more than one"),
        (built(name_extension((1, b"allowed.test"))), "more than one"),
        (built(name_extension((0, b""))), "wrong length"),
        (built(name_extension()), "wrong length"),
        (built(name_extension((0, b"\xc3\xa4.test"))), "not ASCII"),
        (built(b"\0\0\0\x05\0\x02\0\0"), "cut short"),
        (built(b"\0\0"), "cut short"),
    ],
)  # fmt: skip
def test_what_is_no_clienthello_or_is_two_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read(data)


def test_bytes_behind_the_message_in_its_record_are_refused() -> None:
    data = hello("allowed.test")
    longer = data[:3] + struct.pack("!H", len(data) - 5 + 1) + data[5:] + b"\0"
    with pytest.raises(InputError, match="behind the ClientHello in its record"):
        read(longer)
