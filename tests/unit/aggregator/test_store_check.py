"""``aggregator check`` says of each store how it fares; ``fetch`` gives a copy that is proved."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from siem_lab import SealingHost, storing

from aesp_proxy.aggregator.identity import DataDir
from aesp_proxy.aggregator.store_check import check_stores
from aesp_proxy.cli.aggregator import aggregator
from aesp_proxy.errors import ConfigError, RecordError, TrustError
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.verify import Pins, verify_place

NOW = datetime.now(UTC)
PLAIN = Record(
    kind=RecordKind.DECISION,
    time_ns=1_790_000_000_000_000_000,
    event_type="http",
    action="http.get",
    outcome=Outcome.SUCCESS,
    verdict="allow",
    reason="allowed",
    guard="egress_allowlist",
    severity="info",
    message="",
    resource="r",
)


def asked(*arguments: str | Path) -> Result:
    return CliRunner().invoke(aggregator, [str(word) for word in arguments])


@pytest.fixture
def host() -> SealingHost:
    return SealingHost(PLAIN)


@pytest.fixture
def data(tmp_path: Path, host: SealingHost) -> DataDir:
    with storing(tmp_path / "agg") as (data, store):
        for count in (3, 0, 2):
            store(host, count)
    return data


def test_what_is_embedded_is_found_good(data: DataDir) -> None:
    found = {each.store: each for each in check_stores(data)}
    assert list(found) == ["settings", "database", "objects", "events"]
    assert {each.exit_code for each in found.values()} == {0}
    assert not (data.root / "probe").exists()
    assert asked("check", "--data", data.root).exit_code == 0


@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        ("objects: {s4: x}\n", 3, "'s4' is not a setting"),
        ("objects: {s3: {endpoint: 'http://127.0.0.1:9', bucket: abc}}\n", 3, "no credentials"),
        ("objects: {directory: file/below}\n", 3, "cannot be made"),
    ],
    ids=["settings", "credentials", "directory"],
)
def test_what_is_wrong_is_said_and_the_rest_is_tried_too(
    data: DataDir, monkeypatch: pytest.MonkeyPatch, settings: str, code: int, says: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    (data.root / "file").touch()
    data.store_settings.write_text(settings)
    told = asked("check", "--data", data.root)
    assert told.exit_code == code
    assert says in told.output
    assert ("database: SQLite" in told.output) == ("s4" not in settings)


def test_a_bucket_that_is_not_there_now_is_later_not_wrong(
    data: DataDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    data.store_settings.write_text("objects: {s3: {endpoint: 'http://127.0.0.1:9', bucket: abc}}\n")
    told = asked("check", "--data", data.root)
    assert told.exit_code == 4
    assert "cannot be reached" in told.output


class TestFetch:
    """A copy of one host's batches."""

    @pytest.fixture
    def enrolled(self, data: DataDir, host: SealingHost) -> DataDir:
        from aesp_proxy.aggregator.enrolment import HostKey, enrol_host

        key = HostKey(origin=host.origin, public_key=host.key[0])
        out = data.root / "forward"
        enrol_host(data, key, out=out, url="https://127.0.0.1:1", tenants=(), now=NOW)
        return data

    def test_a_copy_proves_itself_and_is_added_to(
        self, enrolled: DataDir, host: SealingHost, tmp_path: Path
    ) -> None:
        out = tmp_path / "copy"
        for _ in range(2):
            told = asked("fetch", "--data", enrolled.root, "--out", out, host.origin)
            assert told.exit_code == 0, told.output
            assert "3 batches" in told.output
        report = verify_place(out, Pins(key=host.key[0]))
        assert (report.problems, report.batches, report.records) == ([], 3, 5)

    def test_what_was_changed_is_not_copied_and_what_is_there_not_replaced(
        self, enrolled: DataDir, host: SealingHost, tmp_path: Path
    ) -> None:
        out = tmp_path / "copy"
        out.mkdir()
        (out / "0000000001.batch").write_bytes(b"something else")
        told = asked("fetch", "--data", enrolled.root, "--out", out, host.origin)
        assert isinstance(told.exception, RecordError)
        assert (out / "0000000001.batch").read_bytes() == b"something else"
        stored = enrolled.root / "batches" / host.origin / "0000000001.batch"
        whole = stored.read_bytes()
        stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        told = asked("fetch", "--data", enrolled.root, "--out", tmp_path / "new", host.origin)
        assert isinstance(told.exception, TrustError)
        assert list((tmp_path / "new").glob("*.batch")) == []

    def test_nobody_has_no_batches(self, data: DataDir, tmp_path: Path) -> None:
        told = asked("fetch", "--data", data.root, "--out", tmp_path / "copy", "h-nobody")
        assert isinstance(told.exception, ConfigError)
