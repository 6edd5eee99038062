"""A replayed record is judged as its attempt would be, or said to be beyond judging."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from benchmarks.replay import write_records
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.policy_tools.policies import HEAD, policy_of, snapshot_of
from tests.unit.policy_tools.test_explain import policies

from aesp_proxy.cli.audit import audit
from aesp_proxy.cli.policy import policy as policy_group
from aesp_proxy.cli.policy.attempt import facts_of_words
from aesp_proxy.cli.policy.replay_rows import Replay
from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.replay import Replayed, Unjudgeable, replayed
from aesp_proxy.decide.replay_judge import Judge, Standing
from aesp_proxy.errors import ConfigError, InputError
from aesp_proxy.model.decision import Finding, Reason, Severity
from aesp_proxy.model.record import Ending, RecordId
from aesp_proxy.normalize.described import described
from aesp_proxy.record.canonical import encode
from aesp_proxy.record.compose import decision_record, outcome_record
from aesp_proxy.record.journal import Journal

WORDS = (
    ["action=http.get", "host=a.example.com", "path=/x", "headers.x-a=b", "query=q=1"],
    ["action=http.get", "host=example.com", "user.roles=dev", "user.mfa_verified=true"],
    ["action=http.post", "host=10.0.0.1", "size=10", "user.id=me"],
    ["action=tcp.connect", "host=c.test", "port=22"],
    ["action=file.open", "resource.path=/srv/a", "user.roles=dev"],
    ["action=file.write", "resource.path=/etc/passwd"],
    ["action=file.write", "resource.path=/srv/a", "content=text"],
    ["action=file.write", "resource.path=/srv/a", "patch=+a"],
    ["action=tool.call", "tool.name=rm", "tool.server=files", "tool.arguments={}"],
    ["action=custom"],
)


def attempt(words):
    return described(facts_of_words(words), time_ns=10**18)


def recorded(text, words):
    """Decide an attempt and give its record."""
    event, context = attempt(words)
    policy = policy_of(text, "a.yaml")
    decision = decide(event, snapshot_of(policy), context)
    decision = replace(decision, policy_hash=policy.hash)
    return decision_record(event, decision, time_ns=event.time_ns)


SECRETS_OFF = "secret_leak: {enabled: false}"


@settings(max_examples=150, deadline=None)
@given(policies(), policies(), st.sampled_from(WORDS), st.booleans())
def test_what_is_judged_is_what_would_have_been_decided(one, other, words, knows_before):
    record = recorded(one, words)
    before, after = policy_of(one, "a.yaml"), policy_of(other, "b.yaml")
    judged = Judge(after, {}, before if knows_before else None).judge(record)
    event, context = attempt(words)
    due = decide(event, snapshot_of(after), context)
    assert judged.standing in (Standing.JUDGED, Standing.UNDECIDED)
    if judged.standing is Standing.JUDGED:
        passes = judged.verdict in ("allow", "audit")
        assert passes == due.verdict.passes
        if not passes:
            assert judged.verdict == due.verdict.value
    else:
        assert judged.why


@given(policies(), st.sampled_from(WORDS))
def test_a_record_under_its_own_policy_is_the_same(text, words):
    record = recorded(text, words)
    judged = Judge(policy_of(text, "elsewhere.yaml"), {}).judge(record)
    assert (judged.verdict, judged.reason) == (record.verdict, record.reason)


EGRESS = "guards: {egress_allowlist: {allow: [a.example.com]}}"
GET = ["action=http.get", "host=a.example.com", "path=/x"]


def rule(condition, effect="DENY"):
    stated = {"condition": condition, "effect": effect}
    item = {"policy_id": "r", "applies_to": ["egress:*"], "rule": stated}
    return f"{EGRESS}\nrules: [{json.dumps(item)}]"


@pytest.mark.parametrize(
    ("condition", "effect", "standing"),
    [
        ("request.path == '/x'", "DENY", Standing.JUDGED),
        ("'dev' in request.user.roles", "DENY", Standing.UNDECIDED),
        ("'dev' in request.user.roles && request.port == 80", "DENY", Standing.JUDGED),
        ("'dev' in request.user.roles", "ALLOW", Standing.JUDGED),
        ("'dev' in request.user.roles", "AUDIT", Standing.JUDGED),
        ("has(request.user.roles)", "ASK", Standing.UNDECIDED),
        ("request.headers['x-a'] == 'b'", "DENY", Standing.UNDECIDED),
        ("request.query == ''", "DENY", Standing.UNDECIDED),
    ],
)
def test_a_rule_on_an_unrecorded_fact_is_undecided_unless_it_cannot_matter(
    condition, effect, standing
):
    judged = Judge(policy_of(rule(condition, effect)), {}).judge(recorded(EGRESS, GET))
    assert judged.standing is standing
    if standing is Standing.UNDECIDED:
        assert "not recorded" in judged.why


def test_an_allowing_rule_on_an_unrecorded_fact_is_undecided_where_it_could_lift():
    words = ["action=http.get", "host=other.test"]
    judged = Judge(policy_of(rule("'dev' in request.user.roles", "ALLOW")), {}).judge(
        recorded(EGRESS, words)
    )
    assert judged.standing is Standing.UNDECIDED


def test_a_tunnel_is_judged_as_it_would_be_opened():
    words = ["action=tcp.connect", "host=other.test"]
    judged = Judge(policy_of(rule("request.path == '/x'", "ALLOW")), {}).judge(
        recorded(EGRESS, words)
    )
    assert (judged.standing, judged.verdict) == (Standing.JUDGED, "allow")


def test_a_rule_that_both_policies_have_is_known_by_the_record():
    text = rule("'dev' in request.user.roles")
    before = policy_of(text)
    after = policy_of(text.replace("[a.example.com]", "[a.example.com, b.test]"))
    roles = ([*GET, "user.roles=dev"], "deny"), ([*GET, "user.roles=ops"], "allow")
    for words, verdict in roles:
        record = recorded(text, words)
        assert record.verdict == verdict
        assert Judge(after, {}).judge(record).standing is Standing.UNDECIDED
        judged = Judge(after, {}, before).judge(record)
        assert (judged.standing, judged.verdict) == (Standing.JUDGED, verdict)


def test_a_masked_path_is_not_judged_by_rules_that_read_it():
    record = replace(recorded(EGRESS, GET), target_path="/[masked]")
    assert Judge(policy_of(rule("request.path == '/x'")), {}).judge(record).standing is (
        Standing.UNDECIDED
    )
    assert Judge(policy_of(rule("request.port == 443")), {}).judge(record).verdict == "deny"


@pytest.mark.parametrize(
    ("reason", "beyond"),
    [
        (Reason.MALFORMED, True),
        (Reason.NAME_MISMATCH, True),
        (Reason.GUARD_FAILED, False),
        (Reason.UNSCANNABLE, False),
    ],
)
def test_what_no_policy_decided_is_told_apart(reason, beyond):
    found = replayed(replace(recorded(EGRESS, GET), reason=reason.value, verdict="deny"))
    assert isinstance(found, Unjudgeable)
    assert found.beyond is beyond


def test_a_link_and_a_resolved_address_are_not_guessed_at():
    file = recorded(EGRESS, ["action=file.open", "resource.path=/a"])
    linked = replace(file, message="/b is forbidden by /c (it resolves to /a)")
    assert isinstance(replayed(linked), Unjudgeable)
    rebound = replace(recorded(EGRESS, GET), reason="address_forbidden", verdict="deny")
    wider = policy_of(EGRESS.replace("[", "[c.test, "))
    assert Judge(wider, {}).judge(rebound).standing is Standing.UNDECIDED
    closed = policy_of("guards: {egress_allowlist: {allow: []}}")
    assert Judge(closed, {}).judge(rebound).verdict == "deny"


FOUND = Finding(rule="mine", severity=Severity.CRITICAL, location="body", offset=0, masked="m",
                fingerprint="f")  # fmt: skip


@pytest.mark.parametrize(
    ("known", "verdict"),
    [({"mine": Severity.CRITICAL}, "deny"), ({"mine": Severity.INFO}, "audit"), ({}, "allow")],
)
def test_findings_of_the_record_stand_for_the_scan(known, verdict):
    record = replace(recorded(EGRESS, GET), findings=(FOUND,), policy_hash="0")
    assert Judge(policy_of(EGRESS), known).judge(record).verdict == verdict


def test_a_write_may_have_been_a_patch():
    text = "guards: {path_allowlist: {file_write_allow: [/srv/**], patch_allow: []}}"
    words = ["action=file.write", "resource.path=/srv/a"]
    record = replace(recorded(text, words), policy_hash="0")
    assert isinstance(found := replayed(record), Replayed)
    assert len(found.events) == 2
    assert Judge(policy_of(text), {}).judge(record).standing is Standing.UNDECIDED
    same = text.replace("[]", "[/srv/**]")
    assert Judge(policy_of(same), {}).judge(record).verdict == "allow"


def test_the_size_of_arguments_is_not_known_unless_the_limit_was_the_same():
    text = "guards: {mcp_tool: {allow: [read], max_args_size: 10}}"
    after = text.replace("[read]", "[read, write]")
    record = recorded(text, ["action=tool.call", "tool.name=read"])
    assert Judge(policy_of(after), {}).judge(record).standing is Standing.UNDECIDED
    assert Judge(policy_of(after), {}, policy_of(text)).judge(record).verdict == "allow"


def rows(records):
    return [
        encode(record, RecordId(origin="h", epoch=1, seq=number))
        for number, record in enumerate(records, start=1)
    ]


@given(st.lists(st.sampled_from(WORDS), max_size=12), policies(), policies())
@settings(max_examples=30, deadline=None)
def test_keeping_answers_changes_no_count(attempts, one, other):
    records = [recorded(one, words) for words in attempts]
    after = policy_of(other, "b.yaml")
    replay = Replay(Judge(after, {}), limit=3)
    replay.feed(rows(records))
    tally = replay.result()
    judge = Judge(after, {})
    judged = [judge.judge(record) for record in records]
    changed = [
        j for j, r in zip(judged, records, strict=True)
        if j.standing is Standing.JUDGED and j.verdict != r.verdict
    ]  # fmt: skip
    assert tally.decisions == len(records)
    assert tally.changed.total() == len(changed)
    assert len(tally.first) == min(3, len(changed))
    total = tally.changed.total() + tally.undecided.total() + tally.reason_only.total()
    assert total + tally.same + tally.beyond == len(records)


@pytest.fixture
def state(tmp_path):
    """A state directory with three decisions and an outcome, not sealed."""
    records = [
        recorded(EGRESS, GET),
        recorded(EGRESS, ["action=http.get", "host=b.test", "path=/"]),
        recorded(EGRESS, ["action=tcp.connect", "host=a.example.com", "port=22"]),
    ]
    directory = tmp_path / "state"
    with Journal.open(directory) as journal:
        for record in records:
            journal.append(record)
    return directory


@pytest.fixture
def write(tmp_path):
    def written(name, text):
        place = tmp_path / name
        guards = text.replace("guards: {", f"guards: {{{SECRETS_OFF}, ", 1)
        place.write_text(HEAD + guards)
        return str(place)

    return written


def run(*words):
    return CliRunner().invoke(policy_group, ["simulate", *map(str, words)], standalone_mode=False)


def test_exit_codes_tell_whether_anything_would_change(state, write):
    same, wider = write("a.yaml", EGRESS), write("b.yaml", EGRESS.replace("[", "[b.test, "))
    assert run("--policy", same, state).return_value == 0
    result = run("--policy", wider, state)
    assert result.return_value == 1
    assert "deny -> allow" in result.output
    assert "1 would change" in result.output


def test_json_counts_and_shows_the_first(state, write):
    wider = write("b.yaml", EGRESS.replace("[", "[b.test, "))
    told = json.loads(run("--policy", wider, state, "--format", "json").stdout)
    assert told["decisions"] == 3
    assert told["changed"] == [{"was": "deny", "verdict": "allow", "count": 1}]
    assert told["first"][0]["wouldBe"]["verdict"] == "allow"
    assert told["byTarget"] == {"b.test": 1}


def test_a_policy_may_be_compared_with_another_instead_of_the_record(state, write):
    same, wider = write("a.yaml", EGRESS), write("b.yaml", EGRESS.replace("[", "[b.test, "))
    assert run("--policy", wider, "--against", wider, state).return_value == 0
    assert run("--policy", same, "--against", wider, state).return_value == 1


def test_an_export_reads_as_the_record_itself(state, write, tmp_path):
    lines = CliRunner().invoke(audit, ["tail", "--state", str(state), "--json"]).stdout
    export = tmp_path / "export.jsonl"
    export.write_text(lines)
    wider = write("b.yaml", EGRESS.replace("[", "[b.test, "))
    assert run("--policy", wider, export).return_value == 1


def test_sealed_batches_read_as_the_state_that_they_come_from(tmp_path, write):
    sealed = tmp_path / "sealed"
    write_records(sealed, 60)
    (spool := tmp_path / "spool").mkdir()
    for batch in (sealed / "audit/batches").iterdir():
        (spool / batch.name).write_bytes(batch.read_bytes())
    same = write("a.yaml", EGRESS)
    told = [
        json.loads(run("--policy", same, place, "--format", "json").stdout)
        for place in (sealed, spool, next(spool.iterdir()))
    ]
    assert [each["decisions"] for each in told] == [60, 60, 60]
    assert told[0]["changed"] == told[1]["changed"] == told[2]["changed"]


def test_times_bound_what_is_replayed(state, write):
    same = write("a.yaml", EGRESS)
    result = run("--policy", same, state, "--since", "2100-01-01T00:00:00Z")
    assert isinstance(result.exception, InputError)


def test_an_outcome_is_no_decision():
    decided = recorded(EGRESS, GET)
    outcome = outcome_record(
        decided, ending=Ending(status=200), time_ns=1, correlates_seq=1, duration_us=1
    )
    replay = Replay(Judge(policy_of(EGRESS), {}))
    replay.feed(rows([decided, outcome]))
    assert (replay.result().decisions, replay.result().others) == (1, 1)


@pytest.mark.parametrize("records", ["/nowhere", "empty", "text"])
def test_no_records_are_wrong_use(records, write, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no record\n")
    place = records if records.startswith("/") else tmp_path / records
    assert isinstance(run("--policy", write("a.yaml", EGRESS), place).exception, InputError)


def test_a_policy_that_is_not_there_is_a_policy_error(state):
    assert isinstance(run("--policy", "/nowhere.yaml", state).exception, ConfigError)
