"""``policy lint`` and ``policy fmt`` as a person or a pipeline calls them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aesp_proxy.cli import main
from aesp_proxy.decide.policy.lint.checks import CHECKS

ENTERPRISE = Path(__file__).parents[2] / "policies/examples/enterprise"
CLEAN = 'version: "1.2.0"\nname: p\n\nguards:\n  egress_allowlist:\n    allow:\n      - a.example\n'
NOTED = CLEAN + "\nsettings:\n  session_timeout_secs: 5\n"
WARNED = CLEAN.replace("- a.example", '- "*.com"')
BROKEN = CLEAN.replace("allow", "alow")
UNTIDY = 'name: "p"  # why\nversion: "1.2.0"\n'
TIDY = 'version: "1.2.0"\nname: p  # why\n'


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Done]


@pytest.fixture
def policy(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main.main(["policy", *arguments])
        streams = capsys.readouterr()
        return Done(int(exited.value.code or 0), streams.out, streams.err)

    return call


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "p.yaml").write_text(text)
        return "p.yaml"

    return write


def test_lint_exits_by_the_worst_finding(policy: Call, file: Callable[[str], str]) -> None:
    assert policy("lint", file(CLEAN)) == Done(0, "nothing found\n", "")
    assert policy("lint", file(NOTED)).returncode == 0
    assert policy("lint", file(WARNED)).returncode == 1
    assert policy("lint", file(BROKEN)).returncode == 3


def test_lint_accepts_what_it_is_told_to_accept(policy: Call, file: Callable[[str], str]) -> None:
    assert policy("lint", "--max-severity", "none", file(NOTED)).returncode == 1
    assert policy("lint", "--max-severity", "none", file(CLEAN)).returncode == 0
    assert policy("lint", "--max-severity", "warning", file(WARNED)).returncode == 0
    assert policy("lint", "--max-severity", "error", file(BROKEN)).returncode == 3


def test_lint_tells_file_line_level_message_check_and_request(
    policy: Call, file: Callable[[str], str]
) -> None:
    assert policy("lint", file(WARNED)).stdout == (
        "p.yaml\n"
        "  7:9  warning  *.com allows every name below .com  [host-too-broad]\n"
        '      request: {action: "tcp.connect", host: "witness.com", port: 443}\n'
        "\n"
        "1 warning\n"
    )


def test_lint_goes_on_after_a_file_that_does_not_load(
    policy: Call, file: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text(BROKEN)
    done = policy("lint", "bad.yaml", "nowhere.yaml", file(WARNED))
    assert done.returncode == 3
    assert "[host-too-broad]" in done.stdout
    assert done.stdout.count("[policy-invalid]") == 2
    assert [row.partition(":")[0] for row in done.stderr.splitlines()] == ["aesp-proxy"] * 2


def test_lint_speaks_json(policy: Call, file: Callable[[str], str]) -> None:
    told = json.loads(policy("lint", "--format", "json", file(WARNED)).stdout)
    assert told["counts"] == {"note": 0, "warning": 1, "error": 0}
    assert told["findings"] == [
        {
            "check": "host-too-broad",
            "level": "warning",
            "message": "*.com allows every name below .com",
            "file": "p.yaml",
            "line": 7,
            "column": 9,
            "related": [],
            "witness": {"request": {"action": "tcp.connect", "host": "witness.com", "port": 443}},
        }
    ]


@pytest.mark.parametrize("text", [CLEAN, WARNED, BROKEN])
def test_lint_speaks_sarif_with_what_code_scanning_requires(
    policy: Call, file: Callable[[str], str], text: str
) -> None:
    log = json.loads(policy("lint", "--format", "sarif", file(text)).stdout)
    assert (log["version"], len(log["runs"])) == ("2.1.0", 1)
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "aesp-proxy"
    assert [each["id"] for each in driver["rules"]] == list(CHECKS)
    for each in driver["rules"]:
        assert each["shortDescription"]["text"]
        assert each["help"]["text"]
        assert each["defaultConfiguration"]["level"] in {"note", "warning", "error"}
    assert run["invocations"] == [{"executionSuccessful": text != BROKEN}]
    assert len(run["results"]) == (text != CLEAN)
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"note", "warning", "error"}
        assert result["message"]["text"]
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert physical["artifactLocation"] == {"uri": "p.yaml"}
        assert min(physical["region"].values()) >= 1
        assert set(physical["region"]) == {"startLine", "startColumn"}


def test_lint_names_files_relative_to_where_it_runs_in_sarif(
    policy: Call, file: Callable[[str], str], tmp_path: Path
) -> None:
    file(WARNED)
    log = json.loads(policy("lint", "--format", "sarif", str(tmp_path / "p.yaml")).stdout)
    location = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "p.yaml"


def test_lint_looks_at_the_scope_of_a_hierarchy(policy: Call) -> None:
    scope = "region=us-east,unit=engineering,team=ml-platform,framework=hipaa"
    done = policy("lint", "--root", str(ENTERPRISE), "--scope", scope)
    assert (done.returncode, done.stderr) == (0, "")
    assert policy("lint", "--root", str(ENTERPRISE), "--scope", "moon=1").returncode == 3


def test_lint_reads_a_compiled_policy(
    policy: Call, file: Callable[[str], str], tmp_path: Path
) -> None:
    done = policy("compile", "--policy", file(WARNED), "--out", "made.json")
    assert done.returncode == 0
    found = json.loads(policy("lint", "--format", "json", "made.json").stdout)["findings"]
    assert [(each["check"], each["file"], each["line"]) for each in found] == [
        ("host-too-broad", "p.yaml", 7)
    ]
    assert (tmp_path / "made.json").is_file()


def test_lint_lists_every_check(policy: Call) -> None:
    done = policy("lint", "--list")
    assert done.returncode == 0
    assert [row for row in CHECKS if f"{row}  (" not in done.stdout] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("lint",),
        ("lint", "--scope", "team=a", "p.yaml"),
        ("lint", "--root", ".", "p.yaml"),
        ("lint", "--format", "xml", "p.yaml"),
        ("fmt",),
        ("fmt", "--nothing", "p.yaml"),
    ],
)
def test_wrong_use_exits_5(policy: Call, arguments: tuple[str, ...]) -> None:
    done = policy(*arguments)
    assert (done.returncode, done.stdout) == (5, "")


def test_fmt_writes_keeps_the_mode_and_has_then_nothing_to_do(
    policy: Call, file: Callable[[str], str], tmp_path: Path
) -> None:
    name = file(UNTIDY)
    (tmp_path / name).chmod(0o640)
    assert policy("fmt", name) == Done(0, "", "changed: p.yaml\n")
    assert (tmp_path / name).read_text() == TIDY
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    assert policy("fmt", name) == Done(0, "", "")
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208 - names, and no draft left behind


def test_fmt_writes_through_a_link(
    policy: Call, file: Callable[[str], str], tmp_path: Path
) -> None:
    name = file(UNTIDY)
    (tmp_path / "link.yaml").symlink_to(name)
    assert policy("fmt", "link.yaml").returncode == 0
    assert (tmp_path / "link.yaml").is_symlink()
    assert (tmp_path / name).read_text() == TIDY


def test_fmt_check_writes_nothing(policy: Call, file: Callable[[str], str], tmp_path: Path) -> None:
    name = file(UNTIDY)
    assert policy("fmt", "--check", name) == Done(1, "", "would change: p.yaml\n")
    assert (tmp_path / name).read_text() == UNTIDY
    assert policy("fmt", "--check", file(TIDY)) == Done(0, "", "")


def test_fmt_diff_shows_what_would_change(
    policy: Call, file: Callable[[str], str], tmp_path: Path
) -> None:
    name = file(UNTIDY)
    done = policy("fmt", "--diff", name)
    assert done.returncode == 1
    assert "+name: p  # why" in done.stdout.splitlines()
    assert (tmp_path / name).read_text() == UNTIDY


def test_fmt_brings_line_ends_and_byte_order_into_the_layout(
    policy: Call, file: Callable[[str], str], tmp_path: Path
) -> None:
    name = file(TIDY)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + TIDY.replace("\n", "\r\n").encode())
    assert policy("fmt", "--check", name).returncode == 1
    assert policy("fmt", name).returncode == 0
    assert (tmp_path / name).read_bytes() == TIDY.encode()


@pytest.mark.parametrize("text", [BROKEN, "name: [", "", "\x00"])
def test_fmt_leaves_what_is_no_policy_as_it_is(
    policy: Call, file: Callable[[str], str], tmp_path: Path, text: str
) -> None:
    name = file(text)
    done = policy("fmt", name)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("aesp-proxy: p.yaml")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / name).read_text() == text


def test_fmt_of_a_missing_file_exits_3_and_goes_on(
    policy: Call, file: Callable[[str], str], tmp_path: Path
) -> None:
    name = file(UNTIDY)
    done = policy("fmt", "nowhere.yaml", name)
    assert done.returncode == 3
    assert (tmp_path / name).read_text() == TIDY


def test_fmt_is_a_filter(policy: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(UNTIDY.encode())))
    assert policy("fmt", "-") == Done(0, TIDY, "")


def test_a_reader_that_has_gone_ends_lint_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(WARNED)
    command = [sys.executable, "-c", "from aesp_proxy.cli import main; main()"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*command, "policy", "lint", "--format", "sarif", str(path)],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert done.returncode != 0
    assert done.stderr == b""
