"""Batches in a real S3 server: Ceph's gateway as Debian installs it, and what befalls the way."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.auth
import botocore.retries.standard
import pytest
from ceph_lab import (
    ACCESS_KEY,
    ENVIRONMENT,
    OTHER_KEY,
    OTHER_SECRET,
    SECRET_KEY,
    Ceph,
    free_ports,
    running,
)
from object_contract import ObjectContract
from siem_lab import SealingHost
from tcp_relay import PASS, Fault, Relay, relaying

from aesp_proxy.aggregator.ports import batch_key
from aesp_proxy.aggregator.store.s3 import S3Objects
from aesp_proxy.errors import AespError, ConfigError, RecordError, UnavailableError
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.batch import encode_batch
from aesp_proxy.record.header import header_hash

START_S_BUDGET = 45.0
BIG = bytes(range(256)) * 4096
XML = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>hush-%s</Message></Error>'


PLAIN = Record(
    kind=RecordKind.DECISION,
    time_ns=time.time_ns(),
    event_type="policy_violation",
    action="http.get",
    outcome=Outcome.DENIED,
    verdict="deny",
    reason="host_blocked",
    guard="egress_allowlist",
    severity="warning",
    message="m",
    resource="https://evil.example.test:443/",
    target_host="evil.example.test",
    target_type="network",
    agent_id="agent",
)


def answer(status: bytes, code: bytes = b"", headers: bytes = b"", body: bytes = b"") -> bytes:
    body = body or (XML % (code, SECRET_KEY.encode()) if code else b"")
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers, len(body), body)


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    with running(tmp_path_factory.mktemp("lab")) as ceph:
        ceph.make_bucket("plain")
        ceph.make_bucket("locked", lock=True)
        yield ceph


@pytest.fixture(scope="module")
def relay(ceph: Ceph) -> Iterator[Relay]:
    with relaying(ceph.port) as relay:
        yield relay


@pytest.fixture(autouse=True)
def _no_pause_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff = botocore.retries.standard.ExponentialBackoff
    monkeypatch.setattr(backoff, "delay_amount", lambda *_: 0.0)


Opener = Callable[..., S3Objects]


@pytest.fixture
def opened(ceph: Ceph) -> Iterator[Opener]:
    """Open a store on the gateway; closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def open_store(
            bucket: str = "plain",
            *,
            environment: dict[str, str] = ENVIRONMENT,
            wall: Callable[[], float] = time.time,
            **changes: Any,
        ) -> S3Objects:
            store = S3Objects(ceph.settings(bucket, **changes), environment=environment, wall=wall)
            stack.callback(store.close)
            return store

        yield open_store


@pytest.fixture
def through(opened: Opener, relay: Relay) -> Iterator[S3Objects]:
    """A store that is reached over the relay, with short waits."""
    relay.set(PASS)
    yield opened(
        endpoint=f"http://127.0.0.1:{relay.port}",
        answer_s_max=1.0,
        connect_s_max=1.0,
        put_s_max=3.0,
    )
    relay.set(PASS)


def batch_of(host: SealingHost) -> tuple[str, bytes]:
    sealed, header = host.seal(2)
    key = batch_key(header.origin, header.batch_no, header_hash(sealed.header_bytes))
    return key, encode_batch(sealed)


@pytest.fixture
def host() -> SealingHost:
    return SealingHost(PLAIN, origin=f"h-{time.monotonic_ns()}")


def unpaused(store: S3Objects, wanted: list[tuple[str, bytes]]) -> None:
    """Put after a failure, as a host does that comes again."""
    end_s = time.monotonic() + 20
    while True:
        with contextlib.suppress(RecordError):
            return store.put_all(wanted)
        assert time.monotonic() < end_s


class TestContract(ObjectContract):
    """The promises of the directory hold here too."""

    @pytest.fixture(params=["plain", "locked", "locked for days", "prefix"])
    def objects(self, request: pytest.FixtureRequest, opened: Opener) -> S3Objects:
        days = 2 if request.param == "locked for days" else 0
        prefix = "some/where/" if request.param == "prefix" else ""
        bucket = "locked" if request.param.startswith("locked") else "plain"
        return opened(bucket, lock_days=days, prefix=prefix)

    @pytest.fixture(params=["plain", "locked"])
    def removing(self, request: pytest.FixtureRequest, opened: Opener) -> S3Objects:
        return opened(request.param)


def test_the_gateway_is_there_soon(ceph: Ceph) -> None:
    assert ceph.began_s < START_S_BUDGET


@pytest.mark.parametrize("bucket", ["plain", "locked"])
def test_what_may_be_used_is_found_good(opened: Opener, bucket: str) -> None:
    opened(bucket, lock_days=1 if bucket == "locked" else 0).check()


@pytest.mark.parametrize(
    ("changes", "environment", "says"),
    [
        pytest.param({"bucket": "absent"}, ENVIRONMENT, "no such bucket", id="bucket"),
        pytest.param({"lock_days": 3}, ENVIRONMENT, "Object Lock", id="lock"),
        pytest.param(
            {},
            {"AWS_ACCESS_KEY_ID": OTHER_KEY, "AWS_SECRET_ACCESS_KEY": OTHER_SECRET},
            "may not",
            id="denied",
        ),
        pytest.param(
            {},
            {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": "wr0ng-secret"},
            "secret key",
            id="secret",
        ),
        pytest.param(
            {},
            {"AWS_ACCESS_KEY_ID": "NOBODYSKEY", "AWS_SECRET_ACCESS_KEY": "wr0ng-secret"},
            "unknown",
            id="key",
        ),
    ],
)
def test_what_the_operator_must_mend_is_said_at_the_start_and_no_secret_with_it(
    opened: Opener, changes: dict[str, Any], environment: dict[str, str], says: str
) -> None:
    store = opened(environment=environment, **{"bucket": "plain"} | changes)
    with pytest.raises(ConfigError, match=says) as checked:
        store.check()
    with pytest.raises(RecordError, match=says) as put:
        store.put_all([("evidence/one", b"1")])
    for error in (checked.value, put.value):
        told = f"{error} {error.__cause__} {error.where} {error.remedy}"
        for secret in (SECRET_KEY, OTHER_SECRET, "wr0ng", ACCESS_KEY, OTHER_KEY, "NOBODYSKEY"):
            assert secret not in told


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_clock_that_is_wrong_is_said(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    real = botocore.auth.get_current_datetime

    def skewed(*arguments: Any, **more: Any) -> datetime:
        return real(*arguments, **more) + timedelta(hours=hours)

    monkeypatch.setattr(botocore.auth, "get_current_datetime", skewed)
    store = opened()
    with pytest.raises(ConfigError, match="clock"):
        store.check()
    with pytest.raises(RecordError, match="clock"):
        store.put_all([("a/one", b"1")])


def test_a_clock_that_would_end_locks_early_is_said(opened: Opener) -> None:
    store = opened(wall=lambda: time.time() - 600)
    with pytest.raises(ConfigError, match=r"6\d\d s apart|59\d s apart"):
        store.check()


class TestLock:
    """What is locked stays, and stays readable, whatever the credentials are used for."""

    @pytest.fixture
    def kept(self, opened: Opener, host: SealingHost) -> tuple[S3Objects, str, bytes]:
        store = opened("locked", lock_days=30)
        key, data = batch_of(host)
        store.put_all([(key, data)])
        return store, key, data

    def test_a_batch_is_locked_for_its_days(
        self, ceph: Ceph, kept: tuple[S3Objects, str, bytes]
    ) -> None:
        head = ceph.client().head_object(Bucket="locked", Key=kept[1])
        left = head["ObjectLockRetainUntilDate"] - datetime.now(UTC)
        assert head["ObjectLockMode"] == "COMPLIANCE"
        assert timedelta(days=29, hours=23) < left <= timedelta(days=30)

    def test_it_cannot_be_removed_and_its_lock_not_be_shortened(
        self, ceph: Ceph, kept: tuple[S3Objects, str, bytes]
    ) -> None:
        store, key, data = kept
        client = ceph.client()
        version = client.head_object(Bucket="locked", Key=key)["VersionId"]
        soon = datetime.now(UTC) + timedelta(minutes=1)
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            client.delete_object(
                Bucket="locked", Key=key, VersionId=version, BypassGovernanceRetention=True
            )
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            client.put_object_retention(
                Bucket="locked",
                Key=key,
                VersionId=version,
                Retention={"Mode": "COMPLIANCE", "RetainUntilDate": soon},
            )
        with pytest.raises(RecordError, match="30 days"):
            store.remove_all([key])
        assert store.get(key) == data

    def test_what_is_put_over_it_or_hides_it_is_seen_through(
        self, ceph: Ceph, kept: tuple[S3Objects, str, bytes], host: SealingHost
    ) -> None:
        store, key, data = kept
        client = ceph.client()
        other = batch_of(host)[1]
        for garbage in (b"", b"garbage", data[:-1], data + b"x", other):
            client.put_object(Bucket="locked", Key=key, Body=garbage)
            assert store.get(key) == data
        client.delete_object(Bucket="locked", Key=key)
        assert store.get(key) == data

    def test_what_is_written_again_and_again_is_not_locked(
        self, ceph: Ceph, kept: tuple[S3Objects, str, bytes]
    ) -> None:
        store = kept[0]
        for number in range(3):
            store.put_all([("log/checkpoint", bytes([number]))])
            assert store.find("log/checkpoint") == bytes([number])
        assert "ObjectLockMode" not in ceph.client().head_object(
            Bucket="locked", Key="log/checkpoint"
        )
        assert store.remove_all(["log/checkpoint", "log/none"]) == 1
        assert store.find("log/checkpoint") is None

    def test_governance_is_another_mode(self, ceph: Ceph, opened: Opener) -> None:
        store = opened("locked", lock_days=1, lock_mode="GOVERNANCE")
        store.check()
        store.put_all([("evidence/h/governed", b"1")])
        head = ceph.client().head_object(Bucket="locked", Key="evidence/h/governed")
        assert head["ObjectLockMode"] == "GOVERNANCE"


def test_what_is_put_over_a_batch_without_lock_is_no_batch(
    ceph: Ceph, opened: Opener, host: SealingHost
) -> None:
    store = opened("plain")
    key, data = batch_of(host)
    store.put_all([(key, data)])
    ceph.client().put_object(Bucket="plain", Key=key, Body=batch_of(host)[1])
    with pytest.raises(RecordError, match="not the batch"):
        store.get(key)


@pytest.mark.parametrize("bucket", ["plain", "locked"])
def test_two_histories_of_one_host_are_two_objects_whoever_writes_last(
    opened: Opener, bucket: str, host: SealingHost
) -> None:
    one, two = opened(bucket), opened(bucket)
    forked = SealingHost(replace(host.plain, agent_id="other"), origin=host.origin, key=host.key)
    (key, data), (fork_key, fork) = batch_of(host), batch_of(forked)
    one.put_all([(key, data)])
    two.put_all([(fork_key, fork)])
    one.put_all([(key, data)])
    assert one.get(fork_key) == fork
    assert two.get(key) == data


# Each row: what befalls the connections of a put, and what is said of it.
_PUTS = [
    pytest.param(Fault(up=0), "cannot|cut|whole", id="cut-before-a-byte"),
    pytest.param(Fault(up=200), "cannot|cut|whole", id="cut-in-the-headers"),
    pytest.param(Fault(up=300_000), "cannot|cut|whole", id="cut-in-the-body"),
    pytest.param(Fault(down=0), "cannot|cut|whole", id="done-and-no-answer"),
    pytest.param(Fault(down=25), "cannot|cut|whole", id="done-and-half-an-answer"),
    pytest.param(Fault(up=300_000, hangs=True), "in time", id="hangs-in-the-body"),
    pytest.param(Fault(down=0, hangs=True), "in time", id="done-and-hangs"),
    pytest.param(Fault(says=answer(b"503 Slow Down", b"SlowDown")), "fewer", id="503-slow-down"),
    pytest.param(Fault(says=answer(b"503 Service Unavailable")), "503", id="503-bare"),
    pytest.param(Fault(says=answer(b"500 Oops", b"InternalError")), "500", id="500"),
    pytest.param(Fault(says=answer(b"403 Forbidden")), "may not", id="403"),
    pytest.param(Fault(says=answer(b"507 Full", b"QuotaExceeded")), "full", id="quota"),
    pytest.param(Fault(says=answer(b"200 OK")), "other bytes", id="200-without-a-tag"),
    pytest.param(
        Fault(says=answer(b"200 OK", headers=b'ETag: "%s"\r\n' % (b"0" * 32))),
        "other bytes",
        id="200-with-another-tag",
    ),
    pytest.param(Fault(says=b"nonsense\r\n\r\n"), "cut|whole", id="no-http"),
    pytest.param(Fault(says=b"HTTP/1.1 200 OK\r\nContent-Le"), "time|cut", id="half-a-head"),
]


@pytest.mark.parametrize(("fault", "says"), _PUTS)
def test_a_put_that_fails_in_any_way_is_a_record_error_and_can_be_done_again(
    through: S3Objects, relay: Relay, opened: Opener, fault: Fault, says: str
) -> None:
    key = f"faults/{time.monotonic_ns()}"
    relay.set(fault)
    with pytest.raises(RecordError, match=says) as failed:
        through.put_all([(f"{key}/small", b"1"), (f"{key}/big", BIG)])
    assert SECRET_KEY not in str(failed.value)
    relay.set(PASS)
    unpaused(through, [(f"{key}/small", b"1"), (f"{key}/big", BIG)])
    assert opened().get(f"{key}/big") == BIG


@pytest.mark.parametrize(
    "fault",
    [
        Fault(up=0),
        Fault(down=0),
        Fault(says=answer(b"503 Slow Down", b"SlowDown", headers=b"Connection: close\r\n")),
    ],
    ids=["cut", "no-answer", "503"],
)
def test_one_fault_is_tried_again_at_once(through: S3Objects, relay: Relay, fault: Fault) -> None:
    relay.set(fault, times=1)
    through.put_all([(f"again/{time.monotonic_ns()}", b"1")])
    assert relay.connections == 2, "one that failed, one that did not"


_GETS = [
    pytest.param(Fault(down=0), UnavailableError, id="no-answer"),
    pytest.param(Fault(down=60), UnavailableError, id="half-a-head"),
    pytest.param(Fault(down=2_000), UnavailableError, id="begin-of-the-body"),
    pytest.param(Fault(down=500_000), UnavailableError, id="half-the-body"),
    pytest.param(Fault(down=500_000, hangs=True), UnavailableError, id="body-hangs"),
    pytest.param(Fault(says=answer(b"503 Slow Down", b"SlowDown")), UnavailableError, id="503"),
    pytest.param(Fault(says=answer(b"403 Forbidden", b"AccessDenied")), UnavailableError, id="403"),
    pytest.param(
        Fault(says=answer(b"404 Not Found", b"NoSuchBucket")), UnavailableError, id="no-bucket"
    ),
    pytest.param(Fault(says=answer(b"404 Not Found")), UnavailableError, id="bare-404"),
    pytest.param(
        Fault(says=answer(b"404 Not Found", body=b"<html>no such page</html>")),
        UnavailableError,
        id="page-404",
    ),
    pytest.param(Fault(says=answer(b"404 Not Found", b"NoSuchKey")), RecordError, id="no-key"),
    pytest.param(
        Fault(says=b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx"),
        RecordError,
        id="a-bomb",
    ),
]


@pytest.mark.parametrize(("fault", "kind"), _GETS)
def test_a_get_gives_the_whole_or_says_whether_it_may_pass(
    through: S3Objects, relay: Relay, opened: Opener, fault: Fault, kind: type[AespError]
) -> None:
    opened().put_all([("gets/big", BIG)])
    relay.set(fault)
    with pytest.raises(kind) as failed:
        through.get("gets/big")
    assert type(failed.value) is kind
    assert SECRET_KEY not in str(failed.value)
    relay.set(PASS)
    assert through.get("gets/big") == BIG


def test_a_gateway_killed_in_the_middle_of_many_puts_loses_nothing_that_was_promised(
    ceph: Ceph, opened: Opener
) -> None:
    store = opened(put_s_max=5.0)
    promised: list[tuple[str, bytes]] = []
    begun, ended = threading.Event(), threading.Event()

    def write() -> None:
        for group in range(100_000):
            wanted = [(f"kill/{group}/{n}", bytes([group % 256]) * 40_000) for n in range(16)]
            try:
                store.put_all(wanted)
            except RecordError:
                break
            promised.extend(wanted)
            begun.set()
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert begun.wait(20)
        ceph.kill_gateway()
        assert ended.wait(20)
    finally:
        ceph.start_gateway()
        thread.join()
    unpaused(store, [("kill/after", b"1")])
    assert promised
    assert [store.get(key) for key, _ in promised] == [content for _, content in promised]


def test_while_the_store_hangs_hosts_are_told_at_once_and_it_is_used_again_when_it_goes_on(
    ceph: Ceph, opened: Opener
) -> None:
    store = opened(answer_s_max=0.5, put_s_max=1.0)
    ceph.pause_gateway(on=True)
    try:
        begun_s = time.monotonic()
        with pytest.raises(RecordError, match="in time"):
            store.put_all([(f"hang/{n}", b"1") for n in range(64)])
        store._pause._until_s = time.monotonic() + 60
        with pytest.raises(RecordError, match="asked again shortly"):
            store.put_all([("hang/more", b"1")])
        assert time.monotonic() - begun_s < 5
    finally:
        ceph.pause_gateway(on=False)
    store._pause._until_s = 0.0
    store.put_all([("hang/more", b"1")])
    assert store._pause._failures == 0


def test_over_tls_only_roots_that_are_named_are_believed(ceph: Ceph, opened: Opener) -> None:
    endpoint = f"https://127.0.0.1:{ceph.tls_port}"
    store = opened(endpoint=endpoint, ca_file=ceph.ca_file)
    store.check()
    with pytest.raises(ConfigError, match="certificate"):
        opened(endpoint=endpoint).check()
    named = opened(endpoint=f"https://localhost:{ceph.tls_port}", ca_file=ceph.ca_file)
    with pytest.raises(ConfigError, match="certificate"):
        named.check()


def test_a_proxy_is_used_where_it_is_named_and_never_from_the_environment(
    ceph: Ceph, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dead,) = free_ports(1)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{dead}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{dead}")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    opened().check()
    with pytest.raises(UnavailableError, match="reached"):
        opened(proxy=f"http://127.0.0.1:{dead}").check()
    with relaying(ceph.port) as proxy:
        # The gateway answers the absolute form that a proxy is asked in, as any server must.
        store = opened(endpoint="http://127.0.0.1:1", proxy=f"http://127.0.0.1:{proxy.port}")
        with contextlib.suppress(AespError):
            store.check()
        assert proxy.connections


def test_a_server_that_is_not_there_is_later_not_wrong(opened: Opener) -> None:
    (dead,) = free_ports(1)
    store = opened(endpoint=f"http://127.0.0.1:{dead}")
    with pytest.raises(UnavailableError):
        store.check()
    with pytest.raises(UnavailableError):
        store.get("a/one")
    with pytest.raises(RecordError):
        store.put_all([("a/one", b"1")])


def test_a_server_that_says_yes_to_a_lock_and_sets_none_is_found(
    opened: Opener, ceph: Ceph, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened("locked", lock_days=5)
    put = store._client.put_object

    def without_lock(**options: Any) -> Any:
        return put(**{name: of for name, of in options.items() if "Lock" not in name})

    monkeypatch.setattr(store._client, "put_object", without_lock)
    with pytest.raises(ConfigError, match="locks none"):
        store.check()
