"""What `aesp-proxy why` tells of the last refusals."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from aesp_proxy.cli import main
from aesp_proxy.model.record import Outcome


@pytest.fixture
def why(capsys: pytest.CaptureFixture[str], state):
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["why", "--state", str(state.directory), *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def refused(state, sample):
    """One allowed record and two refusals, the first of them sealed."""
    journal = state.journal()
    allowed = replace(sample, outcome=Outcome.SUCCESS)
    denied = replace(
        allowed,
        outcome=Outcome.DENIED,
        verdict="deny",
        reason="path_forbidden",
        guard="forbidden_path",
        message="/w/.env is forbidden by **/.env",
        action="file.open",
        resource="/w/.env",
        target_host="",
        target_port=0,
        target_path="/w/.env",
        policy_name="p",
        policy_source="my policy.yaml:12 (built-in)",
    )
    journal.append(allowed)
    journal.append(denied)
    state.sealer().tick(drain=True)
    journal.append(
        replace(
            denied,
            reason="host_not_allowed",
            message="x \x1b[31m",
            resource="evil.example:443",
            target_path="",
            target_host="evil.example",
            target_port=443,
            action="tcp.connect",
        )
    )


def test_the_last_refusals_are_told_with_what_would_let_them_pass(why, refused):
    code, out, _ = why()
    assert code == 0
    assert "file.open /w/.env" in out
    assert "decided by forbidden_path of the policy 'p', my policy.yaml:12" in out
    assert "would pass by: guards.forbidden_path.exceptions" in out
    explain = "policy explain --policy 'my policy.yaml' action=tcp.connect host=evil.example port="
    assert explain in out
    assert out.index("/w/.env") < out.index("evil.example")
    assert "\x1b" not in out


def test_a_word_chooses_among_them_and_json_has_a_line_each(why, refused):
    _, out, _ = why("--json", "EVIL")
    assert [json.loads(line)["reason"] for line in out.splitlines()] == ["host_not_allowed"]
    _, out, _ = why("-n", 1)
    assert out.count("record: ") == 1


def test_that_nothing_was_refused_is_said(why, refused):
    code, out, err = why("nothing-of-the-kind")
    assert (code, out) == (1, "")
    assert "nothing was refused that has to do with 'nothing-of-the-kind'" in err


def test_the_command_that_looks_closer_explains_the_refusal(why, state, sample, tmp_path, capsys):
    policy = tmp_path / "p.yaml"
    policy.write_text(
        'version: "1.2.0"\nname: p\nguards:\n  forbidden_path: {patterns: ["**/.env"]}\n'
    )
    denied = replace(
        sample, outcome=Outcome.DENIED, verdict="deny", reason="path_forbidden", action="file.open",
        resource="/w/.env", target_host="", target_port=0, target_path="/w/.env",
        policy_source=f"{policy}:4",
    )  # fmt: skip
    journal = state.journal()
    journal.append(denied)
    journal.append(replace(denied, reason="patch_forbidden"))
    journal.append(replace(denied, policy_source="built-in baseline.yaml:33"))
    journal.append(replace(denied, policy_source="built-in strict.yaml:3"))
    _, out, _ = why()
    lines = [line for line in out.splitlines() if "look closer: " in line]
    assert len(lines) == 2
    for line in lines:
        with pytest.raises(SystemExit):
            main(shlex.split(line.partition(": aesp-proxy ")[2]))
        out, _ = capsys.readouterr()
        assert "path_forbidden" in out
        assert "/w/.env is forbidden by **/.env" in out
