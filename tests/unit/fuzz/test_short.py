"""Fuzz targets for a short while: on random bytes, and on real words of each format, damaged."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
import zstandard
from frames import DATA, HEADERS, RESET, SETTINGS, WINDOW, frame, head, request, websocket_frame
from fuzz_targets import load_target
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = b"words that compress " * 40
PATCH = b"--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"
WORDS = {
    "fuzz_answer": [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Early Hints\r\n", b"Content-Length: 3\r\n", b"\r\n",
        b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"X: y\r\n", b"abc",
        b"GET / HTTP/1.1\r\nHost: a.test\r\n", b"Connection: close, X\r\n", b"HTTP/1.0 204 No\r\n",
    ],
    "fuzz_grpc": [b"\0\0\0\0\3abc", b"\1\0\0\0\1x", b"\0\0\0\0\0", b"\2", b"\0\0\1"],
    "fuzz_inflate": [
        gzip.compress(TEXT), zlib.compress(TEXT), brotli.compress(TEXT), zstandard.compress(TEXT),
        gzip.compress(gzip.compress(TEXT)), b"\x1f\x8b", b"PK\3\4",
    ],
    "fuzz_git_pack": [
        b"\x03" + b"a blob of text!", b"\x0e\x80\x01" + b"\x90\x05" + b"\x03new" + bytes(8),
        b"\x95\x0a",
        b"\x06\x05\x05\x91\x00\x05", b"\x07" + bytes(15), zlib.compress(b"x" * 900), b"\xff" * 20,
    ],
    "fuzz_patch": [
        PATCH, b"diff --git a/x b/y\n", b"*** Begin Patch\n", b"*** Update File: x\n", b"@@\n",
        b"1,2d\n", b"3c\nx\n.\n", b"GIT binary patch\n", b"\r", b"\xe2\x80\xa8", b"  + x\n",
    ],
    "fuzz_corporate": [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 407 Wants\r\n", b"Proxy-Authenticate: NTLM, Basic\r\n",
        b"\r\n", b"\n", b"\x05\x00", b"\x05\x00\x00\x01\x7f\0\0\1\0\x50", b"\x05\xff", b"\x05\x02",
    ],
    "fuzz_secret_forms": [
        b"k=v&a=", b"%41", b"\\", b'{"a": "', b"\n", b"-----BEGIN ", b"tokn_", b"--x\r\n", b"+",
        b"PK\3\4", b"\x1f\x8b", b"a" * 70, b"0123456789abcdef" * 4, b".label.", b"= \n",
    ],
    "fuzz_views": [
        b"Z2hwXzAxMjM0NTY3ODk=", b"6768705f30", b"%67%68%70", b"\\u0067\\x68", b"&#103;&#x68;",
        b"g h p _ 0", b'"ghp_" + "0123"', b"=67=\n", b"\xef\xbd\x87", b"g\0h\0p\0", b"PK\3\4",
        b"<~9jqo^~>", b"nOL_", b"M5QW2ZLT" * 8, b"QUJD" * 30, b"7z\xbc\xaf\x27\x1c", b"\xff" * 40,
    ],
    "fuzz_query": [
        b"agent=a&", b"host=%00'\\&", b"path=/a*&", b"rule={x:String}&", b"since=1h&",
        b"by=hour,guard&", b"until=1970-01-01&", b"verdict=deny&", b"kind=outcome&",
        b"limit=5&", b"top=3&", b"by=&",
        b"cursor=MSwyLDMsaA==&", b"tenant=%F0%9F%99%82&", b"since=2262-04-11T23:47:16Z&",
    ],
    "fuzz_words": [
        b'{"users": [], "groups": ["a"], "cgroups": [], "ways": {}}', b"{}", b"[]", b"null", b"NaN",
        b'{"chosen": "", "trees": 1, "hung_s": "x"}', b"network=0 seccomp=1", b"=", b" a 1 b 2 ",
        b"\0" * 24, b"\0" * 80, b'{"a":' * 30, b"9" * 5_000,
    ],
    "fuzz_frames": [
        request(head()), request(head(method="POST"), ends=False), frame(DATA, 1, 1, b"abc"),
        frame(SETTINGS, payload=b"\0\4\0\0\0\0"), frame(RESET, 0, 1, b"\0\0\0\x08"),
        frame(WINDOW, 0, 1, b"\0\0\1\0"), frame(HEADERS, 0, 3, head()),
        websocket_frame(b"hello"), websocket_frame(b"ab", fin=False),
        websocket_frame(b"", opcode=8),
        websocket_frame(b"hi", masked=False), websocket_frame(b"\xca\x48\0", reserved=4),
        b"HTTP/1.1 200 OK\r\n", b"Content-Length: 3\r\n\r\nabc", b"\r\n",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_a_target_holds_on_words_of_its_format_damaged(name: str) -> None:
    target = load_target(name).fuzz_one

    @settings(max_examples=60)
    @given(
        st.integers(0, 255),
        st.lists(st.one_of(st.sampled_from(WORDS[name]), st.binary(max_size=6)), max_size=6),
        st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), max_size=4),
    )
    def run(first: int, parts: list[bytes], damages: list[tuple[int, int]]) -> None:
        data = bytearray(b"".join(parts))
        for at, value in damages:
            if data:
                data[at % len(data)] = value
        target(bytes((first,)) + bytes(data))

    run()
