"""A secret planted in every place that an agent can write to, in every common wrapping: refused.

Each goes through the pipeline as an interceptor would send it. What a place cannot carry
(a host's name takes letters of one case) is left out by name, and so is what does not fit.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import string
import time
import urllib.parse
from collections.abc import Callable

import brotli
import pytest
import zstandard
from scan_lab import token

from aesp_proxy.daemon.pipeline import Identity, Pipeline, ScanLimits
from aesp_proxy.daemon.session import SessionCounter
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.registered import Hasher, entry
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.snapshot import build_snapshot
from aesp_proxy.model.context import Claims
from aesp_proxy.model.decision import Reason
from aesp_proxy.model.event import EgressRequest
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.record import Record, RecordId

KEY = b"a key for the tests of places..."
TOKEN = token(99)
VALUE = "".join(random.Random(9).choices(string.ascii_letters + string.digits, k=40))
POLICY = """\
version: "1.2.0"
name: planted
guards:
  egress_allowlist: {default_action: block, allow: ["*.one.test", "one.test"]}
  secret_leak:
    enabled: true
"""
CREDENTIALS = """\
    credentials:
      - {rule: github-pat, hosts: [one.test], headers: [authorization]}
      - {rule: "registered:*", hosts: [one.test], headers: [authorization]}
"""


class Kept:
    """A journal that keeps records at hand."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def append(self, record: Record) -> RecordId:
        self.records.append(record)
        return RecordId(origin="h", epoch=1, seq=len(self.records))


@pytest.fixture(scope="module")
def make_pipeline(pack: tuple[Rule, ...]) -> Callable[[], Pipeline]:
    return maker(pack, POLICY)


@pytest.fixture(scope="module")
def make_home(pack: tuple[Rule, ...]) -> Callable[[], Pipeline]:
    return maker(pack, POLICY + CREDENTIALS)


def maker(pack: tuple[Rule, ...], text: str) -> Callable[[], Pipeline]:
    exact = ExactIndex(KEY)
    exact.add([entry("V", "t", VALUE.encode(), hasher=Hasher(KEY), fingerprint_key=KEY)])
    policy = load_policy(text, "planted.yaml")
    snapshot = build_snapshot(policy, pack, fingerprint_key=KEY, serial=1, exact=exact)

    def make() -> Pipeline:
        return Pipeline(
            session=SessionCounter(started_ns=1, claims=Claims()),
            snapshot=snapshot,
            journal=Kept(),
            identity=Identity(
                principal_id="p", agent_id="a", agent_type="t", session_id="s"
            ),
            scan=ScanLimits(),
            wall_ns=time.time_ns,
            monotonic_ns=time.monotonic_ns,
        )  # fmt: skip

    return make


Fields = tuple[tuple[bytes, bytes], ...]
Refused = Callable[[Pipeline, bytes], set[str]]
"""Plant the bytes in a place; return the reasons of what was refused."""


def send(
    pipeline: Pipeline, target: str = "/", fields: Fields = (), body: bytes = b"",
    trailers: Fields = (), host: str = "one.test",
) -> set[str]:  # fmt: skip
    path, _, query = target.partition("?")
    event = EgressRequest(
        event_id="", time_ns=0, principal=pipeline.principal("127.0.0.1"), scheme="https",
        method="POST", host=parse_host(host), port=443, target=target, path=path, query=query,
        headers=((b"host", host.encode()), *fields), http_version="1.1", content_length=None,
    )  # fmt: skip
    exchange = pipeline.request(event, None)
    left = b""
    if exchange.denial is None:
        for at in range(0, len(body), 700):
            left += exchange.body(body[at : at + 700])
        left += exchange.finish_body(trailers)
    if exchange.denial is None:
        assert left == body
        return set()
    assert TOKEN.encode() not in left
    assert VALUE.encode() not in left
    return {exchange.denial.decision.reason.value}


def target(shape: str) -> Refused:
    return lambda p, s: send(p, shape.format(urllib.parse.quote(s, safe="/+=_-.")))


def field(name: bytes, shape: bytes = b"%b") -> Refused:
    return lambda p, s: send(p, fields=((name, shape % s),))


def body(shape: bytes, kind: bytes = b"text/plain") -> Refused:
    return lambda p, s: send(
        p, fields=((b"content-type", kind),), body=b"honest words " * 90 + shape % s + b" more"
    )


def coded(name: bytes, code: Callable[[bytes], bytes]) -> Refused:
    return lambda p, s: send(
        p, fields=((b"content-encoding", name),), body=code(b"words " * 500 + s + b" more" * 500)
    )


def message(*before: bytes) -> Refused:
    def plant(pipeline: Pipeline, secret: bytes) -> set[str]:
        event = EgressRequest(
            event_id="", time_ns=0, principal=pipeline.principal("127.0.0.1"), scheme="wss",
            method="GET", host=parse_host("one.test"), port=443, target="/", path="/", query="",
            headers=(), http_version="1.1",
        )  # fmt: skip
        exchange = pipeline.request(event, None)
        for text in (*before, b'{"text": "%b"}' % secret):
            exchange.message(text, "frame")
        return set() if exchange.denial is None else {exchange.denial.decision.reason.value}

    return plant


def protobuf(secret: bytes) -> bytes:
    inner = b"\x0a" + bytes((len(secret) & 0x7F | 0x80, len(secret) >> 7)) + secret
    return b"\x08\x01\x12" + bytes((len(inner) & 0x7F | 0x80, len(inner) >> 7)) + inner


def grpc(code: Callable[[bytes], bytes] | None = None) -> Refused:
    def plant(pipeline: Pipeline, secret: bytes) -> set[str]:
        data = protobuf(secret)
        data = data if code is None else code(data)
        framed = bytes((code is not None,)) + len(data).to_bytes(4, "big") + data
        fields = ((b"content-type", b"application/grpc"), (b"grpc-encoding", b"gzip"))
        return send(pipeline, fields=fields, body=framed)

    return plant


def labels(secret: bytes) -> str:
    text = secret.decode()
    return ".".join(text[at : at + 60] for at in range(0, len(text), 60)) + ".one.test"


def query(pipeline: Pipeline, secret: bytes) -> set[str]:
    exchange = pipeline.query(pipeline.principal("127.0.0.1"), parse_host(labels(secret)), "A")
    return set() if exchange.denial is None else {exchange.denial.decision.reason.value}


def queries(pipeline: Pipeline, secret: bytes) -> set[str]:
    found = set()
    text = secret.decode()
    for at in range(0, len(text), 16):
        found |= query(pipeline, text[at : at + 16].encode())
    return found


def connect(pipeline: Pipeline, secret: bytes) -> set[str]:
    host = parse_host(labels(secret))
    exchange = pipeline.connect(pipeline.principal("127.0.0.1"), host, 443)
    return set() if exchange.denial is None else {exchange.denial.decision.reason.value}


MULTIPART = b"multipart/form-data; boundary=x"
PLACES: dict[str, Refused] = {
    "segment": target("/a/{}/b"),
    "last segment": target("/{}"),
    "file in a path": target("/files/{}.txt"),
    "parameter": target("/?k={}&z=1"),
    "name of a parameter": target("/?{}=1"),
    "path parameter": target("/a;v={}/b"),
    "user agent": field(b"user-agent"),
    "field": field(b"x-note"),
    "field among words": field(b"x-note", b"see %b there"),
    "cookie": field(b"cookie", b"a=b; s=%b; c=d"),
    "referer": field(b"referer", b"https://one.test/?k=%b"),
    "bearer": field(b"authorization", b"Bearer %b"),
    "etag": field(b"if-none-match", b'W/"%b"'),
    "range": field(b"range", b"bytes=%b"),
    "accept": field(b"accept", b"text/%b"),
    "content type": field(b"content-type", b"text/plain; x=%b"),
    "disposition": field(b"content-disposition", b'attachment; filename="%b"'),
    "origin": field(b"origin", b"https://%b.test"),
    "forwarded": field(b"x-forwarded-for", b"%b"),
    "trace": field(b"tracestate", b"a=%b"),
    "trailer": lambda p, s: send(p, body=b"x", trailers=((b"x-note", s),)),
    "name of a trailer": lambda p, s: send(p, body=b"x", trailers=((s, b"1"),)),
    "text": body(b"%b"),
    "json": body(b'{"a": ["%b"]}', b"application/json"),
    "json key": body(b'{"%b": 1}', b"application/json"),
    "json in json": lambda p, s: send(
        p, body=json.dumps({"c": json.dumps({"d": s.decode("latin-1")})}).encode()
    ),
    "form": body(b"a=1&k=%b&z=2", b"application/x-www-form-urlencoded"),
    "xml": body(b'<a k="v">%b</a>', b"text/xml"),
    "attribute": body(b"<a k='%b'/>", b"text/xml"),
    "csv": body(b"1,%b,3\n", b"text/csv"),
    "yaml": body(b"key: %b\n"),
    "event": body(b"data: %b\n\n", b"text/event-stream"),
    "part": body(b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n%b\r\n--x--', MULTIPART),
    "name of a part": body(b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n1', MULTIPART),
    "file name": body(b'--x\r\nContent-Disposition: form-data; filename="%b"\r\n\r\n1', MULTIPART),
    "encoded file name": body(b"--x\r\nContent-Disposition: a; filename*=UTF-8''%b\r\n\r\n1"),
    "field of a part": body(b"--x\r\nX-Note: %b\r\n\r\n1\r\n--x--", MULTIPART),
    "rpc": body(b'[{"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"t": "%b"}}]'),
    "url in a text": body(b"go to https://one.test/?k=%b now"),
    "protobuf": lambda p, s: send(p, body=protobuf(s)),
    "grpc": grpc(),
    "grpc, compressed": grpc(gzip.compress),
    "gzip": coded(b"gzip", gzip.compress),
    "brotli": coded(b"br", brotli.compress),
    "zstd": coded(b"zstd", zstandard.compress),
    "two codings": coded(b"gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    "message": message(),
    "later message": message(b"hello", b'{"n": 1}'),
}
NAMES: dict[str, Refused] = {
    "labels of a query": query,
    "labels of queries": queries,
    "labels of a connection": connect,
    "labels of a request": lambda p, s: send(p, host=labels(s)),
}
Wrap = Callable[[bytes], bytes]
WRAPS: dict[str, Wrap] = {
    "clear": lambda s: s,
    "base64": base64.b64encode,
    "base64, shifted": lambda s: base64.b64encode(b"x:" + s),
    "base64url": lambda s: base64.urlsafe_b64encode(b"k=" + s).rstrip(b"="),
    "base64 twice": lambda s: base64.b64encode(base64.b64encode(s)),
    "base32": lambda s: base64.b32encode(s).rstrip(b"="),
    "hex": lambda s: s.hex().encode(),
    "hex, upper case": lambda s: s.hex().upper().encode(),
    "percent": lambda s: b"".join(b"%%%02x" % c for c in s),
    "reversed": lambda s: s[::-1],
    "gzip in base64": lambda s: base64.b64encode(gzip.compress(b"key: " + s)),
}
NAME_WRAPS: dict[str, Wrap] = {
    "base32": lambda s: base64.b32encode(s).rstrip(b"=").lower(),
    "hex": WRAPS["hex"],
}
NOT_FOUND = {(place, "reversed") for place in ("protobuf", "grpc", "grpc, compressed")}
"""Place and wrapping of a token that pass today: what is turned round is looked for in text."""


@pytest.mark.parametrize("secret", [TOKEN, VALUE], ids=["rule", "registered"])
@pytest.mark.parametrize("wrap", WRAPS, ids=str)
def test_a_planted_secret_is_refused_in_every_place(
    make_pipeline: Callable[[], Pipeline], wrap: str, secret: str
) -> None:
    planted = WRAPS[wrap](secret.encode())
    passed = {
        (place, wrap) for place, plant in PLACES.items() if not plant(make_pipeline(), planted)
    }
    known = {pair for pair in NOT_FOUND if pair[1] == wrap and secret == TOKEN}
    assert passed == known


@pytest.mark.parametrize("secret", [TOKEN, VALUE], ids=["rule", "registered"])
@pytest.mark.parametrize("wrap", NAME_WRAPS, ids=str)
def test_a_secret_in_the_labels_of_names_is_refused(
    make_pipeline: Callable[[], Pipeline], wrap: str, secret: str
) -> None:
    planted = NAME_WRAPS[wrap](secret.encode())
    found = {place: plant(make_pipeline(), planted) for place, plant in NAMES.items()}
    assert set().union(*found.values()) == {Reason.SECRET_FOUND.value}
    assert all(found.values())


def test_honest_content_passes_in_every_place(make_pipeline: Callable[[], Pipeline]) -> None:
    refused = {place: plant(make_pipeline(), b"honest-text") for place, plant in PLACES.items()}
    assert not {place for place, reasons in refused.items() if reasons}


ONE, TWO, THREE = VALUE[:13], VALUE[13:26], VALUE[26:]
SPLIT: dict[str, Callable[[Pipeline], set[str]]] = {
    "parameters of a query": lambda p: send(p, f"/?a={ONE}&b={TWO}&c={THREE}"),
    "a body and its trailers": lambda p: send(
        p, body=VALUE[:20].encode(), trailers=((b"x-sum", VALUE[20:].encode()),)
    ),
    "trailers": lambda p: send(
        p, body=b"x", trailers=((b"x-a", VALUE[:20].encode()), (b"x-b", VALUE[20:].encode()))
    ),
    "words of a body": lambda p: send(p, body=f"{ONE} and {TWO} and {THREE}".encode()),
}


@pytest.mark.parametrize("how", SPLIT, ids=str)
def test_a_registered_value_that_one_request_says_in_pieces_is_refused(
    make_pipeline: Callable[[], Pipeline], how: str
) -> None:
    assert SPLIT[how](make_pipeline()) == {Reason.SECRET_FOUND.value}


def test_the_beginning_that_long_values_share_is_no_leak(
    make_pipeline: Callable[[], Pipeline],
) -> None:
    assert send(make_pipeline(), f"/?a={VALUE[:22]}") == set()


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_a_credential_goes_home_also_when_it_changes(
    make_home: Callable[[], Pipeline], scheme: str
) -> None:
    pipeline = make_home()
    for value in (TOKEN, VALUE, token(98), token(97), VALUE, TOKEN):
        said = base64.b64encode(f"x:{value}".encode()).decode() if scheme == "Basic" else value
        assert send(pipeline, fields=((b"authorization", f"{scheme} {said}".encode()),)) == set()
    assert send(pipeline, fields=((b"x-note", TOKEN.encode()),)) == {Reason.SECRET_FOUND.value}
