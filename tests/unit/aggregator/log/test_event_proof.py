"""One event is proved off line: by its host's key, by the log's, by its witnesses'."""

from __future__ import annotations

import json
import runpy
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from siem_lab import SealingHost, storing

from aesp_proxy.aggregator.identity import DataDir, prepare
from aesp_proxy.aggregator.log.check import check_log
from aesp_proxy.aggregator.log.integrate import Integrator
from aesp_proxy.aggregator.log.keys import ensure_log_key, load_log_keys, retire, rotate
from aesp_proxy.aggregator.log.store import LogStore
from aesp_proxy.aggregator.ports import Certificate, Identity, Role
from aesp_proxy.aggregator.proof import event_proof
from aesp_proxy.aggregator.proof_check import read_event_proof, verify_event_proof
from aesp_proxy.aggregator.stores import open_control, open_ledger_reader, open_objects
from aesp_proxy.cli import audit
from aesp_proxy.errors import ConfigError, InputError, TrustError
from aesp_proxy.model.record import Outcome, Record, RecordKind
from aesp_proxy.record.signature import public_to_pem
from aesp_proxy.record.tlog.note import KeyType, Note, sign_text, signing_key
from aesp_proxy.record.tlog.policy import policy_of

OUTSIDER = Path(__file__).parents[4] / "docs" / "examples" / "verify_record.py"
PLAIN = Record(
    kind=RecordKind.DECISION,
    time_ns=1_800_000_000_000_000_000,
    event_type="http",
    action="http.post",
    outcome=Outcome.DENIED,
    verdict="deny",
    reason="host_blocked",
    guard="egress_allowlist",
    severity="warning",
    message="\x1b[2Jno",
    resource="https://evil.example/\x1b[31m",
)
WITNESS = signing_key("witness.example/w", KeyType.COSIGNATURE, b"\x02" * 32)


def enrolled(data: DataDir, host: SealingHost) -> None:
    control = open_control(data)
    identity = Identity(role=Role.HOST, name="h-one")
    control.enrol(
        "h-one",
        public_key=host.key[0],
        tenants=frozenset(),
        certificate=Certificate(
            fingerprint=b"x", identity=identity, issued_ns=1, not_after_ns=1 << 62
        ),
    )
    control.close()


def log_all(data: DataDir, *, cosigned: bool = False) -> None:
    """Do what the log's process does."""
    objects = open_objects(data)
    ledger = open_ledger_reader(data, objects)
    store = LogStore(objects)
    made = Integrator(ledger=ledger, store=store, keys=load_log_keys(data))
    made.start()
    while made.step():
        pass
    more = (sign_text(made.note.text, WITNESS, time_s=1),) if cosigned else ()
    store.publish(Note(text=made.note.text, signatures=(*made.note.signatures, *more)))
    ledger.close()
    objects.close()


@dataclass
class World:
    data: DataDir
    host: SealingHost
    proof: dict[str, Any]
    directory: Path

    def verify(self, *arguments: str, **changes: Any) -> Result:
        """Run ``audit verify --proof`` on the proof, changed."""
        file = self.directory / "event.json"
        file.write_text(json.dumps(self.proof | changes))
        return CliRunner().invoke(
            audit.audit, ["verify", "--proof", str(file), *arguments], standalone_mode=False
        )

    @property
    def log_key(self) -> str:
        return str(load_log_keys(self.data).public[0])

    @property
    def host_key(self) -> str:
        file = self.directory / "host.pub"
        file.write_bytes(public_to_pem(self.host.key[0]))
        return str(file)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("agg")
    host = SealingHost(PLAIN)
    with storing(root / "data") as (data, store):
        for _ in range(5):
            store(host, 3)
    enrolled(data, host)
    ensure_log_key(data)
    log_all(data, cosigned=True)
    return World(data=data, host=host, proof=event_proof(data, "h-one/1/8"), directory=root)


def test_a_proof_names_the_event_its_batch_and_its_entry(world: World):
    done = world.verify("--log-key", world.log_key, "--key", world.host_key)
    assert done.return_value == 0, done.output
    assert "h-one/1/8 in batch 3" in done.output
    assert f"entry 2 of 5 of {load_log_keys(world.data).origin}" in done.output
    assert "\x1b" not in done.output


def test_the_answer_as_json_has_the_record_and_who_cosigned(world: World):
    keys = ("--log-key", world.log_key, "--witness-key", str(WITNESS.public))
    done = world.verify(*keys, "--json")
    said = json.loads(done.stdout)
    assert said["log"] == {
        "origin": load_log_keys(world.data).origin,
        "index": 2,
        "size": 5,
        "witnesses": ["witness.example/w"],
    }
    assert said["record"]["id"] == "h-one/1/8"
    assert not said["key_is_pinned"]


def test_keys_may_come_from_files_or_a_policy(world: World):
    assert world.verify("--log-key", str(world.data.log_public)).return_value == 0
    policy = world.directory / "policy"
    policy.write_text(f"log {world.log_key}\nwitness w {WITNESS.public}\nquorum w\n")
    done = world.verify("--log-policy", str(policy))
    assert done.return_value == 0
    assert "cosigned by w" in done.output


def test_without_a_log_key_the_proof_says_what_it_does_not_prove(world: World):
    done = world.verify()
    assert done.return_value == 0
    assert "the log was not asked" in done.output
    assert "came from the proof itself" in done.output


OTHER_LOG = str(signing_key("other.example/log", KeyType.ED25519, b"\x03" * 32).public)
OTHER_WITNESS = str(signing_key("w2.example", KeyType.COSIGNATURE, b"\x04" * 32).public)


@pytest.mark.parametrize(
    ("changes", "arguments", "says"),
    [
        ({"record": "00"}, (), "not in the batch"),
        ({"leaf_index": 2}, (), "not in the batch"),
        ({"tree_size": 4}, (), "not in the batch"),
        ({"signature": "00" * 64}, (), "signature over the batch"),
        ({"public_key": "00" * 32}, (), "signature over the batch"),
        ({"log": None}, ("LOG",), "did not hold this batch yet"),
        ({"log": "nonsense"}, (), "does not begin"),
        ({}, ("--log-key", OTHER_LOG), "no log key"),
        ({}, ("LOG", "--witness-key", OTHER_WITNESS), "too few witnesses"),
        ({"path": "x"}, (), "no path"),
        ({"leaf_index": -1}, (), "leaf_index"),
        ({"leaf_index": True}, (), "leaf_index"),
        ({"header": "zz"}, (), "header"),
        ({"header": ""}, (), "header"),
    ],
)
def test_a_proof_that_does_not_hold_is_wrong(
    world: World, changes: dict[str, Any], arguments: tuple[str, ...], says: str
):
    given = ["--log-key", world.log_key] if "LOG" in arguments else []
    given += [one for one in arguments if one != "LOG"]
    done = world.verify(*given, **changes)
    assert done.return_value == 1, done.exception
    assert "WRONG" in done.output
    assert says in done.output
    said = world.verify(*given, "--json", **changes)
    assert json.loads(said.stdout)["ok"] is False


def test_another_hosts_key_is_wrong(world: World, tmp_path: Path):
    other = tmp_path / "other.pub"
    other.write_bytes(public_to_pem(SealingHost(PLAIN).key[0]))
    done = world.verify("--key", str(other))
    assert done.return_value == 1
    assert "another key" in done.output


def test_the_proof_of_another_entry_does_not_fit(world: World):
    other = event_proof(world.data, "h-one/1/1")
    done = world.verify("--log-key", world.log_key, log=other["log"])
    assert done.return_value == 1
    assert "is not number 0" in done.output


def test_every_changed_character_of_a_proof_is_noticed_or_says_nothing_new(world: World):
    policy = policy_of(load_log_keys(world.data).public, [])
    right = json.dumps(world.proof).encode()
    proved = verify_event_proof(
        read_event_proof(right), public_key=world.host.key[0], policy=policy
    )
    for at in range(0, len(right), 3):
        changed = right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :]
        try:
            found = verify_event_proof(
                read_event_proof(changed), public_key=world.host.key[0], policy=policy
            )
        except (InputError, TrustError):
            continue
        assert found.record == proved.record
        assert found.record_id == proved.record_id


def test_the_outsiders_script_proves_the_same_and_finds_every_change(world: World, capsys):
    outsider = runpy.run_path(str(OUTSIDER))["main"]
    file, key = world.directory / "outside.json", world.host_key
    log, witness = world.directory / "log.vkey", world.directory / "w.vkey"
    log.write_text(world.log_key)
    witness.write_text(f"{WITNESS.public}\n")
    keys = (key, str(log), str(witness))
    right = json.dumps(world.proof)
    file.write_text(right)
    assert outsider("proof", str(file), *keys) == 0
    assert "holds: h-one/1/8 in batch 3: deny" in (said := capsys.readouterr().out)
    assert "entry 2 of 5" in said
    assert "1 witnesses" in said
    for name in ("record", "header", "signature"):
        for at in range(0, len(world.proof[name]), 7):
            text = world.proof[name]
            changed = text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :]
            file.write_text(json.dumps(world.proof | {name: changed}))
            assert outsider("proof", str(file), *keys) == 1, (name, at)
    other = event_proof(world.data, "h-one/1/1")
    for wrong in (
        {"log": None}, {"leaf_index": 0}, {"leaf_index": 9}, {"path": []},
        {"path": ["00" * 32] * 2},
        {"log": other["log"]}, {"log": world.proof["log"].replace("index 2", "index 3")},
        {"log": world.proof["log"].replace("\n5\n", "\n6\n")}, {"log": 5}, {"header": None},
    ):  # fmt: skip
        file.write_text(json.dumps(world.proof | wrong))
        assert outsider("proof", str(file), *keys) == 1, wrong
    file.write_text(right)
    for number, text in ((1, OTHER_LOG), (2, OTHER_WITNESS), (1, str(WITNESS.public))):
        strange = world.directory / "strange"
        strange.write_text(text)
        assert outsider("proof", str(file), *keys[:number], str(strange), *keys[number + 1 :]) == 1
    assert "Traceback" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify"],
        ["verify", "DIR", "--proof", "FILE"],
        ["verify", "DIR", "--log-key", OTHER_LOG],
        ["verify", "--proof", "FILE", "--witness-key", OTHER_WITNESS],
        ["verify", "--proof", "FILE", "--log-key", OTHER_LOG, "--witnesses", "1"],
        ["verify", "--proof", "/nothing/here", "--log-key", OTHER_LOG],
        ["verify", "--proof", "FILE", "--log-key", "no+key"],
    ],
)
def test_a_wrong_use_is_said_in_a_line(tmp_path: Path, arguments: list[str]):
    file = tmp_path / "event.json"
    file.write_text("{}")
    words = [str(file) if word == "FILE" else word for word in arguments]
    done = CliRunner().invoke(audit.audit, words)
    assert done.exit_code not in {0, 1} or isinstance(done.exception, ConfigError)
    assert isinstance(done.exception, SystemExit | ConfigError)


def test_the_whole_log_is_proved_and_a_changed_entry_found(world: World, tmp_path: Path):
    report = check_log(world.data)
    assert (report.signed.size, report.published.size, report.not_logged) == (5, 5, 0)
    bundle = world.data.root / "log/tile/entries/000.p/5"
    content = bundle.read_bytes()
    try:
        for at in range(0, len(content), 97):
            bundle.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            with pytest.raises(TrustError):
                check_log(world.data)
    finally:
        bundle.write_bytes(content)
    tile = world.data.root / "log/tile/0/000.p/5"
    content = tile.read_bytes()
    try:
        tile.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        with pytest.raises(TrustError, match="tile/0/000"):
            check_log(world.data)
    finally:
        tile.write_bytes(content)


def test_aggregators_that_share_the_receipt_key_have_one_log(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    data = prepare(first, now=datetime.now(UTC))
    second.mkdir()
    for name in ("ca", "receipts"):
        shutil.copytree(first / name, second / name)
    other = prepare(second, now=datetime.now(UTC))
    third = prepare(tmp_path / "third", now=datetime.now(UTC))
    for one in (data, other, third):
        ensure_log_key(one)
        ensure_log_key(one)
    assert load_log_keys(data).public == load_log_keys(other).public
    assert load_log_keys(data).public != load_log_keys(third).public
    assert data.log_key.stat().st_mode & 0o077 == 0


def test_the_key_is_handed_over_and_the_old_one_dropped_only_when_the_new_has_signed(
    tmp_path: Path,
):
    with storing(tmp_path / "data") as (data, store):
        store(host := SealingHost(PLAIN), 2)
    enrolled(data, host)
    ensure_log_key(data)
    log_all(data)
    with pytest.raises(ConfigError, match="one key only"):
        retire(data)
    old = load_log_keys(data).public[0]
    assert len(rotate(data).signing) == 2
    with pytest.raises(ConfigError, match="signed nothing yet"):
        retire(data)
    log_all(data)
    proof = event_proof(data, "h-one/1/1")
    for key in load_log_keys(data).public:
        assert verify_event_proof(
            read_event_proof(json.dumps(proof).encode()),
            public_key=None,
            policy=policy_of([key], []),
        ).log
    assert retire(data).public[0] != old
    log_all(data)
    assert check_log(data).signed.size == 1
