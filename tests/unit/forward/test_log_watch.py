"""A host watches the aggregator's log: what an aggregator could do to it, and that it is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from log_lab import KEY, RECEIPT_KEY, Objects, Region

from aesp_proxy.aggregator.log.keys import LogKeys
from aesp_proxy.aggregator.log.store import CHECKPOINT_KEY
from aesp_proxy.errors import RecordError, UnavailableError
from aesp_proxy.forward.log_watch import LATE_S, LogSeen, LogWatch, OwnBatches
from aesp_proxy.forward.transport import Answer
from aesp_proxy.record.signature import signer_from_seed
from aesp_proxy.record.tlog.note import KeyType, signing_key
from aesp_proxy.record.tlog.policy import LogPolicy, policy_of
from aesp_proxy.record.tlog.proof import parse_proof

WITNESS = signing_key("witness.example/w", KeyType.COSIGNATURE, b"\x02" * 32)


@dataclass
class Host:
    """A host with its own copy of what it sealed, and its watch."""

    directory: Path
    region: Region
    origin: str = "h-one"
    own: dict[int, bytes] = field(default_factory=dict)
    policy: LogPolicy | None = None
    get: Callable[[str], Answer] | None = None
    now_s: float = 1_000_000.0
    receipt_key: bytes = RECEIPT_KEY

    def ship(self, count: int = 1, *, logged: bool = True) -> None:
        """Ship batches and get receipts for them."""
        self.region.shelf.add(count, origin=self.origin)
        for item in self.region.shelf.batches[-count:]:
            self.own[item.place.batch_no] = item.header + item.signature
        if logged:
            self.region.log()

    def look(self, after_s: float = 60.0) -> LogSeen:
        """Look after a while, as a process that was started again."""
        self.now_s += after_s
        watch = LogWatch(
            self.directory,
            self.receipt_key,
            OwnBatches(covered=lambda: max(self.own, default=0), leaf=self.own.get),
            get=self.get or (lambda name: self.region.get(name, self.origin)),
            policy=self.policy,
        )
        return watch.look(now_s=self.now_s)

    def look_until_late(self) -> LogSeen:
        """Look every minute until what is missing has been missing for too long."""
        assert self.look().alarm == ""
        return self.seen_after(LATE_S + 60)

    def seen_after(self, total_s: float) -> LogSeen:
        for _ in range(int(total_s // 60)):
            seen = self.look()
        return seen


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "log", Region())


def names(host: Host) -> set[str]:
    return {path.name for path in host.directory.iterdir()}


def test_the_newest_receipted_batch_is_proved_to_be_in_the_log(host: Host):
    host.ship(3)
    host.region.accept(5, origin="h-two")
    seen = host.look()
    assert (seen.alarm, seen.size, seen.batch, seen.waiting) == ("", 8, 3, 0)
    assert parse_proof((host.directory / "proof").read_bytes()).index == 2
    host.ship(300)
    assert (host.look().batch, host.look().size) == (303, 308)
    assert names(host) == {"checkpoint", "proof", "seen.json"}


def test_before_anything_was_shipped_there_is_nothing_to_prove(host: Host):
    host.region.log()
    seen = host.look()
    assert (seen.alarm, seen.size, seen.batch) == ("", 0, 0)


def test_a_batch_that_is_not_logged_yet_is_waited_for(host: Host):
    host.ship(2)
    assert host.look().batch == 2
    host.ship(1, logged=False)
    seen = host.look(300)
    assert (seen.alarm, seen.batch, seen.waiting) == ("", 2, 3)
    host.region.log()
    assert (host.look().batch, host.look().waiting) == (3, 0)


def test_a_batch_that_is_left_out_after_its_receipt_is_an_alarm(host: Host):
    host.ship(2)
    host.look()
    host.ship(1, logged=False)
    dropped = host.region.shelf.batches.pop()
    host.region.accept(4, origin="h-two")
    assert host.look().alarm == ""
    seen = host.look_until_late()
    assert seen.alarm == "the log leaves out batch 3, which was receipted"
    # Put back among the stored ones, with the proof of the entry that took its place.
    host.region.shelf.batches.append(dropped)
    assert "is not number 2 of the log" in host.look().alarm


def test_a_proof_in_another_log_than_the_one_shown_is_an_alarm(host: Host):
    """Both are signed by the log's key: this host's batch stands in a log of its own."""
    host.ship(2)
    host.look()
    host.ship(1, logged=False)
    own = host.region.shelf.batches.pop()
    host.region.accept(1, origin="h-two")
    shown = json.loads(host.region.get("log/proof?batch=0&since=2").body)
    aside = Region()
    aside.shelf.batches.append(own)
    aside.log()
    aside_shown = json.loads(aside.get("log/proof?batch=3&since=0").body)
    body = json.dumps({**shown, "proof": aside_shown["proof"]}).encode()
    host.get = lambda _: Answer(status=200, body=body)
    assert "another checkpoint" in host.look().alarm


def test_a_log_that_stands_still_is_an_alarm(host: Host):
    host.ship(2)
    host.look()
    frozen = host.region.get("log/proof?batch=2&since=2")
    host.get = lambda _: frozen
    host.ship(1)
    assert host.look().alarm != ""  # the proof shown is of another batch
    host.get = lambda _: Answer(
        status=200, body=json.dumps({**json.loads(frozen.body), "proof": None}).encode()
    )
    assert host.look().alarm == ""
    assert "leaves out batch 3" in host.look_until_late().alarm


def test_a_rewritten_history_is_an_alarm_and_never_believed(host: Host):
    host.ship(5)
    host.look()
    kept = (host.directory / "checkpoint").read_bytes()
    host.region.rewrite(3)
    host.region.accept(2, origin="h-two")
    for _ in range(3):
        seen = host.look()
        assert seen.alarm == "the log of 7 entries does not begin with the 5 seen"
    assert (host.directory / "checkpoint").read_bytes() == kept
    # What was shown is kept once, and proves it: both checkpoints are signed by the log's key.
    assert names(host) >= {"evidence-00.json"}
    assert "evidence-01.json" not in names(host)
    shown = json.loads((host.directory / "evidence-00.json").read_bytes())
    assert "agg.example/log\n7\n" in shown["checkpoint"]


def test_a_rewritten_history_of_the_same_length_is_an_alarm(host: Host):
    host.ship(5)
    host.look()
    host.region.rewrite(4)
    assert "does not begin with" in host.look().alarm


def test_a_rolled_back_checkpoint_is_an_alarm_until_it_is_put_right(host: Host):
    host.ship(2)
    old = host.region.objects.kept[CHECKPOINT_KEY]
    host.ship(2)
    host.look()
    newest = host.region.objects.kept[CHECKPOINT_KEY]
    host.region.objects.kept[CHECKPOINT_KEY] = old
    assert host.look().alarm == "the log has shrunk from 4 to 2 entries"
    host.region.objects.kept[CHECKPOINT_KEY] = newest
    assert host.look().alarm == ""


def test_two_views_for_two_hosts_are_seen_where_witnesses_are_asked_for(tmp_path: Path):
    """Each view is whole in itself; a witness cosigns one of them only."""
    region, other = Region(cosigners=[WITNESS]), Region()
    policy = policy_of([], [WITNESS.public])
    first = Host(tmp_path / "one", region, policy=policy)
    second = Host(tmp_path / "two", other, origin="h-two", policy=policy)
    first.ship(2)
    second.ship(2)
    assert first.look().alarm == ""
    assert first.look().cosigned == ("witness.example/w",)
    assert "too few witnesses" in second.look().alarm


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_log_that_was_shown_and_is_hidden_is_an_alarm(host: Host, status: int):
    host.ship(2)
    host.look()
    host.region.status = status
    assert "does not show its log" in host.look_until_late().alarm
    host.region.status = 200
    assert host.look().alarm == ""


def test_an_aggregator_that_never_had_a_log_is_no_alarm(host: Host):
    host.ship(1)
    host.region.status = 404
    assert host.seen_after(LATE_S * 3).alarm == ""


def test_an_outage_while_a_batch_waits_is_no_alarm(host: Host):
    host.ship(1)
    host.ship(1, logged=False)
    assert host.look().waiting == 2
    host.get = nobody
    with pytest.raises(UnavailableError):
        host.look(LATE_S * 6)
    host.get = None
    assert host.look().alarm == ""
    host.region.log()
    assert host.look().batch == 2


def nobody(_: str) -> Answer:
    raise UnavailableError("the aggregator cannot be reached")


def test_who_cannot_be_asked_is_no_alarm_and_changes_nothing(host: Host):
    host.ship(1)
    before = host.look()
    host.get = nobody
    with pytest.raises(UnavailableError):
        host.look()
    host.get = None
    assert host.look().batch == before.batch


def test_a_key_that_the_receipt_key_did_not_sign_for_is_not_believed(host: Host):
    host.ship(1)
    host.receipt_key, _ = signer_from_seed(b"\x0d" * 32)
    assert "not signed by the receipt key" in host.look().alarm


def test_a_new_key_of_the_log_is_believed_as_the_receipt_key_says(host: Host):
    host.ship(1)
    host.look()
    new = signing_key(KEY.public.name, KeyType.ED25519, b"\x02" * 32)
    for keys in ((new, KEY), (new,)):
        host.region.keys = LogKeys(signing=keys)
        host.ship(1)
        assert host.look().alarm == ""


def test_another_log_under_the_same_receipt_key_is_an_alarm(host: Host):
    host.ship(1)
    host.look()
    host.region.keys = LogKeys(
        signing=(signing_key("agg.example/other", KeyType.ED25519, b"\x02" * 32),)
    )
    host.region.objects = Objects()
    host.region.log()
    assert "another log is shown" in host.look().alarm


def test_every_changed_byte_of_an_answer_is_noticed_or_changes_nothing(host: Host):
    host.ship(3)
    host.look()
    host.ship(3)
    right = host.region.get("log/proof?batch=6&since=3").body
    for at in range(0, len(right), 7):
        changed = right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :]
        watch = Host(host.directory.with_name(f"w{at}"), host.region, own=host.own)
        watch.directory.mkdir()
        (watch.directory / "checkpoint").write_bytes((host.directory / "checkpoint").read_bytes())
        watch.get = lambda _, body=changed: Answer(status=200, body=body)
        seen = watch.look()
        assert seen.alarm or seen.size == 6


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"keys":1,"checkpoint":1}']
)
def test_an_answer_that_is_none_is_an_alarm_in_a_line(host: Host, body: bytes):
    host.ship(1)
    host.get = lambda _: Answer(status=200, body=body)
    seen = host.look()
    assert seen.alarm
    assert "\n" not in seen.alarm


def test_what_is_damaged_here_is_not_taken_for_a_log_that_was_never_seen(host: Host):
    host.ship(1)
    host.look()
    (host.directory / "checkpoint").write_bytes(b"")
    assert "kept here cannot be read" in host.look().alarm


def test_what_cannot_be_kept_is_an_error_and_nothing_is_forgotten(host: Host):
    host.ship(1)
    host.look()
    (host.directory / "seen.json.tmp").mkdir()
    host.ship(1)
    with pytest.raises(RecordError):
        host.look()
    (host.directory / "seen.json.tmp").rmdir()
    assert host.look().batch == 2
