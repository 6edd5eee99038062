"""The command line itself: help costs little, wrong use is told in a line, faults go to a file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from aesp_proxy import cli
from aesp_proxy.cli.exits import ExitCode, exit_code_for
from aesp_proxy.cli.lazy import LazyGroup
from aesp_proxy.cli.output import printable
from aesp_proxy.cli.summary import render, summarise
from aesp_proxy.errors import ConfigError, InputError, RecordError, TrustError, UnavailableError
from aesp_proxy.model.decision import Finding, Severity
from aesp_proxy.model.record import Outcome, Record, RecordKind


@pytest.fixture
def invoke(capsys, monkeypatch):
    """Call the command line with ``run`` replaced by a command that does what it is told."""

    def call(behaviour, *words: str) -> tuple[int, str]:
        command = click.Command("run", callback=behaviour)
        command.params.append(click.Option(["--state"], expose_value=False))
        monkeypatch.setattr(LazyGroup, "get_command", lambda *_: command)
        with pytest.raises(SystemExit) as caught:
            cli.main(["run", *words])
        return caught.value.code, capsys.readouterr().err

    return call


def raising(error: BaseException):
    def behaviour():
        raise error

    return behaviour


def test_help_imports_neither_cryptography_nor_an_event_loop(monkeypatch):
    script = (
        "import sys\n"
        "from aesp_proxy.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'trio', 'asyncio', 'ssl', 'cryptography', 'mitmproxy', 'yaml', 'httpx'}\n"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    for name in cli._COMMANDS:
        assert f"  {name} " in ran.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("m", where="f:1", remedy="r"), 3),
        (InputError("m"), 5),
        (TrustError("m"), 4),
        (RecordError("m"), 4),
        (UnavailableError("m"), 4),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(invoke, error, code):
    assert invoke(raising(error)) == (code, f"aesp-proxy: {error}\n")
    assert exit_code_for(error) == code


@pytest.mark.parametrize("code", [0, 1, 7, 130])
def test_what_a_command_returns_is_the_exit_code(invoke, code):
    assert invoke(lambda: code) == (code, "")


def test_wrong_use_is_5(invoke):
    code, said = invoke(lambda: 0, "--no-such-option")
    assert code == ExitCode.USAGE
    assert said.startswith("aesp-proxy: No such option")
    assert said.count("\n") == 1


def test_ctrl_c_is_130(invoke):
    code, said = invoke(raising(KeyboardInterrupt()))
    assert (code, said.strip()) == (130, "")


def test_a_fault_of_ours_goes_to_a_file_and_a_line_says_where(invoke, tmp_path):
    code, said = invoke(raising(ZeroDivisionError("oh")), "--state", str(tmp_path))
    assert code == ExitCode.RUNTIME
    assert "Traceback" not in said
    assert said.count("\n") == 1
    (crash,) = (tmp_path / "crash").iterdir()
    assert str(crash) in said
    assert "ZeroDivisionError (" in crash.read_text()
    assert crash.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_fault_of_ours(invoke, tmp_path, number: int):
    code, said = invoke(raising(OSError(number, os.strerror(number))), "--state", str(tmp_path))
    told = f"aesp-proxy: cannot write: {os.strerror(number)} (make room, and run it again)\n"
    assert (code, said) == (4, told)
    assert not (tmp_path / "crash").exists()


def test_standard_output_on_a_full_disk_is_one_line_and_exit_4():
    command = [sys.executable, "-c", "from aesp_proxy.cli import main; main(['--help'])"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "No space left" in done.stderr


def test_a_fault_where_nothing_can_be_written_is_told_all_the_same(invoke, monkeypatch):
    monkeypatch.setattr(cli, "write_crash", lambda *_: None)
    code, said = invoke(raising(ZeroDivisionError("oh")), "--state", "/proc/nowhere")
    assert (code, said) == (4, "aesp-proxy: a fault of ours stopped it: ZeroDivisionError\n")


def test_what_an_exception_says_of_what_was_read_is_neither_shown_nor_written(invoke, tmp_path):
    secret = "tok-4f1f0c9e2b7d"
    try:
        try:
            int(secret)
        except ValueError as error:
            error.add_note(secret)
            raise KeyError(secret) from error
    except KeyError as error:
        _, said = invoke(raising(error), "--state", str(tmp_path))
    (crash,) = (tmp_path / "crash").iterdir()
    written = crash.read_text()
    assert secret not in said + written
    assert written.index("KeyError (") < written.index("test_cli_root.py")
    assert written.index("KeyError (") < written.index("ValueError (")


def test_the_state_directory_of_a_crash_is_not_read_from_the_commands_words(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli._state_dir(["run", "--state=/a"]) == Path("/a")
    assert cli._state_dir(["run", "--", "cmd", "--state", "/b"]) == Path("/x/aesp-proxy")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\x9bm", r"\x9bm"),
        ("\udc80", r"\udc80"),
        ("grün", "grün"),
    ],
)
def test_nothing_that_drives_a_terminal_is_shown(text, shown):
    assert printable(text) == shown


def record(kind: RecordKind, outcome: Outcome, **more: object) -> Record:
    fields = {
        "time_ns": 1, "event_type": "t", "action": "http.get", "verdict": "v", "reason": "r",
        "guard": "g", "severity": "info", "message": "m", "resource": "", "target_host": "h",
    } | more  # fmt: skip
    return Record(kind=kind, outcome=outcome, **fields)


DECISION, OUTCOME = RecordKind.DECISION, RecordKind.OUTCOME
SUCCESS, DENIED, FAILURE = Outcome.SUCCESS, Outcome.DENIED, Outcome.FAILURE


def test_the_account_counts_requests_and_not_the_tunnels_they_came_in():
    account = summarise(
        [
            record(RecordKind.LIFECYCLE, SUCCESS),
            record(DECISION, SUCCESS, action="tcp.connect"),
            record(DECISION, SUCCESS),
            record(OUTCOME, SUCCESS),
            record(DECISION, SUCCESS),
            record(OUTCOME, FAILURE),
        ]
    )
    assert (account.allowed, account.refused, account.failed) == (2, 0, 1)


def test_a_tunnel_that_breaks_before_a_request_is_told_apart():
    account = summarise(
        [
            record(DECISION, SUCCESS, action="tcp.connect"),
            record(OUTCOME, FAILURE, action="tcp.connect"),
        ]
    )
    assert (account.allowed, account.failed, account.broken) == (0, 0, 1)
    lines = render(account, state_dir="/s", epochs=[3])
    assert lines[0] == "allowed 0, refused 0"
    assert "is the host CA trusted?" in lines[1]


def test_what_was_refused_half_way_counts_as_refused_once():
    account = summarise(
        [
            record(DECISION, SUCCESS),
            record(DECISION, DENIED, reason="secret_found"),
            record(OUTCOME, DENIED, reason="secret_found"),
        ]
    )
    assert (account.allowed, account.refused) == (0, 1)


def test_the_most_frequent_refusals_come_first_and_the_rest_is_counted():
    refused = [
        record(DECISION, DENIED, target_host=f"h{n}") for n in range(7) for _ in range(10 - n)
    ]
    lines = render(summarise(refused), state_dir="/s", epochs=[3])
    assert lines[0] == "allowed 0, refused 49"
    assert lines[1] == "  10 x r: h0"
    assert lines[6] == "  and 2 more kinds"
    assert lines[7] == "why: aesp-proxy why --state /s"
    assert "(epoch 3)" in lines[8]
    assert "(epochs 3, 4)" in render(summarise(refused), state_dir="/s", epochs=[3, 4])[8]
    assert "aesp-proxy audit verify /s" in lines[8]


def test_accesses_to_files_are_counted_apart():
    seen = [record(DECISION, SUCCESS, action="file.open"), record(DECISION, SUCCESS)]
    lines = render(summarise(seen), state_dir="/s", epochs=[3])
    assert lines[0] == "allowed 1, of files 1, refused 0"


def test_what_was_found_and_let_pass_is_told_by_kind_and_place():
    found = Finding(
        rule="github-pat", severity=Severity.CRITICAL, location="content", offset=0,
        masked="ghp_***", fingerprint="00",
    )  # fmt: skip
    opened = {"action": "file.open", "resource": "/w/a", "target_host": "", "findings": (found,)}
    seen = [record(DECISION, SUCCESS, **opened) for _ in range(2)]
    seen.append(record(DECISION, DENIED, findings=(found,)))
    lines = render(summarise(seen), state_dir="/s", epochs=[3])
    assert lines[:4] == [
        "allowed 0, of files 2, refused 1",
        "  1 x r: h",
        "found in what passed, recorded or masked as the policy says:",
        "  2 x github-pat: /w/a",
    ]
