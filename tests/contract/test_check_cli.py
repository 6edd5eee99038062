"""``aesp-proxy check`` as a person or hook calls it: lines out, exit codes, one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aesp_proxy.cli import main

POLICY = """\
version: "1.2.0"
name: contract
guards:
  egress_allowlist:
    allow: [api.example.com]
  forbidden_path:
    patterns: ["**/.ssh/**"]
  mcp_tool:
    allow: [read_file]
    require_confirmation: [delete]
  secret_leak: {enabled: false}
"""
WITH_SECRETS = POLICY.replace(
    "secret_leak: {enabled: false}",
    "secret_leak: {patterns: [{name: corp, pattern: 'CORP-[A-Z]{8}'}]}",
)
KEYS = ["eventId", "verdict", "reason", "guard", "severity", "message"]


COMMAND = [sys.executable, "-c", "from aesp_proxy.cli import main; main()", "check"]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def check_in_a_process(*arguments: str, stdin: str = "") -> Done:
    done = subprocess.run(
        [*COMMAND, *arguments], input=stdin.encode(), capture_output=True, timeout=60, check=False
    )
    return Done(done.returncode, done.stdout.decode("ascii"), done.stderr.decode())


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Call the command as the program does, in this process: the exit code is real."""

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main.main(["check", *arguments])
        streams = capsys.readouterr()
        return Done(int(exited.value.code or 0), streams.out, streams.err)

    return call


def lines(done: Done) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def said(event_id: str, kind: str, **data: object) -> str:
    return json.dumps(
        {
            "eventId": event_id,
            "eventType": kind,
            "timestamp": "2026-01-31T12:00:00Z",
            "sessionId": "s",
            "data": data,
            "metadata": {},
        }
    )


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    return str(path)


def test_an_allowed_event_exits_0_and_prints_its_decision(
    check: Callable[..., Done], policy: str
) -> None:
    done = check(
        "--policy",
        policy,
        "--event",
        said("e1", "network_egress", host="api.example.com", port=443),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert lines(done) == [
        {
            "eventId": "e1",
            "verdict": "allow",
            "reason": "allowed",
            "guard": "egress_allowlist",
            "severity": "info",
            "message": "allowed by api.example.com",
            "source": f"{policy}:5",
        }
    ]


def test_a_refused_event_exits_2_and_says_what_to_do(
    check: Callable[..., Done], policy: str
) -> None:
    done = check(
        "--policy", policy, "--event", said("e1", "network_egress", host="evil.example", port=443)
    )
    assert done.returncode == 2
    (line,) = lines(done)
    assert list(line)[: len(KEYS)] == KEYS
    assert (line["verdict"], line["reason"]) == ("deny", "host_not_allowed")
    assert line["remediation"] == [
        "Do not retry: the answer stays the same until the policy changes.",
        (
            f"Ask the owner of {policy} to add evil.example under guards.egress_allowlist.allow"
            " (line 5)."
        ),
    ]


def test_a_file_of_events_is_decided_line_by_line_in_order(
    check: Callable[..., Done], policy: str, tmp_path: Path
) -> None:
    link = tmp_path / "innocent"
    link.symlink_to("/home/nobody/.ssh/id_rsa")
    events = tmp_path / "events.jsonl"
    events.write_text(
        "\n".join(
            [
                said("1", "file_read", path="/w/a"),
                said("2", "file_read", path="/h/.ssh/id"),
                said("3", "file_write", path=str(link), content="x"),
                "",
                "{not json",
                '{"eventType": "custom"}',
                said("7", "tool_call", toolName="read_file", parameters={"a": 1}),
                said("8", "tool_call", toolName="delete"),
                said("9", "patch_apply", filePath="/w/a", patchContent="+x"),
                said("10", "custom", customType="x"),
                said("11", "command_exec", command="ls"),
                said("12", "network_egress", host="169.254.169.254", port=80),
                '{"eventId": "13", "eventId": "14"}',
            ]
        )
    )
    done = check("--policy", policy, "--events", str(events))
    assert done.returncode == 2
    assert done.stderr == ""
    assert [(line["eventId"], line["verdict"], line["reason"]) for line in lines(done)] == [
        ("1", "allow", "allowed"),
        ("2", "deny", "path_forbidden"),
        ("3", "deny", "path_forbidden"),
        ("", "deny", "malformed"),
        ("", "deny", "malformed"),
        ("7", "allow", "allowed"),
        ("8", "ask", "tool_needs_confirmation"),
        ("9", "allow", "allowed"),
        ("10", "deny", "no_guard"),
        ("11", "deny", "malformed"),
        ("12", "deny", "address_forbidden"),
        ("", "deny", "malformed"),
    ]
    messages = [str(line["message"]) for line in lines(done) if line["reason"] == "malformed"]
    assert messages[0].startswith("line 5: not valid JSON: ")
    assert messages[1] == "line 6: eventId is missing, or not a text of 1 to 256 characters"
    assert messages[2].startswith("line 11: eventType 'command_exec' is not one of file_read, ")
    assert messages[3] == "line 13: a key stands twice in one object"
    for line in lines(done):
        assert list(line)[: len(KEYS)] == KEYS


def test_events_come_through_standard_input_and_from_a_file_too(
    check: Callable[..., Done], policy: str, tmp_path: Path
) -> None:
    event = said("1", "file_read", path="/w/a")
    one = check_in_a_process("--policy", policy, "--event", "-", stdin=event)
    many = check_in_a_process("--policy", policy, "--events", "-", stdin=f"{event}\r\n{event}\n")
    (tmp_path / "e.json").write_text(event)
    named = check("--policy", policy, "--event", f"@{tmp_path / 'e.json'}")
    assert [done.returncode for done in (one, many, named)] == [0, 0, 0]
    assert [len(lines(done)) for done in (one, many, named)] == [1, 2, 1]


def test_a_secret_is_found_and_never_printed(check: Callable[..., Done], tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(WITH_SECRETS)
    events = [
        said("1", "file_write", path="/w/a", content="key: CORP-ABCDEFGH"),
        said("2", "network_egress", url="https://api.example.com/?k=CORP-ABCDEFGH"),
        said("3", "tool_call", toolName="read_file", parameters={"k": "CORP-ABCDEFGH"}),
        said("4", "patch_apply", filePath="/w/a", patchContent="+CORP-ABCDEFGH"),
        said("5", "file_write", path="/w/a", content="nothing here"),
    ]
    done = check_in_a_process("--policy", str(path), "--events", "-", stdin="\n".join(events))
    assert done.returncode == 2
    got = lines(done)
    assert [line["reason"] for line in got] == ["secret_found"] * 4 + ["allowed"]
    finding = got[0]["findings"][0]  # type: ignore[index]
    assert {key: finding[key] for key in ("rule", "severity", "location", "offset")} == {
        "rule": "corp",
        "severity": "critical",
        "location": "content",
        "offset": 5,
    }
    assert set(finding) == {"rule", "severity", "location", "offset", "masked", "fingerprint"}
    assert "CORP-ABCDEFGH" not in done.stdout + done.stderr


def test_warnings_of_the_policy_go_to_standard_error(
    check: Callable[..., Done], tmp_path: Path
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(POLICY + "settings: {verbose_logging: true}\n")
    done = check("--policy", str(path), "--event", said("1", "file_read", path="/w/a"))
    assert done.returncode == 0
    assert done.stderr == (f"warning: {path}:12:12: settings.verbose_logging has no effect yet\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "{path}: the file is empty"),
        ("version: [", "{path}:2:1: not valid YAML: did not find expected node content"),
        (
            POLICY.replace("allow: [api", "alow: [api"),
            "{path}:5:5: unknown key 'alow' in guards.egress_allowlist (did you mean 'allow'?)",
        ),
        (
            POLICY.replace('"**/.ssh/**"', '"~/.ssh/**"'),
            (
                "{path}:7:16: bad path pattern '~/.ssh/**': '~' is nobody's home in a policy; write"
                " **/ before the rest"
            ),
        ),
        (
            WITH_SECRETS.replace("CORP-[", "CORP-("),
            "{path}:11:50: pattern 'corp': RE2 refuses the regex: missing )",
        ),
        (
            POLICY + "extends: base\n",
            "{path}:12:10: no such parent: 'base' (looked in ",
        ),
    ],
)
def test_a_bad_policy_exits_3_with_one_line(
    check: Callable[..., Done], tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    done = check("--policy", str(path), "--event", said("1", "file_read", path="/w/a"))
    assert (done.returncode, done.stdout) == (3, "")
    told = done.stderr
    assert told.startswith("aesp-proxy: " + message.format(path=path))
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CORP-[A-Z]{8}", "corp-4f1f0c9e2b7d3a58("),
        ("{name: corp", "{severity: corp-4f1f0c9e2b7d3a58, name: corp"),
        ("{name: corp", "{corp-4f1f0c9e2b7d3a58: 1, name: corp"),
        ("'CORP-[A-Z]{8}'", "{corp-4f1f0c9e2b7d3a58: x"),
    ],
    ids=["regex", "value", "key", "not YAML"],
)
def test_a_secret_that_a_bad_policy_holds_is_not_printed(
    check: Callable[..., Done], tmp_path: Path, old: str, new: str
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(WITH_SECRETS.replace(old, new))
    done = check("--policy", str(path), "--event", said("1", "file_read", path="/w/a"))
    assert done.returncode == 3
    assert f"{path}:" in done.stderr
    assert "4f1f0c9e" not in done.stderr + done.stdout


def test_a_missing_policy_exits_3(check: Callable[..., Done], tmp_path: Path) -> None:
    done = check("--policy", f"{tmp_path}/none.yaml", "--event", "{}")
    assert done.returncode == 3
    assert done.stderr == (f"aesp-proxy: {tmp_path}/none.yaml: no such file (check the path)\n")


def test_wrong_use_exits_5_with_one_line(
    check: Callable[..., Done], policy: str, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    for arguments, part in [
        ((), "--policy"),
        (("--policy", policy), "give either --event or --events"),
        (("--policy", policy, "--event", "{}", "--events", "x"), "give either"),
        (("--policy", policy, "--evnt", "{}"), "--evnt"),
        (
            ("--policy", policy, "--events", f"{tmp_path}/none"),
            "events cannot be read: No such file",
        ),
        (("--policy", policy, "--events", str(tmp_path)), "events cannot be read: Is a directory"),
        (("--policy", policy, "--events", str(empty)), "there is no event to decide"),
    ]:
        done = check(*arguments)
        assert (done.returncode, done.stdout) == (5, ""), arguments
        assert part in done.stderr
        assert done.stderr.count("\n") == 1


def test_what_an_event_says_cannot_drive_the_terminal(
    check: Callable[..., Done], policy: str
) -> None:
    done = check(
        "--policy",
        policy,
        "--event",
        said("\x1b[2J", "file_read", path="/h/.ssh/\x1b]0;x\x07\u202e"),
    )
    assert done.returncode == 2
    assert not set(done.stdout) & {chr(code) for code in range(32)} - {"\n"}
    assert done.stdout.isascii()
    assert lines(done)[0]["eventId"] == "\x1b[2J"


def test_a_huge_line_is_refused_and_the_rest_goes_on(
    check: Callable[..., Done], policy: str, tmp_path: Path
) -> None:
    events = tmp_path / "big.jsonl"
    with events.open("wb") as file:
        file.write(said("1", "file_read", path="/w/a").encode() + b"\n")
        file.truncate(70 * 2**20)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + said("3", "file_read", path="/w/a").encode() + b"\n")
    done = check("--policy", policy, "--events", str(events))
    assert [line["verdict"] for line in lines(done)] == ["allow", "deny", "allow"]
    assert lines(done)[1]["message"] == "line 2: larger than 64 MiB"


def test_a_reader_that_goes_away_is_nobodys_error(
    check: Callable[..., Done], policy: str, tmp_path: Path
) -> None:
    events = tmp_path / "many.jsonl"
    events.write_text((said("1", "file_read", path="/w/a") + "\n") * 20_000)
    with subprocess.Popen(
        [*COMMAND, "--policy", policy, "--events", str(events)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(timeout=60) != 0
