"""``policy test`` as it is called: what it prints, in which form, and what it exits with."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from aesp_proxy.cli.policy.test_command import test_command as command
from aesp_proxy.errors import ConfigError

POLICY = """\
version: "1.2.0"
name: small
guards:
  egress_allowlist:
    allow: [a.example]
    block: [b.example]
  secret_leak:
    enabled: false
"""
SUITE = """\
cases:
  - name: a passes
    request: {action: http.get, host: a.example}
    expect: allow
  - name: b is blocked
    request: {action: http.get, host: b.example}
    expect: {verdict: deny, reason: host_blocked, guard: egress_allowlist}
"""
WRONG = """\
cases:
  - name: "a <passes> & \\u001b[31m \\u2028 it"
    request: {action: http.get, host: b.example}
    expect: {verdict: allow, reason: allowed, rule: r}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.yaml").write_text(POLICY)
    (tmp_path / "a.test.yaml").write_text(SUITE)
    return tmp_path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_a_suite_a_policy_and_a_folder_are_the_same_suite(folder: Path) -> None:
    for path in (folder / "a.test.yaml", folder / "a.yaml", folder):
        result = run(path)
        assert result.exit_code == 0
        first, last = result.stdout.splitlines()
        assert first.startswith(f"ok    {folder / 'a.test.yaml'}: 2 cases; rules 0/0")
        assert first.endswith("entries 2/2 (100%)")
        assert last == "1 suite, 2 cases, 0 failed"


def test_a_suite_is_run_once_however_it_is_named(folder: Path) -> None:
    result = run(folder, folder / "a.yaml", folder / "a.test.yaml")
    assert result.stdout.splitlines()[-1] == "1 suite, 2 cases, 0 failed"


def test_any_file_may_be_a_suite_that_names_its_policy(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "cases.yaml").write_text("policy: ../a.yaml\n" + SUITE)
    result = run(folder / "sub" / "cases.yaml")
    assert result.exit_code == 0


def test_a_failure_is_told_with_what_was_expected_and_why_it_came_so(folder: Path) -> None:
    (folder / "a.test.yaml").write_text(WRONG)
    result = run(folder)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("FAIL ")
    assert lines[1].strip() == (f"{folder / 'a.test.yaml'}:2:5: a <passes> & \\x1b[31m \\u2028 it")
    assert [line.strip() for line in lines[2:6]] == [
        "verdict: expected allow, got deny",
        "reason: expected allowed, got host_blocked",
        "rule: expected r, got none",
        f"egress_allowlist ({folder / 'a.yaml'}:6): b.example:443 is blocked by b.example",
    ]


def test_junit_is_well_formed_whatever_a_case_is_called(folder: Path) -> None:
    (folder / "b.test.yaml").write_text("policy: a.yaml\n" + WRONG)
    result = run(folder, "--format", "junit")
    assert result.exit_code == 1
    top = ET.fromstring(result.stdout)
    assert (top.get("tests"), top.get("failures")) == ("3", "1")
    good, bad = top.findall("testsuite")
    assert [case.get("name") for case in good.findall("testcase")] == ["a passes", "b is blocked"]
    (case,) = bad.findall("testcase")
    assert case.get("name") == "a <passes> & \\x1b[31m \\u2028 it"
    assert (case.get("file"), case.get("line")) == (str(folder / "b.test.yaml"), "3")
    failure = case.find("failure")
    assert failure is not None
    assert "verdict: expected allow, got deny" in str(failure.get("message"))


def test_json_holds_every_case_and_what_is_missing(folder: Path) -> None:
    result = run(folder, "--format", "json", "-k", "PASSES")
    told = json.loads(result.stdout)
    assert told["passed"] is True
    (suite,) = told["suites"]
    assert [case["name"] for case in suite["cases"]] == ["a passes"]
    assert suite["coverage"]["entries"]["missing"] == [
        {
            "source": f"{folder / 'a.yaml'}:6",
            "what": "egress_allowlist.block: b.example has decided no case",
        }
    ]


@pytest.mark.parametrize(
    "arguments", [("-k", "nothing"), ("-k", "a", "--coverage-min", "1"), ("--coverage-min", "101")]
)
def test_wrong_use_is_an_error_of_use(folder: Path, arguments: tuple[str, ...]) -> None:
    assert run(folder, *arguments).exit_code == 2  # click's own; the program makes it 5


def test_a_path_without_a_suite_is_an_error_of_use(folder: Path) -> None:
    (folder / "a.test.yaml").unlink()
    for path in (folder, folder / "a.yaml"):
        result = run(path)
        assert result.exit_code == 2
        assert "no suite" in result.stderr


@pytest.mark.parametrize(
    ("suite", "where", "says"),
    [
        (SUITE.replace("host: a", "hots: a"), ":3:33", "'host'"),
        (SUITE.replace("http.get, host: b.example", "http.get"), ":6:5", "request.host is missing"),
        (SUITE.replace("a.example", "a..example"), ":3:33", "request.host"),
        ("now: yesterday\n" + SUITE, ":1:6", "RFC 3339"),
        ("policy: none.yaml\n" + SUITE, "none.yaml", "no such file"),
    ],
)
def test_a_wrong_suite_is_told_by_its_place(
    folder: Path, suite: str, where: str, says: str
) -> None:
    (folder / "a.test.yaml").write_text(suite)
    result = run(folder)
    assert isinstance(result.exception, ConfigError)
    assert result.exception.where.endswith(where)
    assert says in str(result.exception)


def test_a_scope_of_a_hierarchy_is_tried_as_one_policy(folder: Path) -> None:
    (folder / "policy-hierarchy.yaml").write_text(
        'version: "1.0.0"\nhierarchy:\n  - {level: global, path: a.yaml, overridable: false}\n'
        "  - {level: team, path: 'teams/{team}.yaml', mandatory: false}\n"
    )
    (folder / "teams").mkdir()
    (folder / "teams" / "t.yaml").write_text(
        'version: "1.2.0"\nguards: {egress_allowlist: {additional_block: [a.example]}}\n'
    )
    cases = SUITE.replace("expect: allow", "expect: deny")
    (folder / "t.test.yaml").write_text("root: .\nscope: team=t\n" + cases)
    result = run(folder / "t.test.yaml")
    assert (result.exit_code, result.exception) == (0, None)


def test_an_overlay_is_tried_over_a_policy(folder: Path) -> None:
    (folder / "over.yaml").write_text(
        'version: "1.2.0"\nguards: {egress_allowlist: {remove_allow: [a.example]}}\n'
    )
    cases = SUITE.replace("expect: allow", "expect: {verdict: deny, reason: host_not_allowed}")
    (folder / "over.test.yaml").write_text("over: a.yaml\n" + cases)
    assert run(folder / "over.yaml").exit_code == 0
    weak = 'version: "1.2.0"\nguards: {egress_allowlist: {additional_allow: [c.example]}}\n'
    (folder / "over.yaml").write_text(weak)
    assert isinstance(run(folder / "over.yaml").exception, ConfigError)


def test_too_little_coverage_is_a_finding(folder: Path) -> None:
    rules = (
        "rules:\n  - policy_id: r\n    applies_to: ['egress:a.example']\n"
        "    rule: {condition: \"request.method == 'PUT' && request.port > 1\", effect: DENY}\n"
    )
    (folder / "a.yaml").write_text(POLICY + rules)
    assert run(folder).exit_code == 0
    result = run(folder, "--coverage-min", "100")
    assert result.exit_code == 1
    assert "rules 0.0% covered, 100% asked for" in result.stderr
    assert f"not tried: {folder / 'a.yaml'}:10: rule r: matched by no case" in result.stdout
    put = "  - request: {action: http.put, host: a.example}\n    expect: {verdict: deny, rule: r}\n"
    (folder / "a.test.yaml").write_text(SUITE + put)
    assert run(folder, "--coverage-min", "100").exit_code == 0
    result = run(folder, "--conjuncts-min", "100")
    assert result.exit_code == 1
    assert "request.port > 1 was never false" in result.stdout
