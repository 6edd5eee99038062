"""What a policy says is masked goes on, masked, in valid framing; what cannot be is refused."""

from __future__ import annotations

import gzip
import http.client
import json
import random
import threading
import zlib

import brotli
import pytest
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server
import zstandard
from bypass_forms import compressed_message
from egress_lab import POLICY, Proxy
from h2_client import H2Client
from scan_lab import token

GRPC = {"content-type": "application/grpc", "te": "trailers"}
MASKED = "github-pat, action: redact"
ACTIONS = """\
    actions:
      - {rule: corp_token, action: redact}
      - {rule: corp_token, action: record, hosts: [a.sub.test]}
"""


@pytest.fixture
def masking(start) -> Proxy:
    return start(POLICY + ACTIONS)


def post(proxy: Proxy, body: object, host: str = "allowed.test", path: str = "/in", **fields: str):
    """Send a body with Python's client through the tunnel; the answer's status and fields."""
    client = http.client.HTTPSConnection(host)
    client.sock = proxy.tunnel(host)
    client.request(
        "POST", path, body=body, headers=fields, encode_chunked=not isinstance(body, bytes)
    )
    answer = client.getresponse()
    answer.read()
    client.close()
    return answer


def verdicts(proxy: Proxy) -> list[str]:
    return [record.verdict for record in proxy.journal.records if record.findings]


def test_a_body_with_a_length_goes_on_masked_and_the_agent_is_told(masking, canary):
    body = json.dumps({"a": "x" * 5_000, "key": canary.decode(), "b": "y" * 5_000}).encode()
    answer = post(masking, body, **{"content-type": "application/json"})
    assert (answer.status, answer.headers["aesp-redacted"]) == (200, "1")
    seen = masking.origin.requests[-1]
    assert seen.complete
    assert len(seen.body) == len(body)
    assert json.loads(bytes(seen.body))["key"] == "*" * len(canary)
    assert "redact" in verdicts(masking)
    (record,) = [r for r in masking.journal.records if r.verdict == "redact"]
    assert record.findings[0].rule == "corp_token"
    assert canary.decode() not in repr(masking.journal.records)


def test_what_was_masked_is_no_piece_of_the_next_secret(start):
    masking = start(POLICY + ACTIONS.replace("corp_token, action: redact", MASKED))
    for number in range(3):
        body = json.dumps({"key": token(number)}).encode()
        answer = post(masking, body, **{"content-type": "application/json"})
        assert (answer.status, answer.headers["aesp-redacted"]) == (200, "1")
        assert json.loads(bytes(masking.origin.requests[-1].body)) == {"key": "*" * 40}
    assert set(verdicts(masking)) == {"redact", "allow"}


@pytest.mark.parametrize("size", [1, 17, 1_000])
def test_a_chunked_body_goes_on_masked_whatever_the_chunks(masking, canary, size):
    body = b"before " * 300 + canary + b" after" * 300
    pieces = iter([body[at : at + size] for at in range(0, len(body), size)])
    answer = post(masking, pieces, **{"transfer-encoding": "chunked"})
    assert answer.status == 200
    seen = masking.origin.requests[-1]
    assert seen.complete
    assert bytes(seen.body) == body.replace(canary, b"*" * len(canary))


def test_an_honest_body_is_left_alone_and_nothing_is_told(masking):
    body = b"nothing of the kind " * 5_000
    answer = post(masking, body)
    assert answer.headers["aesp-redacted"] is None
    assert bytes(masking.origin.requests[-1].body) == body


def test_to_the_host_that_may_have_it_it_goes_as_it_is_and_is_recorded(masking, canary):
    answer = post(masking, b"k=" + canary, host="a.sub.test")
    assert (answer.status, answer.headers["aesp-redacted"]) == (200, None)
    assert bytes(masking.origin.requests[-1].body) == b"k=" + canary
    outcome = next(r for r in masking.journal.records if r.kind.value == "outcome" and r.findings)
    assert outcome.findings[0].rule == "corp_token"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/in?k=CANARY", {}),
        ("/in", {"x-key": "CANARY"}),
    ],
)
def test_a_head_is_not_masked_but_refused(masking, canary, path, fields):
    given = {name: value.replace("CANARY", canary.decode()) for name, value in fields.items()}
    answer = post(masking, b"x", path=path.replace("CANARY", canary.decode()), **given)
    assert answer.status == 403
    assert masking.origin.requests == []


@pytest.mark.parametrize(
    "fields",
    [
        {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="},
        {"authorization": "AWS4-HMAC-SHA256 Credential=a/b/c/s3/aws4_request"},
        {"content-encoding": "gzip", "digest": "sha-256=x"},
        {"content-encoding": "compress"},
        {"digest": "sha-256=x"},
    ],
)
def test_a_body_that_is_signed_or_in_an_unknown_coding_is_refused(masking, canary, fields):
    body = b"k=" + canary + b" "
    if fields.get("content-encoding") == "gzip":
        body = gzip.compress(body)
    assert post(masking, body, **fields).status == 403
    assert all(canary[:8] not in bytes(seen.body) for seen in masking.origin.requests)
    assert "redact" not in verdicts(masking)


PACK = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}


@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("coding", PACK, ids=str)
def test_a_compressed_body_goes_on_masked_without_its_coding(masking, canary, coding, in_chunks):
    text = json.dumps({"a": "x y " * 5_000, "key": canary.decode(), "b": "é" * 50}).encode()
    packed = PACK[coding](text)
    body = iter([packed[at : at + 29] for at in range(0, len(packed), 29)]) if in_chunks else packed
    fields = {"content-encoding": coding, "content-type": "application/json"}
    if in_chunks:
        fields["transfer-encoding"] = "chunked"
    answer = post(masking, body, **fields)
    assert (answer.status, answer.headers["aesp-redacted"]) == (200, "1")
    seen = masking.origin.requests[-1]
    assert seen.complete
    assert bytes(seen.body) == text.replace(canary, b"*" * len(canary))
    assert b"content-encoding" not in seen.head.lower()
    assert seen.head.lower().count(b"transfer-encoding: chunked") == 1
    assert b"content-length" not in seen.head.lower()


def test_an_honest_compressed_body_goes_on_with_the_same_content(masking):
    text = b"nothing of the kind " * 50_000
    assert post(masking, gzip.compress(text), **{"content-encoding": "gzip"}).status == 200
    assert bytes(masking.origin.requests[-1].body) == text


def test_where_nothing_is_masked_a_compressed_body_goes_on_as_it_came(proxy):
    packed = gzip.compress(b"nothing of the kind " * 500)
    assert post(proxy, packed, **{"content-encoding": "gzip"}).status == 200
    seen = proxy.origin.requests[-1]
    assert bytes(seen.body) == packed
    assert b"content-encoding: gzip" in seen.head.lower()


@pytest.mark.parametrize("damage", ["cut", "noise", "more", "bomb"])
def test_a_damaged_compressed_body_is_refused_and_never_complete(masking, canary, damage):
    noise = bytes(random.Random(5).randbytes(30_000))
    packed = gzip.compress(noise + b"z" * 3_000 + canary[:9])
    packed = {
        "cut": packed[:-9],
        "noise": packed[:9_000] + b"\xff" * 99 + packed[9_099:],
        "more": packed + b"more",
        "bomb": gzip.compress(b"\0" * (64 << 20)),
    }[damage]
    assert post(masking, packed, **{"content-encoding": "gzip"}).status == 403
    assert all(not seen.complete for seen in masking.origin.requests)


def test_a_compressed_body_of_http_1_0_is_refused_as_it_has_no_chunks(masking, canary):
    packed = gzip.compress(b"k=" + canary + b" ")
    head = b"POST /in HTTP/1.0\r\nHost: allowed.test\r\nContent-Encoding: gzip\r\n"
    answer = masking.ask(head + b"Content-Length: %d\r\n\r\n" % len(packed) + packed)
    assert b" 403 " in answer.split(b"\r\n")[0]


def test_a_secret_in_trailers_is_refused(masking, canary):
    request = b"POST /up HTTP/1.1\r\nHost: allowed.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = masking.ask(request + b"2\r\nok\r\n0\r\nX-Key: " + canary + b"\r\n\r\n")
    assert b" 403 " in answer.split(b"\r\n")[0]
    assert all(canary not in seen.trailers for seen in masking.origin.requests)


def test_http_2_bodies_and_grpc_messages_go_on_masked(masking, canary):
    with masking.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls)
        body = b"a" * 50_000 + b" " + canary + b" " + b"b" * 50_000
        assert client.ask("/up", body) == (200, b"%d bytes" % len(body))
        assert client.fields["aesp-redacted"] == "1"
        stars = b"*" * len(canary)
        assert client.ask("/up", gzip.compress(body), **{"content-encoding": "gzip"})[0] == 200
        assert bytes(masking.origin.requests[-1].body) == body.replace(canary, stars)
        assert b"content-encoding" not in masking.origin.requests[-1].head.lower()
        assert bytes(masking.origin.requests[-1].body) == body.replace(canary, stars)
        wire = b"".join(
            b"\0" + len(one).to_bytes(4, "big") + one for one in (b"first", b"\n " + canary + b" z")
        )
        client.ask("/pkg.Service/Call", wire, **GRPC)
        assert bytes(masking.origin.requests[-1].body) == wire.replace(canary, stars)


def test_a_compressed_grpc_message_is_not_written_anew_and_so_refused(masking, canary):
    coded = compressed_message(gzip.compress(b"k=" + canary + b" "))
    with masking.tunnel(alpn=("h2",)) as tls:
        client = H2Client(tls)
        client.ask("/pkg.Service/Call", coded, **GRPC, **{"grpc-encoding": "gzip"})
    assert client.fields["aesp-reason"] == "secret_found"
    assert not any(seen.body for seen in masking.origin.requests)


def test_what_cannot_be_recorded_is_not_forwarded_masked_either(masking, canary):
    body = b"a" * 100_000 + canary + b"b" * 100_000
    with masking.tunnel() as tls:
        head = b"POST /in HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: %d\r\n\r\n" % len(body)
        tls.sendall(head + body[:90_000])
        masking.wait_for(lambda: masking.journal.records, "the decision")
        masking.journal.broken = True
        tls.sendall(body[90_000:])
        answer = tls.recv(65_536)
    assert b"record_failed" in answer
    assert all(not seen.complete for seen in masking.origin.requests)


def test_a_websocket_message_goes_on_masked_and_a_ping_is_refused(masking, canary):
    received: list[str] = []

    def serve(socket) -> None:
        for message in socket:
            received.append(message)
            socket.send("ok")

    with websockets.sync.server.serve(serve, "127.0.0.1", 0) as server:
        settings = masking.interceptor._settings
        kind = type(next(iter(settings.static.values())))
        port = server.socket.getsockname()[1]
        settings.static["plain.test", None] = kind(address="127.0.0.1", port=port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        sock, _ = masking.connect("plain.test:80")
        with websockets.sync.client.connect("ws://plain.test/", sock=sock, proxy=None) as client:
            client.send(json.dumps({"k": canary.decode(), "é": "é"}, ensure_ascii=False))
            assert client.recv(10) == "ok"
            client.send("after")
            assert client.recv(10) == "ok"
            client.ping(canary)
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                client.recv(10)
            assert closed.value.rcvd.code == 1008
        server.shutdown()
        thread.join()
    assert [json.loads(received[0]), received[1:]] == [{"k": "*" * 37, "é": "é"}, ["after"]]
