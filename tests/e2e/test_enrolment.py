"""A host enrols itself at a running aggregator: real TLS, real processes, loopback only."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aesp_proxy import keys
from aesp_proxy.aggregator.admission import Wanted, make_token, trust
from aesp_proxy.aggregator.identity import DataDir, prepare
from aesp_proxy.aggregator.ports import Identity, Role
from aesp_proxy.aggregator.store.control import SqliteControl
from aesp_proxy.cli import main
from aesp_proxy.errors import AespError, ConfigError, TrustError, UnavailableError
from aesp_proxy.forward import enrol as enrolling
from aesp_proxy.forward import renewal
from aesp_proxy.forward.enrol import enrol
from aesp_proxy.forward.ship_process import ShipLoop, make_shipper
from aesp_proxy.forward.transport import Answer, HttpsTransport, load_destination
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record import rotation
from aesp_proxy.record.csr import asked_key, make_csr, new_key_pem
from aesp_proxy.record.enrolment import Token, signed_request
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.keys import load_signing_key
from aesp_proxy.record.sealer import SealerOptions
from aesp_proxy.record.sealer_process import open_sealer
from aesp_proxy.record.signature import new_private_pem, signer_from_pem
from aesp_proxy.record.state import audit_paths, load_origin

SERVE = (
    "import sys; from aesp_proxy.cli import main; main(['aggregator', 'serve', '--data',"
    " sys.argv[1], '--listen', '127.0.0.1:0', '--ready-fd', sys.argv[2]])"
)


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Region:
    """A running aggregator."""

    data: DataDir
    url: str

    def token(self, **wanted: object) -> Token:
        return make_token(self.data, Wanted(**wanted), now=now())  # type: ignore[arg-type]

    @contextlib.contextmanager
    def control(self) -> Iterator[SqliteControl]:
        control = SqliteControl(self.data.control)
        try:
            yield control
        finally:
            control.close()

    def say(self, token: Token, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Say anything at all with a token's certificate."""
        context = ssl.create_default_context(cafile=self.data.ca)
        enrolling._load_identity(context, token.combined_pem(), "")
        connection = http.client.HTTPSConnection(self.url[8:], timeout=20, context=context)
        with contextlib.closing(connection):
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.read()


@pytest.fixture(scope="module")
def enterprise() -> keys.KeyPair:
    """An authority that the aggregator does not have the key of."""
    return new_authority()


def new_authority() -> keys.KeyPair:
    cert_pem, key_pem = keys.make_ca("an enterprise", now=now())
    return keys.KeyPair(cert_pem=cert_pem, key_pem=key_pem)


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory, enterprise: keys.KeyPair) -> Iterator[Region]:
    data = tmp_path_factory.mktemp("region") / "data"
    (data.parent / "enterprise.pem").write_bytes(enterprise.cert_pem)
    trust(prepare(data, now=now()), data.parent / "enterprise.pem", now=now())
    ready, told = os.pipe()
    with (data.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(data), str(told)], pass_fds=[told], stderr=log
        )
    os.close(told)
    try:
        with os.fdopen(ready, "rb") as stream:
            url = json.loads(stream.readline())["url"]
        yield Region(data=DataDir(data), url=url)
    finally:
        process.terminate()
        assert process.wait(30) == 0


@dataclass
class Host:
    """A host with a state of its own."""

    state: Path

    @property
    def forward(self) -> Path:
        return self.state / "forward"

    def enrol(self, region: Region, token: Token, *, origin: str = "", at: datetime | None = None):
        return enrol(self.state, self.forward, region.url, token, origin=origin, now=at or now())

    def seal(self, count: int = 3) -> None:
        with Journal.open(self.state, background=False) as journal:
            for _ in range(count):
                journal.append(
                    Record(
                        kind=RecordKind.DECISION, time_ns=1, event_type="t", action="a",
                        outcome=Outcome.SUCCESS, verdict="allow", reason="allowed", guard="g",
                        severity="info", message="", resource="r", tenant_id="acme",
                    )
                )  # fmt: skip
        self.tick()

    def tick(self) -> None:
        paths = audit_paths(self.state)
        open_sealer(paths, load_origin(paths), SealerOptions(heartbeat_s=0)).tick(drain=True)

    def ship(self) -> int:
        shipper, transport = make_shipper(audit_paths(self.state), self.forward)
        with contextlib.closing(transport):
            return shipper.ship_once().covered


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture
def new_host(tmp_path: Path):
    return lambda name: Host(tmp_path / name)


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_a_host_enrols_itself_with_two_commands_and_ships(
    region: Region, host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["aggregator", "token", "--data", region.data.root, "--tenant", "acme"]
    code, out, err = run(*made, "--label", "env=prod", capsys=capsys)
    assert (code, out.count("\n")) == (0, 1)
    token = tmp_path / "token"
    token.write_text(out)
    arguments = ["enroll", "--aggregator", region.url, "--token", f"@{token}"]
    code, out, err = run(*arguments, "--state", host.state, "--origin", "h-build-7", capsys=capsys)
    assert (code, out) == (0, "")
    assert "enrolled as h-build-7" in err
    host.seal()
    assert host.ship() == 1
    with region.control() as control:
        assert control.labels("h-build-7") == {"env": "prod"}
    code, out, _ = run("aggregator", "token", "--data", region.data.root, "--list", capsys=capsys)
    assert (code, "used by h-build-7" in out) == (0, True)
    code, _, err = run(*arguments, "--state", tmp_path / "other", capsys=capsys)
    assert (code, "this token has been used (token_used)" in err) == (4, True)
    assert not (tmp_path / "other" / "forward" / "url").exists()


@pytest.fixture
def wrong_places(region: Region) -> Iterator[dict[str, str]]:
    """Addresses that are not the aggregator's: nobody, somebody without TLS, a wrong path."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        free = nobody.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            with contextlib.suppress(OSError):
                peer, _ = plain.accept()
                peer.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                peer.close()

        thread = threading.Thread(target=answer)
        thread.start()
        yield {
            "nobody": f"https://127.0.0.1:{free}",
            "nobody6": f"https://[::1]:{free}",
            "plain": f"https://127.0.0.1:{plain.getsockname()[1]}",
            "path": f"{region.url}/aesp",
            "http": "http://127.0.0.1:8443",
        }
        plain.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize(
    ("where", "code", "told"),
    [
        ("nobody", 4, "127.0.0.1:PORT: cannot be reached: Connection refused (check --aggregator"),
        ("nobody6", 4, "[::1]:PORT: cannot be reached: "),
        ("plain", 4, "127.0.0.1:PORT: speaks no TLS 1.3 (check --aggregator: is that its port?)"),
        (
            "path",
            4,
            "127.0.0.1:PORT: no aggregator answers there (check --aggregator: https://NAME",
        ),
        ("http", 3, "--aggregator: holds no https URL (give https://NAME:PORT)"),
    ],
)
def test_a_wrong_address_says_what_is_wrong_and_uses_no_token_up(
    region: Region, host: Host, wrong_places, capsys, monkeypatch, where: str, code: int, told: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    token = region.token().text()
    arguments = ["enroll", "--token", token, "--state", host.state, "--aggregator"]
    ended, _, err = run(*arguments, wrong_places[where], capsys=capsys)
    port = str(urlsplit(wrong_places[where]).port)
    assert (ended, err.count("\n")) == (code, 1)
    assert told.replace("PORT", port if told[0] != "-" else "PORT") in err
    assert run(*arguments, region.url, capsys=capsys)[0] == 0


def test_no_private_key_leaves_the_host(region: Region, host: Host, monkeypatch) -> None:
    said = []
    ask = enrolling._ask
    monkeypatch.setattr(enrolling, "_ask", lambda *a: (said.append(a[-1]), ask(*a))[1])
    host.enrol(region, region.token())
    assert [body is None for body in said] == [True, False]
    for file in (host.forward / "client.key", *audit_paths(host.state).keys.glob("*.key")):
        assert file.stat().st_mode & 0o077 == 0
        secret = file.read_bytes().splitlines()[1]
        assert secret not in said[1]
        assert not any(secret in path.read_bytes() for path in region.data.root.glob("*.sqlite*"))


def test_of_two_hosts_with_one_token_one_is_let_in(region: Region, new_host) -> None:
    token, answers = region.token(), {}

    def attempt(name: str) -> None:
        try:
            answers[name] = new_host(name).enrol(region, token).origin
        except AespError as error:
            answers[name] = error

    threads = [threading.Thread(target=attempt, args=(f"h{number}",)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [answer for answer in answers.values() if isinstance(answer, str)]
    losers = [answer for answer in answers.values() if not isinstance(answer, str)]
    assert (len(winners), len(losers)) == (1, 4)
    assert all("token_used" in str(error) for error in losers)


def test_a_lost_answer_is_asked_for_again_and_gives_the_same_certificate(
    region: Region, host: Host, monkeypatch
) -> None:
    token = region.token()

    def lose(*_: object) -> None:
        raise UnavailableError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(enrolling, "read_message", lose)
        with pytest.raises(UnavailableError, match="lost"):
            host.enrol(region, token)
    assert not (host.forward / "url").exists()
    origin = host.enrol(region, token).origin
    with region.control() as control:
        known = control.certificate(Identity(role=Role.HOST, name=origin))
    assert known is not None
    assert load_destination(host.forward).addresses[0].host == "127.0.0.1"
    assert {path.name for path in host.forward.iterdir()} == {
        "url", "ca.pem", "client.pem", "client.key", "aggregator.pub",
    }  # fmt: skip


def test_a_token_is_for_its_origin_and_a_refusal_does_not_use_it_up(
    region: Region, host: Host, new_host
) -> None:
    token = region.token(origin="h-mine")
    with pytest.raises(TrustError, match="token_for_other_origin"):
        host.enrol(region, token)
    assert new_host("mine").enrol(region, token, origin="h-mine").origin == "h-mine"


def test_a_token_of_another_aggregator_says_nothing_to_this_one(
    region: Region, host: Host, tmp_path: Path, monkeypatch
) -> None:
    other = prepare(tmp_path / "other", now=now())
    token = make_token(other, Wanted(), now=now())
    said = []
    ask = enrolling._ask
    monkeypatch.setattr(enrolling, "_ask", lambda *a: (said.append(a[-1]), ask(*a))[1])
    with pytest.raises(
        (TrustError, UnavailableError), match=r"another aggregator|ends the connection"
    ):
        host.enrol(region, token)
    assert said == [None]


def test_a_false_authority_is_found_before_anything_is_said(
    region: Region, host: Host, monkeypatch
) -> None:
    false_ca, _ = keys.make_ca("false", now=now())
    said = []

    def between(*arguments):
        said.append(arguments[-1])
        return false_ca

    monkeypatch.setattr(enrolling, "_ask", between)
    with pytest.raises(TrustError, match="another aggregator than the token is for"):
        host.enrol(region, region.token())
    assert said == [None]


def test_an_expired_token_is_refused_here_and_there(region: Region, host: Host) -> None:
    made = now() - timedelta(hours=2)
    token = make_token(region.data, Wanted(), now=made)
    with pytest.raises(ConfigError, match="the token has expired"):
        host.enrol(region, token)
    with pytest.raises(UnavailableError, match="is the token of this aggregator"):
        host.enrol(region, token, at=made)


def test_a_token_that_was_taken_back_lets_nobody_in(
    region: Region, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    token = region.token()
    name = token.fingerprint.hex()[:16]
    take = ["aggregator", "token", "--data", region.data.root, "--take-back", name]
    assert run(*take, capsys=capsys)[0] == 0
    with pytest.raises(TrustError, match="unknown_token"):
        host.enrol(region, token)
    assert run(*take, capsys=capsys)[0] == 3


def test_a_tokens_certificate_opens_nothing_else(region: Region) -> None:
    token = region.token()
    for method, path in (("GET", "/v1/events"), ("POST", "/v1/batches"), ("GET", "/v1/identity")):
        status, body = region.say(token, method, path)
        assert (status, json.loads(body)["code"]) == (403, "unknown_certificate"), path
    body = json.dumps({"csr": make_csr(new_key_pem(), "x").decode()}).encode()
    assert region.say(token, "POST", "/v1/renew", body)[0] == 403


def test_a_request_that_does_not_hold_is_refused_counted_and_uses_nothing_up(
    region: Region, host: Host
) -> None:
    token = region.token()
    public, sign = signer_from_pem(new_private_pem())
    stranger, _ = signer_from_pem(new_private_pem())
    csr = make_csr(new_key_pem(), "x")
    good = signed_request("h-x", csr, public, sign, token=token.fingerprint)
    replaced = json.loads(good.encode()) | {"csr": make_csr(new_key_pem(), "x").decode()}
    bodies = [
        b"",
        b"[" * 10_000,
        b"{}",
        json.dumps(replaced).encode(),
        json.dumps(json.loads(good.encode()) | {"origin": "../x"}).encode(),
        json.dumps(json.loads(good.encode()) | {"origin": "h-y"}).encode(),
        signed_request("h-x", csr, stranger, sign, token=token.fingerprint).encode(),
        signed_request("h-x", csr, public, sign, token=bytes(32)).encode(),
        signed_request("h-x", csr[:-60], public, sign, token=token.fingerprint).encode(),
    ]
    for body in bodies:
        status, answer = region.say(token, "POST", "/v1/enroll", body)
        assert (status, json.loads(answer)["code"]) == (422, "bad_request"), body[:80]
    assert region.say(token, "POST", "/v1/enroll", b"x" * 20_000)[0] == 413
    with region.control() as control:
        (counted,) = [row for row in control.refusals("enrolment") if row.kind == "bad_request"]
        assert counted.count >= len(bodies)
        assert control.origin("h-x") is None
    assert host.enrol(region, token).origin


def test_an_origin_stays_its_hosts_whatever_token_another_has(
    region: Region, host: Host, new_host
) -> None:
    host.enrol(region, region.token(tenants=("acme",)), origin="h-taken")
    with pytest.raises(TrustError, match="origin_taken"):
        new_host("thief").enrol(region, region.token(), origin="h-taken")
    host.seal()
    assert host.ship() == 1


def test_a_revoked_host_is_refused_at_its_next_request_and_a_new_token_lets_it_in(
    region: Region, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = host.enrol(region, region.token(tenants=("acme",))).origin
    host.seal()
    shipper, transport = make_shipper(audit_paths(host.state), host.forward)
    with contextlib.closing(transport):
        assert shipper.ship_once().covered == 1
        host.seal()
        revoke = ["aggregator", "revoke", "--data", region.data.root, origin]
        assert run(*revoke, capsys=capsys)[0] == 0
        with pytest.raises(TrustError, match=r"unknown_certificate: revoked or ended\? enrol"):
            shipper.ship_once()
        with pytest.raises(TrustError, match="does not renew"):
            renewal.renew(host.forward, transport, now=now())
    host.enrol(region, region.token())
    assert host.ship() == 2


def test_a_certificate_is_renewed_in_time_and_the_one_before_it_still_opens(
    region: Region, host: Host
) -> None:
    origin = host.enrol(region, region.token(tenants=("acme",))).origin
    assert not renewal.is_due(host.forward, now=now() + timedelta(days=59))
    assert renewal.is_due(host.forward, now=now() + timedelta(days=61))
    first = HttpsTransport(load_destination(host.forward))
    before = (host.forward / "client.pem").read_bytes()
    with contextlib.closing(first):
        for _ in range(2):
            renewal.renew(host.forward, first, now=now())
        assert (host.forward / "client.pem").read_bytes() != before
        host.seal()
        assert host.ship() == 1
        # As if the answer had been lost: the old certificate asks again.
        renewal.renew(host.forward, first, now=now())
    with region.control() as control:
        sql = "SELECT count(*) FROM certificates WHERE name = ? AND revoked_ns IS NULL"
        assert control._database.rows(sql, (origin,))[0][0] == 2
    host.seal()
    assert host.ship() == 2


def ship_to_the_end(host: Host) -> bytes:
    """Run the shipping process' loop until its control stream has ended; the newest receipt."""
    control, other_end = os.pipe()
    os.close(other_end)
    loop = ShipLoop(audit_paths(host.state), host.forward, control)
    try:
        loop.run()
    finally:
        os.close(control)
        if loop._lock is not None:
            loop._lock.release()  # a process gives it back by ending
    return audit_paths(host.state).receipt.read_bytes()


def test_the_process_that_ships_renews_when_it_is_time_and_ships_on(
    region: Region, host: Host, monkeypatch
) -> None:
    host.enrol(region, region.token(tenants=("acme",)))
    host.seal()
    before = (host.forward / "client.pem").read_bytes()
    assert ship_to_the_end(host)
    assert (host.forward / "client.pem").read_bytes() == before
    monkeypatch.setattr(renewal, "is_due", lambda *_, **__: True)
    host.seal()
    first = ship_to_the_end(host)
    assert (host.forward / "client.pem").read_bytes() != before
    host.seal()
    assert ship_to_the_end(host) != first


def test_a_renewal_that_fails_is_said_and_does_not_hold_up_shipping(
    region: Region, host: Host, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TrustError("the aggregator does not renew this host's certificate")

    host.enrol(region, region.token(tenants=("acme",)))
    host.seal()
    monkeypatch.setattr(renewal, "is_due", lambda *_, **__: True)
    monkeypatch.setattr(renewal, "renew", refuse)
    assert ship_to_the_end(host)
    assert "does not renew" in capsys.readouterr().err


def test_an_answer_with_anothers_certificate_changes_nothing(
    region: Region, host: Host, monkeypatch
) -> None:
    host.enrol(region, region.token())
    before = (host.forward / "client.pem").read_bytes()
    ca_pem, ca_key = keys.make_ca("false", now=now())
    pair = keys.KeyPair(cert_pem=ca_pem, key_pem=ca_key)
    leaf, _ = keys.issue_leaf(pair, (), purpose=keys.Purpose.CLIENT, now=now(), days=9)
    answer = json.dumps({"certificate": leaf.decode()}).encode()
    monkeypatch.setattr(HttpsTransport, "send", lambda *_: Answer(status=200, body=answer))
    with pytest.raises(TrustError, match="not ours to use"):
        renewal.renew(host.forward, HttpsTransport(load_destination(host.forward)), now=now())
    assert (host.forward / "client.pem").read_bytes() == before


def test_a_host_whose_key_was_rotated_ships_on_and_enrols_again(region: Region, host: Host) -> None:
    host.enrol(region, region.token(tenants=("acme",)))
    host.seal()
    rotation.ask(audit_paths(host.state))
    host.tick()
    host.seal()
    assert host.ship() == 3
    host.enrol(region, region.token())
    host.seal()
    assert host.ship() == 4


def test_a_key_that_was_changed_before_enrolment_is_said_before_a_token_is_used(
    region: Region, host: Host
) -> None:
    host.seal()
    rotation.ask(audit_paths(host.state))
    host.tick()
    token = region.token()
    with pytest.raises(ConfigError, match="before it was enrolled"):
        host.enrol(region, token)
    with region.control() as control:
        (state,) = [s for s in control.tokens.all() if s.terms.fingerprint == token.fingerprint]
    assert state.used_ns is None
    assert load_signing_key(audit_paths(host.state)).key_id


def signed_by(authority: keys.KeyPair, csr_pem: bytes, *, days: int = 9) -> bytes:
    """Issue a certificate as an enterprise's own authority does."""
    return keys.certify(
        authority,
        asked_key(csr_pem),
        ("h-corp",),
        purpose=keys.Purpose.CLIENT,
        now=now(),
        not_after=now() + timedelta(days=days),
    )


def test_a_host_enrols_with_a_certificate_of_the_enterprises_own_authority(
    region: Region, host: Host, enterprise, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, certificate, token = (tmp_path / name for name in ("csr", "pem", "token"))
    asked = ["enroll", "--state", host.state, "--origin", "h-corp"]
    assert run(*asked, "--request", request, capsys=capsys)[0] == 0
    certificate.write_bytes(signed_by(enterprise, request.read_bytes()))
    token.write_text(region.token(tenants=("acme",)).text())
    told = ["--aggregator", region.url, "--token", f"@{token}", "--certificate", certificate]
    code, _, err = run(*asked, *told, capsys=capsys)
    assert (code, "enrolled as h-corp" in err) == (0, True), err
    assert (host.forward / "client.pem").read_bytes() == certificate.read_bytes()
    host.seal()
    assert host.ship() == 1
    transport = HttpsTransport(load_destination(host.forward))
    with contextlib.closing(transport), pytest.raises(TrustError, match="an authority of yours"):
        renewal.renew(host.forward, transport, now=now())


def test_a_certificate_of_an_authority_that_nobody_trusts_is_said_not_to_open(
    region: Region, host: Host
) -> None:
    csr = enrolling.request_certificate(host.state, host.forward, origin="")
    certificate = signed_by(new_authority(), csr)
    with pytest.raises(TrustError, match="its authority is not trusted there"):
        enrol(
            host.state, host.forward, region.url, region.token(),
            origin="", now=now(), certificate_pem=certificate,
        )  # fmt: skip
    assert not (host.forward / "url").exists()


def test_a_certificate_for_another_key_is_refused_here_and_there(
    region: Region, host: Host, enterprise, monkeypatch
) -> None:
    certificate = signed_by(enterprise, make_csr(new_key_pem(), "x"))
    token = region.token()
    values = {"origin": "", "now": now(), "certificate_pem": certificate}
    with pytest.raises(ConfigError, match="do not match"):
        enrol(host.state, host.forward, region.url, token, **values)
    monkeypatch.setattr(keys, "check_pair", lambda *_, **__: None)
    with pytest.raises(TrustError, match="for another key than the request"):
        enrol(host.state, host.forward, region.url, token, **values)


@pytest.mark.parametrize("content", [b"", b"x", b"leaf"], ids=["empty", "noise", "no-authority"])
def test_what_is_no_authority_is_not_trusted(
    tmp_path: Path, enterprise: keys.KeyPair, content: bytes
) -> None:
    if content == b"leaf":
        content = signed_by(enterprise, make_csr(new_key_pem(), "x"))
    (tmp_path / "ca.pem").write_bytes(content)
    data = prepare(tmp_path / "data", now=now())
    with pytest.raises(ConfigError):
        trust(data, tmp_path / "ca.pem", now=now())
    assert not data.client_ca.exists()
