"""An alarm about the log is told, shown and recorded, once when it begins and once when it ends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from log_lab import RECEIPT_KEY, Region

from aesp_proxy.cli import status as status_command
from aesp_proxy.forward import log_look
from aesp_proxy.forward.log_look import ALARM_EVENT, LogLook
from aesp_proxy.forward.log_watch import LogSeen
from aesp_proxy.forward.transport import Answer
from aesp_proxy.record.journal import Journal
from aesp_proxy.record.reader import StateReader
from aesp_proxy.record.state import AuditPaths, audit_paths


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AuditPaths:
    """A host that has shipped batches 1 to 3 of ``Region``'s shelf."""
    Journal.open(tmp_path, "h-one", background=False).close()
    (tmp_path / "forward").mkdir()
    destination = SimpleNamespace(public_key=RECEIPT_KEY)
    monkeypatch.setattr(log_look, "load_destination", lambda _: destination)
    monkeypatch.setattr(log_look, "_covered", lambda _: 3)
    return audit_paths(tmp_path)


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> Region:
    made = Region()
    made.accept(3)
    own = {item.place.batch_no: item.header + item.signature for item in made.shelf.batches}
    monkeypatch.setattr(log_look, "_leaf", lambda _, number: own[number])
    return made


def look(paths: AuditPaths, region: Any, made: LogLook | None = None) -> LogSeen:
    made = made or LogLook(paths, paths.root.parent / "forward")
    made.look(region, now_s=1_000_000.0)
    return made.seen


def recorded(paths: AuditPaths) -> list[tuple[str, str, str]]:
    entries = StateReader(paths).new_entries()
    return [
        (r.message, r.outcome.value, r.severity) for _, r in entries if r.event_type == ALARM_EVENT
    ]


def test_an_alarm_is_recorded_once_and_so_is_its_end(
    paths: AuditPaths, region: Region, capfd: pytest.CaptureFixture[str]
):
    assert look(paths, region).batch == 3
    assert recorded(paths) == []
    honest, shelf = region.objects, list(region.shelf.batches)
    region.rewrite(1)
    for _ in range(3):
        assert "does not begin with" in look(paths, region).alarm
    said = "the log of 3 entries does not begin with the 3 seen"
    assert recorded(paths) == [(said, "FAILURE", "critical")]
    region.objects, region.shelf.batches = honest, shelf
    assert look(paths, region).alarm == ""
    assert recorded(paths)[-1] == ("the log holds again", "SUCCESS", "info")
    assert capfd.readouterr().err.count("transparency log: the log of 3") == 1


def test_between_looks_nobody_is_asked(paths: AuditPaths, region: Region):
    asked: list[str] = []
    get = region.get

    def counted(name: str) -> Answer:
        asked.append(name)
        return get(name)

    peer = SimpleNamespace(get=counted)
    made = LogLook(paths, paths.root.parent / "forward")
    for _ in range(5):
        look(paths, peer, made)
    assert asked == ["log/proof?batch=3&since=0"]
    made.look(peer, now_s=1_000_001.0, is_last=True)  # type: ignore[arg-type]
    assert len(asked) == 1  # all was well a moment ago


@pytest.mark.parametrize("policy", ["nonsense\n", "quorum none\n"])
def test_a_policy_that_is_none_is_told_and_stops_no_shipping(
    paths: AuditPaths, region: Region, policy: str, capfd: pytest.CaptureFixture[str]
):
    (paths.root.parent / "forward" / "log.policy").write_text(policy)
    seen = look(paths, region)
    told = capfd.readouterr().err
    if policy == "nonsense\n":
        assert "log.policy:1" in told
        assert seen == LogSeen()
    else:
        assert (told, seen.batch) == ("", 3)


def test_status_says_how_the_log_stands():
    seen: dict[str, Any] = {
        "origin": "agg.example/log", "size": 9, "batch": 3, "cosigned": ["w0"], "alarm": "",
    }  # fmt: skip
    text = status_command._log(seen)
    assert text == "log agg.example/log: 9 entries, proved to hold our batch 3, cosigned by w0"
    assert status_command._log(seen | {"alarm": "it shrank"}).endswith("; ALARM: it shrank")
