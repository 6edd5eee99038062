"""Play the inputs of a case, and hold what happened against what the case says.

One player a ``kind``. A refused input shows three things: the reason reached whoever asked,
the refusal is in the record, and the origin saw nothing of it; then a plain request shows
that the proxy still serves.
"""

from __future__ import annotations

import ast
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bypass_faults
import bypass_record
import entries
import websockets.exceptions
import websockets.sync.client
from bypass_cases import Case
from bypass_forms import Filled, as_bytes
from bypass_lab import POLICY_FILE, Labs
from egress_lab import CANARY, Proxy, read_answer
from h2_client import H2Client

ROOT = Path(__file__).parent.parent.parent
ENTRIES = {
    "tls": "allowed.test",
    "cleartext": "plain.test",
    "absolute": "plain.test",
    "socks": "allowed.test",
    "captured": "allowed.test",
    "captured-cleartext": "plain.test",
}
SOMEWHERE = "203.0.113.7"
STATUSES = {
    "malformed": 400,
    "limit_exceeded": 431,
    "upstream_failed": 502,
    "upstream_untrusted": 502,
}
_KNOWN = frozenset(
    {
        "kind", "passes", "reason", "entries", "host", "connect", "sni", "head", "raw", "body",
        "chunks", "extension", "trailers", "coding", "zeros", "fields", "begins", "answer",
        "lacks", "cut", "fault", "answers", "lookups", "recorded", "hosts", "event", "events",
        "policy", "says", "headers", "messages", "ping", "tamper", "code", "test", "message",
        "origin_lacks", "lines",
    }
)  # fmt: skip
_SHOWN_BYTES = 8
_SOCKS_NAME_MAX = 255

RunCli = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a player may use."""

    labs: Labs
    cli: RunCli
    probes: Callable[[], dict[str, str]]
    directory: Path


def play(case: Case, stage: Stage) -> None:
    """Play every input of a case; raises ``AssertionError`` where it is not as the case says."""
    stage.labs.forget_pieces()
    for number, given in enumerate(case.inputs, start=1):
        unknown = set(given) - _KNOWN
        assert not unknown, f"input {number}: unknown keys {unknown}"
        assert given["kind"] in PLAYERS, f"input {number}: unknown kind {given['kind']}"
        passes = given.get("passes", case.is_gap)
        reason = "allowed" if passes else given.get("reason", case.reason)
        assert reason, f"input {number}: what is refused has a reason"
        PLAYERS[given["kind"]](case, given, stage, reason)


# what the proxy is sent ---------------------------------------------------------------


class Watch:
    """What the origin and the record hold since now."""

    def __init__(self, labs: Labs, proxy: Proxy, what: str) -> None:
        self.proxy, self.what, self._labs = proxy, what, labs
        self._dialled_before = len(labs.dialled)
        self._seen_before = len(proxy.origin.requests)
        self._records_before = len(proxy.journal.records)

    @property
    def seen(self) -> list[Any]:
        return self.proxy.origin.requests[self._seen_before :]

    @property
    def records(self) -> list[Any]:
        return self.proxy.journal.records[self._records_before :]

    def at_origin(self) -> bytes:
        """All bytes that the origin was sent."""
        return b"".join(s.head + s.chunk_lines + bytes(s.body) + s.trailers for s in self.seen)

    def refused(self, reason: str, forms: list[bytes], *, begins: bool) -> None:
        """Nothing of it at the origin, the refusal recorded, no secret told."""
        if reason != "record_failed":
            self.proxy.wait_for(
                lambda: any(r.reason == reason for r in self.records),
                f"{self.what}: {reason} recorded",
            )
        dialled = self._labs.dialled[self._dialled_before :]
        if not begins and not reason.startswith("upstream_"):
            assert not dialled, f"{self.what}: {dialled} was dialled"
        assert begins or not self.seen, f"{self.what}: the origin saw {self.seen}"
        assert not any(s.complete for s in self.seen), f"{self.what}: a whole request went out"
        sent = self.at_origin()
        assert not any(form[:_SHOWN_BYTES] in sent for form in forms), f"{self.what}: it leaked"
        assert CANARY.decode() not in repr(self.records), f"{self.what}: the record tells it"

    def passed(self, forms: list[bytes]) -> None:
        """It arrived whole, with what it carries."""
        assert self.seen, f"{self.what}: the origin saw nothing"
        assert self.seen[-1].complete, f"{self.what}: it did not arrive whole"
        sent = self.at_origin()
        assert all(form in sent for form in forms), f"{self.what}: the origin saw {sent[:500]!r}"


def play_request(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """HTTP/1 through each entry: CONNECT, SOCKS and captured, with TLS and plain; absolute form."""
    proxy = stage.labs[case.lab]
    for name, answers in given.get("answers", {}).items():
        stage.labs.resolver.say(name, answers)
    for entry in given.get("entries", ENTRIES):
        host = given.get("host", ENTRIES[entry])
        host = host.replace("{plain}", str(proxy.origin.plain_port))
        host = host.replace("{own}", str(proxy.port))
        url = f"http://{host}" if entry == "absolute" else ""
        filled = Filled(
            host=host, url=url, proxy_port=proxy.port, plain_port=proxy.origin.plain_port
        )
        data = filled.request(given)
        what = f"{given['kind']} by {entry}: {data[:120]!r}"
        watch = Watch(stage.labs, proxy, what)
        answer = _send(proxy, entry, host, given, data)
        if answer is None:  # neither a SOCKS reply nor a TLS alert has words
            assert reason != "allowed", f"{what}: refused"
        else:
            _judge_answer(answer, given, reason, what)
        if reason == "allowed":
            proxy.wait_for(lambda w=watch: w.seen and w.seen[-1].complete, what)
            watch.passed(filled.forms)
        else:
            watch.refused(reason, filled.forms, begins=given.get("begins", False))
            _still_serves(proxy)
        _judge_more(watch, given)
    for name, count in given.get("lookups", {}).items():
        assert stage.labs.resolver.lookups[name] == count, f"{name} was looked up another time"


def _judge_answer(answer: bytes, given: dict[str, Any], reason: str, what: str) -> None:
    status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
    expected = given.get("answer", 200 if reason == "allowed" else STATUSES.get(reason, 403))
    assert status == expected, f"{what}: answered {answer[:300]!r}"
    if reason != "allowed" and expected:
        assert b"AESP-Reason: %b\r\n" % reason.encode() in answer, f"{what}: {answer[:300]!r}"
        assert CANARY not in answer, f"{what}: the answer tells the secret"
    for text in given.get("lacks", ()):
        assert text.encode().lower() not in answer.lower(), f"{what}: {answer[:300]!r}"


def _judge_more(watch: Watch, given: dict[str, Any]) -> None:
    for name, value in given.get("recorded", {}).items():
        told = {str(getattr(record, name)) for record in watch.records}
        assert told == {value}, f"{watch.what}: {name} was recorded as {told}"
    for part in given.get("message", ()):
        assert any(part in record.message for record in watch.records), f"{part} is not recorded"
    for part in given.get("origin_lacks", ()):
        assert part.encode() not in watch.at_origin(), f"the origin saw {part}"


def _send(proxy: Proxy, entry: str, host: str, given: dict[str, Any], data: bytes) -> bytes | None:
    with _entered(proxy, entry, host, given) as (sock, refusal):
        if sock is None or refusal:
            return refusal or None
        with bypass_faults.FAULTS[given.get("fault", "none")](proxy):
            cut = given.get("cut", 0)
            at = data.index(CANARY) + cut if cut else 0
            try:
                if at:
                    sock.sendall(data[:at])
                sock.sendall(data[at:])
            except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
                pass  # the refusal came while we were sending
            return read_answer(sock)


@contextmanager
def _entered(
    proxy: Proxy, entry: str, host: str, given: dict[str, Any]
) -> Iterator[tuple[socket.socket | None, bytes]]:
    """Give a socket behind the entry, or the refusal of its CONNECT; no socket: without words."""
    if entry == "socks" or entry.startswith("captured"):
        with _entered_otherwise(proxy, entry, host, given) as sock:
            yield sock, b""
        return
    if entry == "absolute":
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
            yield sock, b""
        return
    sock, answer = proxy.connect(given.get("connect", f"{host}:{443 if entry == 'tls' else 80}"))
    with sock:
        if not answer.startswith(b"HTTP/1.1 200 "):
            yield sock, answer
        elif entry == "cleartext":
            yield sock, b""
        else:
            with _wrapped(proxy, sock, given.get("sni", host)) as tls:
                yield tls, b""


@contextmanager
def _entered_otherwise(
    proxy: Proxy, entry: str, host: str, given: dict[str, Any]
) -> Iterator[socket.socket | None]:
    """Come in by SOCKS or captured; nothing where that is refused."""
    name, _, port = host.partition(":")
    if entry == "socks":
        sock, code = entries.socks(proxy.port, name.encode(), int(port or 443))
    else:
        web = 443 if entry == "captured" else 80
        place = proxy.capture(SOMEWHERE, int(port or web))
        sock, code = socket.create_connection(place, 10), 0
    with sock:
        if code or entry == "captured-cleartext":
            yield None if code else sock
            return
        try:
            tls = _wrapped(proxy, sock, given.get("sni", name))
        except (ssl.SSLError, ConnectionError):
            yield None
            return
        with tls:
            yield tls


def _wrapped(proxy: Proxy, sock: socket.socket, sni: str, alpn: str = "http/1.1") -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    context.check_hostname = False  # whoever attacks does not mind
    context.set_alpn_protocols([alpn])
    return context.wrap_socket(sock, server_hostname=sni or None)


def _still_serves(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(b"GET http://plain.test/control HTTP/1.1\r\nHost: plain.test\r\n\r\n")
        answer = read_answer(sock)
    assert answer.startswith(b"HTTP/1.1 200 "), f"afterwards: {answer[:200]!r}"


def play_host(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """Host spellings: in CONNECT to 443 and 80, absolute form, SOCKS, SNI, told to ``check``."""
    through = given.get("entries", ["connect", "absolute", "check", "socks", "captured"])
    proxy = stage.labs[case.lab]
    for host in given["hosts"]:
        spelled = Filled(host="", url="", proxy_port=proxy.port).text(host)
        heads = {
            "connect": b"CONNECT %b:443 HTTP/1.1\r\nHost: %b:443\r\n\r\n",
            "cleartext": b"CONNECT %b:80 HTTP/1.1\r\nHost: %b:80\r\n\r\n",
            "absolute": b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n",
        }
        heads = {name: head for name, head in heads.items() if name in through} | (
            {"cleartext": heads["cleartext"]} if "connect" in through else {}
        )
        for entry, head in heads.items():
            watch = Watch(stage.labs, proxy, f"host {host!r} by {entry}")
            answer = _raw(proxy, head % (spelled, spelled))
            _judge_answer(answer, given, reason, watch.what)
            watch.refused(reason, [], begins=False)
        if "socks" in through and len(spelled) <= _SOCKS_NAME_MAX:
            _spell_to_socks(stage.labs, proxy, spelled, reason)
        if "captured" in through:
            _spell_in_tls(stage.labs, proxy, spelled, reason)
    if "check" in through:
        events = [_network(host) for host in given["hosts"]]
        _judge_check(events, None, stage, reason)
    _still_serves(proxy)


def _spell_to_socks(labs: Labs, proxy: Proxy, spelled: bytes, reason: str) -> None:
    watch = Watch(labs, proxy, f"host {spelled!r} by SOCKS")
    sock, code = entries.socks(proxy.port, spelled, 443)
    sock.close()
    expected = entries.SOCKS_REPLIES.get(reason, entries.REFUSED)
    assert code == expected, f"{watch.what}: replied {code}"
    if reason != "allowed":
        watch.refused(reason, [], begins=False)


def _spell_in_tls(labs: Labs, proxy: Proxy, spelled: bytes, reason: str) -> None:
    """Spell a host as the server name of captured TLS, where an address is malformed too."""
    watch = Watch(labs, proxy, f"host {spelled!r} as a server name")
    with socket.create_connection(proxy.capture(SOMEWHERE, 443), 10) as sock:
        sock.sendall(entries.hello_of(spelled))
        assert entries.rest(sock)[:1] == b"\x15", f"{watch.what}: no alert"
    proxy.wait_for(lambda: watch.records, f"{watch.what}: recorded")
    told = watch.records[0].reason
    assert told in {reason, "malformed"}, f"{watch.what}: {told}"
    watch.refused(told, [], begins=False)


def play_first(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """Bytes as the first on a connection to the proxy, before there is any tunnel."""
    proxy = stage.labs[case.lab]
    filled = Filled(host="plain.test", url="http://plain.test", proxy_port=proxy.port)
    watch = Watch(stage.labs, proxy, f"first bytes {given['raw'][:80]!r}")
    answer = _raw(proxy, filled.text(given["raw"]))
    _judge_answer(answer, given, reason, watch.what)
    if reason == "allowed":
        watch.passed(filled.forms)
    else:
        watch.refused(reason, filled.forms, begins=False)
        _still_serves(proxy)


def play_socks(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """SOCKS5 requests for names as they are written, or ``raw`` bytes of SOCKS."""
    proxy = stage.labs[case.lab]
    for host in given.get("hosts", ()):
        _spell_to_socks(stage.labs, proxy, as_bytes(host), reason)
    if "raw" in given:
        watch = Watch(stage.labs, proxy, f"SOCKS {given['raw']!r}")
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
            sock.sendall(as_bytes(given["raw"]))
            entries.rest(sock)
        watch.refused(reason, [], begins=False)
    _still_serves(proxy)


def _raw(proxy: Proxy, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(data)
        return read_answer(sock)


def play_h2(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """HTTP/2 inside a tunnel, its fields sent as they are; ``answer = 0`` is a reset."""
    proxy = stage.labs[case.lab]
    filled = Filled(host="allowed.test", url="", proxy_port=proxy.port)
    headers = [(k, filled.text(v).decode("utf-8")) for k, v in given["headers"]]
    body = filled.body(given)
    watch = Watch(stage.labs, proxy, f"HTTP/2 {headers}")
    sock, answer = proxy.connect("allowed.test:443")
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    with _wrapped(proxy, sock, "allowed.test", "h2") as tls:
        client = H2Client(tls, is_honest=False)
        status, told = client.send(headers, body)
    if "grpc-status" in client.fields:
        # gRPC's refusals stand in the fields of a response that HTTP finds nothing wrong with.
        status, told = 403, json.dumps({"reason": client.fields["aesp-reason"]}).encode()
    expected = given.get("answer", 200 if reason == "allowed" else STATUSES.get(reason, 403))
    assert (status or 0) == expected, f"{watch.what}: answered {status} {told[:300]!r}"
    if reason == "allowed":
        watch.passed(filled.forms)
        return
    if expected:
        assert json.loads(told)["reason"] == reason, watch.what
        watch.refused(reason, filled.forms, begins=given.get("begins", False))
    assert not any(seen.complete for seen in watch.seen), watch.what
    _still_serves(proxy)


def play_websocket(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """WebSocket messages with permessage-deflate; those before the last must come back."""
    proxy, echo = stage.labs[case.lab], stage.labs.echo
    filled = Filled(host="ws.test", url="", proxy_port=proxy.port)
    messages = [filled.text(m).decode() + "\0" * given.get("zeros", 0) for m in given["messages"]]
    watch, before = Watch(stage.labs, proxy, "WebSocket"), len(echo.received)
    sock, answer = proxy.connect("ws.test:80")
    assert b" 200 " in answer
    closed = None
    with websockets.sync.client.connect(
        "ws://ws.test/", sock=sock, proxy=None, max_size=None
    ) as client:
        assert client.response is not None
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        try:
            if "ping" in given:
                client.ping(filled.text(given["ping"]))
            for message in messages:
                client.send(message)
                assert client.recv(10) == message
        except websockets.exceptions.ConnectionClosed as error:
            closed = error
    if reason == "allowed":
        assert closed is None
        assert echo.received[before:] == messages
        return
    assert closed is not None, "the connection was not closed"
    assert closed.rcvd is not None
    assert closed.rcvd.code in (1008, 1009), closed
    watch.refused(reason, [], begins=True)
    assert echo.received[before:] == ([] if "ping" in given else messages[:-1]), "it leaked"


# what is announced, loaded, recorded, tried on this machine ----------------------------


def _network(host: str) -> dict[str, Any]:
    return {"eventType": "network_egress", "data": {"host": host, "port": 443}}


def play_event(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """Events announced to ``check``, decided by the case's policy or the common one."""
    events = given.get("events") or [given["event"]]
    policy = None
    if "policy" in given:
        policy = stage.directory / "policy.yaml"
        policy.write_text(given["policy"], "utf-8")
    _judge_check(events, policy, stage, reason)


def _judge_check(
    events: list[dict[str, Any]], policy: Path | None, stage: Stage, reason: str
) -> None:
    lines = [
        json.dumps({"eventId": str(number), "sessionId": "s", **event}, ensure_ascii=False)
        for number, event in enumerate(events)
    ]
    _judge_lines(lines, policy, stage, reason)


def _judge_lines(lines: list[str], policy: Path | None, stage: Stage, reason: str) -> None:
    """Have lines decided; without a policy by the common one, its secrets only where needed."""
    if policy is None:
        policy = stage.directory / "common.yaml"
        has_secret = any("{canary" in line for line in lines)
        policy.write_text(POLICY_FILE.read_text("utf-8") if has_secret else _without_secrets())
    filled, file = Filled(host="", url="", proxy_port=0), stage.directory / "events.jsonl"
    data = [filled.text(t) if "{canary" in t or "{fill" in t else t.encode() for t in lines]
    file.write_bytes(b"\n".join(data))
    code, out, err = stage.cli("check", "--policy", policy, "--events", file)
    told = [json.loads(line) for line in out.splitlines()]
    assert len(told) == len(lines), (out, err)
    for line, answer in zip(lines, told, strict=True):
        assert answer["reason"] == reason, f"{line[:300]}: {answer}"
    assert code == (0 if reason == "allowed" else 2), (code, err)
    assert out.isascii()
    assert CANARY.decode() not in out


def _without_secrets() -> str:
    """The common policy without the rules that take half a second to load."""
    before, _, rest = POLICY_FILE.read_text("utf-8").partition("  secret_leak:\n")
    return before + "  secret_leak: {enabled: false}\n" + rest[rest.index("  forbidden_path:") :]


def play_lines(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """Lines that are no events, given to ``check`` as they are."""
    lines = [
        line.replace("{nested}", "[" * 100_000).replace("{digits}", "9" * 10_000)
        for line in given["lines"]
    ]
    _judge_lines(lines, None, stage, reason)


def play_policy(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """A policy that must not load: exit code 3, one line that says why, no decision."""
    assert reason == "not_loaded", reason
    policy = stage.directory / "policy.yaml"
    text = Filled(host="", url="", proxy_port=0).text(given["policy"])
    policy.write_bytes(text)
    event = json.dumps({"eventId": "1", **_network("allowed.test")})
    code, out, err = stage.cli("check", "--policy", policy, "--event", event)
    assert (code, out) == (3, ""), (code, out, err)
    assert given["says"] in err, err
    assert err.count("\n") == 1


def play_record(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """A record tampered with, then verified by the command."""
    state = bypass_record.sealed_state(stage.directory / f"state-{given['tamper']}")
    more = bypass_record.TAMPERS[given["tamper"]](state)
    code, out, err = stage.cli("audit", "verify", state.directory, "--json", *more)
    report = json.loads(out)
    kinds = {problem["kind"] for problem in report["problems"]}
    if reason == "allowed":
        assert (code, kinds) == (0, set()), (out, err)
    else:
        assert code == 1, (out, err)
        assert reason in kinds, out


def play_told(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """What ``audit tail`` prints of all that this proxy has recorded drives no terminal."""
    state = stage.labs[case.lab].directory / "state"
    for words in (("-n", "500"), ("-n", "500", "--json")):
        code, out, err = stage.cli("audit", "tail", "--state", state, *words)
        assert (code, err) == (0, "")
        assert reason in out
        assert all(c.isprintable() or c == "\n" for c in out), out


def play_probe(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """Python code that a command under ``aesp-proxy run`` has executed; its ``through`` counts."""
    told = stage.probes()[case.name]
    assert (told == "through") == (reason == "allowed"), f"the probe said: {told}"


def play_proof(case: Case, given: dict[str, Any], stage: Stage, reason: str) -> None:
    """Another test shows it: that test must exist."""
    file, _, name = given["test"].partition("::")
    tree = ast.parse((ROOT / file).read_bytes())
    assert any(isinstance(n, ast.FunctionDef) and n.name == name for n in ast.walk(tree)), given


PLAYERS: dict[str, Callable[[Case, dict[str, Any], Stage, str], None]] = {
    "request": play_request,
    "host": play_host,
    "first": play_first,
    "socks": play_socks,
    "h2": play_h2,
    "websocket": play_websocket,
    "event": play_event,
    "lines": play_lines,
    "policy": play_policy,
    "record": play_record,
    "told": play_told,
    "probe": play_probe,
    "proof": play_proof,
}
