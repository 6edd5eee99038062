"""``aesp-proxy scan`` as a person, a pipeline or a hook calls it, on real repositories."""

from __future__ import annotations

import base64
import csv
import errno
import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from scan_lab import Call, Repository, token

from aesp_proxy.cli.scan.files import scan_targets
from aesp_proxy.cli.scan.targets import Target

SCHEMA = Path(__file__).parents[2] / "data/sarif/sarif-2.1.0-rtm.5.json"
PROGRAM = Path(sys.executable).with_name("aesp-proxy")
JSON = ("--format", "json")
RULE = """
[[rules]]
id = "mine"
description = "d"
severity = "{}"
regex = "mine-[0-9]{{6}}"
"""


class TestExitCodes:
    def test_0_when_there_is_nothing(self, scan: Call, folder: Path):
        (folder / "a").write_text("nothing here")
        done = scan("a")
        assert (done.returncode, done.stdout) == (0, "")
        assert "1 file, 12 bytes: 0 leaks" in done.stderr

    def test_1_for_leaks_or_what_is_asked_for(self, scan: Call, folder: Path):
        (folder / "a").write_text(token(1))
        assert scan("a").returncode == 1
        assert scan("a", "--exit-code", "0").returncode == 0
        assert scan("a", "--exit-code", "77").returncode == 77

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("[[rules", "not TOML"),
            ("[[rules]]\nid = 'x'\n", "missing"),
            ("[[rules]]\nid = 'x'\ndescription = 'd'\nseverity = 'error'\nregex = '('\n", "x"),
        ],
        ids=["no-toml", "no-regex", "bad-regex"],
    )
    def test_3_for_rules_that_are_broken(self, scan: Call, folder: Path, text: str, says: str):
        (folder / "rules.toml").write_text(text)
        done = scan(".", "--rules", "rules.toml")
        assert done.returncode == 3
        assert "rules.toml" in done.stderr
        assert says in done.stderr

    @pytest.mark.parametrize("flag", ["--rules", "--baseline", "--ignore-file"])
    def test_3_for_files_that_are_not_there(self, scan: Call, folder: Path, flag: str):
        done = scan(".", flag, "nowhere")
        assert done.returncode == 3
        assert "nowhere" in done.stderr

    @pytest.mark.parametrize(
        "text",
        [
            "", "{", "{}", "[1]", "[{}]", '[{"File": "a", "RuleID": "r"}]', "\xff", "[" * 100_000,
            '[{"File": "a", "RuleID": "r", "StartLine": "1"}]', "RuleID,Commit,File\n",
            '[{"line": "x", "lineNumber": 1, "offender": "x", "rule": "r", "file": "a"}]',
            '{"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "runs": []}',
        ],
        ids=[
            "empty", "broken", "object", "number", "no-keys", "no-place", "no-utf-8", "deep",
            "text-for-number", "csv", "gitleaks-7", "sarif",
        ],
    )  # fmt: skip
    def test_3_for_a_baseline_that_is_none(self, scan: Call, folder: Path, text: str):
        (folder / "baseline.json").write_text(text, encoding="latin-1")
        done = scan(".", "--baseline", "baseline.json")
        assert done.returncode == 3
        assert "baseline.json: " in done.stderr
        assert "(give the JSON report of an earlier scan)" in done.stderr

    def test_3_for_a_report_that_cannot_be_written(self, scan: Call, folder: Path):
        assert scan(".", "--output", "no/such/folder").returncode == 3

    def test_4_for_a_folder_that_cannot_be_listed(
        self, scan: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (folder / "a").mkdir()
        listing = os.scandir

        def refused(path: str | int = "."):
            if str(path).endswith("/a"):
                raise PermissionError(errno.EACCES, "Permission denied")
            return listing(path)

        monkeypatch.setattr("os.scandir", refused)
        done = scan(".")
        assert done.returncode == 4
        assert "NOT SCANNED: a: Permission denied" in done.stderr

    def test_4_for_a_file_that_went_away_since_it_was_listed(
        self, scan: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (folder / "a").write_text("x")

        def late(spot: object, targets: list[Target], **how: int):
            (folder / "a").unlink()
            return scan_targets(spot, targets, **how)

        monkeypatch.setattr("aesp_proxy.cli.scan.gather.scan_targets", late)
        done = scan(".")
        assert done.returncode == 4
        assert "NOT SCANNED: a: No such file or directory" in done.stderr

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_4_for_a_file_that_may_not_be_read(self, scan: Call, folder: Path):
        (folder / "a").write_text("x")
        (folder / "a").chmod(0)
        done = scan(".")
        assert done.returncode == 4
        assert "NOT SCANNED: a: Permission denied" in done.stderr

    def test_4_for_a_file_that_cannot_be_read_even_with_leaks(self, scan: Call, folder: Path):
        (folder / "a").write_text(token(1))
        done = scan("a", "/proc/self/mem", *JSON)
        assert done.returncode == 4
        assert done.places == [("a", 1, 1)]
        assert "NOT SCANNED: /proc/self/mem: " in done.stderr

    def test_4_for_a_history_where_there_is_none(self, scan: Call, folder: Path):
        done = scan("--history")
        assert done.returncode == 4
        assert "not a git repository" in done.stderr

    def test_4_where_there_is_no_git(
        self, scan: Call, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("PATH", "/nowhere")
        done = scan("--staged")
        assert done.returncode == 4
        assert "git cannot be run" in done.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("nowhere",),
            ("a\0b",),
            ("-", "a"),
            ("--history", "--staged"),
            ("--history", "a", "b"),
            ("--since", "HEAD", "."),
            ("--history", "--since", "HEAD", "--log-opts", "-1"),
            ("--history", "--log-opts", "'"),
            (".", "--format", "yaml"),
            (".", "--redact", "20"),
            (".", "--jobs", "0"),
            (".", "--nosuch"),
        ],
        ids=str,
    )
    def test_5_for_wrong_use(self, scan: Call, folder: Path, arguments: tuple[str, ...]):
        done = scan(*arguments)
        assert done.returncode == 5
        assert done.stderr.startswith("aesp-proxy: ")
        assert "Traceback" not in done.stderr

    def test_5_for_a_revision_that_is_none(self, scan: Call, repository: Repository):
        repository.commit()
        assert scan("--history", "--since", "nowhere").returncode == 5
        assert scan("--history", "--since", "--output=x").returncode == 5
        assert not (repository.path / "x").exists()


class TestFiles:
    def test_what_git_ignores_is_not_scanned_unless_asked_for(
        self, scan: Call, repository: Repository
    ):
        repository.write(".gitignore", "*.log\n")
        repository.write("a.log", token(1))
        repository.write("new.txt", token(2))
        repository.write("kept.log", token(3))
        repository.git("add", "--force", "kept.log")
        assert [place[0] for place in scan(".", *JSON).places] == ["kept.log", "new.txt"]
        assert len(scan(".", "--no-ignore", *JSON).leaks) == 3
        assert [place[0] for place in scan("a.log", *JSON).places] == ["a.log"]

    def test_an_ignored_folder_that_is_named_is_scanned(self, scan: Call, repository: Repository):
        repository.write(".gitignore", "build/\n")
        repository.write("build/x", token(1))
        assert scan(".", *JSON).places == []
        assert scan("build", *JSON).places == [("build/x", 1, 1)]

    def test_without_a_repository_the_same_files_are_ignored(self, scan: Call, folder: Path):
        for name in ("a.log", "keep.log", "sub/a.log", "sub/b", "top", "sub/top", "out/x"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(token(1))
        (folder / ".gitignore").write_text("*.log\n!keep.log\n/top\nout/\n[\n!\n# x\n")
        (folder / "sub/.gitignore").write_text("!a.log\nb\n")
        told = {place[0] for place in scan(".", *JSON).places}
        subprocess.run(["git", "init", "-q", "."], check=True)
        assert told == {place[0] for place in scan(".", *JSON).places}
        assert told == {"keep.log", "sub/a.log", "sub/top"}

    def test_a_file_that_was_deleted_but_not_committed_is_no_error(
        self, scan: Call, repository: Repository
    ):
        repository.write("a", token(1))
        repository.commit()
        (repository.path / "a").unlink()
        assert scan(".").returncode == 0

    def test_submodules_and_repositories_inside_are_scanned(
        self, scan: Call, repository: Repository
    ):
        inside = Repository(repository.path / "inside")
        inside.path.mkdir()
        inside.git("init", "--quiet")
        inside.write(".gitignore", "no\n")
        inside.write("no", token(1))
        inside.write("yes", token(2))
        assert scan(".", *JSON).places == [("inside/yes", 1, 1)]
        inside.commit()
        repository.git("add", "inside")
        assert scan(".", *JSON).places == [("inside/yes", 1, 1)]

    def test_links_are_followed_only_when_named(self, scan: Call, folder: Path, tmp_path: Path):
        (tmp_path / "outside").write_text(token(1))
        (folder / "link").symlink_to(tmp_path / "outside")
        (folder / "folders").symlink_to(tmp_path)
        assert scan(".", *JSON).places == []
        assert scan("link", *JSON).places == [("link", 1, 1)]

    def test_a_pipe_is_left_out_and_said(self, scan: Call, folder: Path):
        os.mkfifo(folder / "pipe")
        done = scan(".")
        assert done.returncode == 0
        assert "left out: pipe: not a regular file" in done.stderr

    def test_the_folder_of_git_is_not_scanned(self, scan: Call, repository: Repository):
        repository.write(".git/description", token(1))
        assert scan(".", *JSON).places == []
        assert scan(".", "--no-ignore", *JSON).places == []

    @pytest.mark.parametrize("name", [b"\xff.txt", b"a\nb", b"-x", b"a b", b"\x1b[31m"], ids=repr)
    def test_names_of_any_bytes_are_told_safely(
        self, scan: Call, repository: Repository, name: bytes
    ):
        repository.write(name, token(1))
        repository.git("add", "--all")
        for arguments in ((".",), ("--staged",)):
            (leak,) = scan(*arguments, *JSON).leaks
            assert leak["File"] == name.decode("utf-8", "backslashreplace")
            assert "\x1b" not in scan(*arguments).stdout

    def test_binary_files_are_scanned(self, scan: Call, folder: Path):
        (folder / "a").write_bytes(b"\0\xff\n\0" + token(1).encode() + b"\0")
        assert scan("a", *JSON).places == [("a", 2, 2)]

    def test_files_over_the_limit_are_left_out_and_said(self, scan: Call, folder: Path):
        (folder / "a").write_bytes(b"x" * 1_000_001)
        done = scan(".", "--max-target-megabytes", "1")
        assert done.returncode == 0
        assert "left out: a: 1,000,001 bytes are over the limit" in done.stderr

    def test_folders_deeper_than_pythons_stack_are_walked(self, scan: Call, folder: Path):
        (folder / "/".join("d" * 300)).mkdir(parents=True)
        assert scan(".").returncode == 0  # what is imported late is imported
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(len(inspect.stack(0)) + 150)
        try:
            assert scan(".").returncode == 0
        finally:
            sys.setrecursionlimit(limit)

    def test_standard_input(self, scan: Call, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"\n {token(1)}".encode())))
        assert scan("-", *JSON).places == [("-", 2, 2)]

    def test_rules_of_a_file_stand_for_ours(self, scan: Call, folder: Path):
        (folder / "rules.toml").write_text(RULE.format("error"))
        (folder / "a").write_text(f"{token(1)} mine-123456")
        (leak,) = scan("a", "--rules", "rules.toml", *JSON).leaks
        assert leak["RuleID"] == "mine"

    def test_rules_of_gitleaks_mean_what_they_mean_there(self, scan: Call, folder: Path):
        (folder / "rules.toml").write_text(
            """
            [[rules]]
            id = "mine"
            regex = "mine-[0-9]{6}"
            path = "[.]env$"
            [[rules.allowlists]]
            stopwords = ["000"]
            [[rules]]
            id = "key-file"
            path = "[.]key$"
            [[rules]]
            id = "odd"
            regex = "(?=x)y"
            [[allowlists]]
            paths = ["^vendor/"]
            """
        )
        for name in ("a.env", "a.txt", "vendor/a.env", "b.key"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("\nmine-123456 mine-000456")
        done = scan(".", "--rules", "rules.toml", *JSON)
        told = [(x["File"], x["RuleID"], x["StartLine"], x["StartColumn"]) for x in done.leaks]
        assert told == [("a.env", "mine", 2, 1), ("b.key", "key-file", 0, 0)]
        assert "left out: rules.toml:12: rule 'odd'" in done.stderr

    @pytest.mark.parametrize("rules", ["", "rules.toml"], ids=["ours", "gitleaks"])
    def test_what_is_wrapped_is_told_by_the_place_of_the_wrapping(
        self, scan: Call, folder: Path, rules: str
    ):
        (folder / "rules.toml").write_text(
            '[[rules]]\nid = "github-pat"\nregex = "ghp_[0-9a-zA-Z]{36}"\n'
        )
        wrapped = base64.b64encode(f"--- {token(1)} ---".encode()).decode()
        (folder / "a").write_text(f"one\n  data: {wrapped}\n")
        flags = ("--rules", rules) if rules else ()
        (leak,) = scan("a", *flags, *JSON).leaks
        assert (leak["RuleID"], leak["StartLine"], leak["Via"]) == ("github-pat", 2, "base64")
        assert leak["StartColumn"] >= 9
        assert leak["EndColumn"] <= 8 + len(wrapped)
        assert ", in base64" in scan("a", *flags).stdout

    def test_severity_can_be_demanded(self, scan: Call, folder: Path):
        (folder / "rules.toml").write_text(RULE.format("info"))
        (folder / "a").write_text("mine-123456")
        assert scan("a", "--rules", "rules.toml").returncode == 1
        done = scan("a", "--rules", "rules.toml", "--min-severity", "warning")
        assert done.returncode == 0


def test_many_processes_tell_the_same_in_the_same_order(folder: Path):
    for number in range(120):
        (folder / f"{number:03}").write_text(f"x\n{token(number)}")
    told = [
        subprocess.run(
            [PROGRAM, "scan", ".", "--jobs", jobs, *JSON],
            capture_output=True,
            check=False,
            env=os.environ | {"XDG_CACHE_HOME": str(folder.parent / "cache")},
        )
        for jobs in ("1", "3")
    ]
    assert told[0].returncode == told[1].returncode == 1
    assert told[0].stdout == told[1].stdout
    assert len(json.loads(told[0].stdout)) == 120


def test_what_we_ship_holds_no_secret(scan: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[3])
    folders = ("src", "policies", "docs", "deploy", "systemd", "benchmarks")
    done = scan(*folders, "--min-severity", "error")
    assert done.stdout == ""
    assert done.returncode == 0


def test_a_huge_file_is_streamed(folder: Path):
    with (folder / "sparse").open("wb") as file:
        file.seek(300_000_000)
        file.write(token(1).encode())
    done = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -v 600000; exec {PROGRAM} scan sparse --format json"],
        capture_output=True,
        check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(folder.parent / "cache")},
    )
    assert done.returncode == 1, done.stderr
    (leak,) = json.loads(done.stdout)
    assert leak["Offset"] == 300_000_000


class TestHistory:
    def test_every_line_that_was_ever_added_is_told_with_its_commit(
        self, scan: Call, repository: Repository
    ):
        repository.write("a", f"one\n{token(1)}\n")
        first = repository.commit()
        repository.write("a", "one\n")
        second = repository.commit()
        repository.write("b/c", f"{token(2)}\n")
        third = repository.commit()
        done = scan("--history", *JSON)
        assert [(x["Commit"], x["File"], x["StartLine"]) for x in done.leaks] == [
            (third, "b/c", 1),
            (first, "a", 2),
        ]
        (leak,) = scan("--history", "--since", second, *JSON).leaks
        assert leak["Date"] == "2026-01-05T10:00:00+01:00"
        assert (leak["Author"], leak["Email"]) == ("A Person", "a@b.example")
        assert leak["Fingerprint"] == f"{third}:b/c:github-pat:1"
        assert scan("--history", "--log-opts", f"-1 {first}", *JSON).leaks[0]["File"] == "a"

    def test_other_branches_and_messages_are_read(self, scan: Call, repository: Repository):
        repository.commit()
        repository.git("switch", "--quiet", "-c", "other")
        repository.write("a", token(1))
        repository.commit(f"why {token(2)}")
        repository.git("switch", "--quiet", "main")
        files = {leak["File"] for leak in scan("--history", *JSON).leaks}
        assert files == {"a", "(commit message)"}

    def test_what_a_merge_adds_by_itself_is_read(self, scan: Call, repository: Repository):
        repository.write("a", "1\n")
        repository.commit()
        repository.git("switch", "--quiet", "-c", "other")
        repository.write("b", "2\n")
        repository.commit()
        repository.git("switch", "--quiet", "main")
        repository.write("c", "3\n")
        repository.commit()
        repository.git("merge", "--quiet", "--no-commit", "other")
        repository.write("a", f"1\n{token(1)}\n")
        merge = repository.commit()
        (leak,) = scan("--history", *JSON).leaks
        assert (leak["Commit"], leak["File"], leak["StartLine"]) == (merge, "a", 2)

    def test_attributes_and_settings_hide_nothing_and_run_nothing(
        self, scan: Call, repository: Repository, tmp_path: Path
    ):
        ran = tmp_path / "ran"
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\ntouch {ran}\n")
        program.chmod(0o755)
        repository.write(".gitattributes", "* -diff\n*.x diff=mine\n")
        repository.write("a.bin", b"\0" + token(1).encode())
        repository.write("b.x", token(2))
        repository.commit()
        for name in (
            "core.fsmonitor", "diff.external", "diff.mine.textconv", "diff.mine.command",
            "core.pager", "gpg.program", "core.sshCommand",
        ):  # fmt: skip
            repository.git("config", name, str(program))
        for name, value in (
            ("log.showSignature", "true"), ("diff.noprefix", "true"), ("color.ui", "always"),
            ("diff.context", "5"), ("log.decorate", "full"), ("diff.mnemonicPrefix", "true"),
            ("log.showRoot", "false"), ("diff.relative", "true"), ("diff.renames", "copies"),
        ):  # fmt: skip
            repository.git("config", name, value)
        ran.unlink(missing_ok=True)
        assert {leak["File"] for leak in scan("--history", *JSON).leaks} == {"a.bin", "b.x"}
        assert len(scan(".", *JSON).leaks) == 2
        repository.write("c.x", token(3))
        repository.git("add", "--all")
        ran.unlink(missing_ok=True)
        assert [leak["File"] for leak in scan("--staged", *JSON).leaks] == ["c.x"]
        assert not ran.exists()

    def test_replaced_objects_hide_nothing(self, scan: Call, repository: Repository):
        repository.write("a", token(1))
        first = repository.commit()
        repository.write("a", "clean\n")
        second = repository.commit()
        repository.git("replace", first, second, "--force")
        assert [leak["File"] for leak in scan("--history", *JSON).leaks] == ["a"]

    def test_a_clone_that_is_shallow_is_said(
        self, scan: Call, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        repository.commit()
        repository.commit()
        repository.git("clone", "--quiet", "--depth=1", f"file://{repository.path}", "../clone")
        monkeypatch.chdir(repository.path.parent / "clone")
        assert "older commits are not in this clone" in scan("--history").stderr

    def test_a_history_without_commits_has_no_leaks(self, scan: Call, repository: Repository):
        assert scan("--history").returncode == 0


class TestStaged:
    def test_only_what_is_staged_is_told(self, scan: Call, repository: Repository):
        repository.write("a", f"1\n2\n{token(1)}\n")
        repository.git("add", "a")
        repository.write("a", "1\n")
        repository.write("b", token(2))
        assert scan("--staged", *JSON).places == [("a", 3, 1)]
        repository.git("commit", "--quiet", "-m", "x")
        assert scan("--staged").returncode == 0

    def test_as_a_hook_it_stops_a_commit_of_some_files(
        self, scan: Call, repository: Repository, tmp_path: Path
    ):
        hook = repository.path / ".git/hooks/pre-commit"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\nexec {PROGRAM} scan --staged\n")
        hook.chmod(0o755)
        repository.write("a", "fine\n")
        repository.commit()
        repository.write("a", f"{token(1)}\n")
        with pytest.raises(subprocess.CalledProcessError) as stopped:
            repository.git("commit", "-m", "x", "a")  # with an index of its own
        assert b"github-pat" in stopped.value.stderr
        assert token(1).encode() not in stopped.value.stderr

    def test_from_a_folder_below_the_whole_repository_is_meant(
        self, scan: Call, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ):
        repository.write("a", token(1))
        repository.write("sub/b", token(2))
        repository.git("add", "--all")
        monkeypatch.chdir(repository.path / "sub")
        assert [place[0] for place in scan("--staged", *JSON).places] == ["a", "sub/b"]


class TestReports:
    def test_no_form_holds_the_secret(self, scan: Call, folder: Path):
        (folder / "a").write_text(f"password = {token(1)}\n")
        for form in ("table", "json", "sarif", "csv"):
            for redact in ("75", "100"):
                done = scan("a", "--format", form, "--redact", redact)
                assert done.returncode == 1
                assert token(1)[5:] not in done.stdout + done.stderr
                assert ("gh" + "p_***" in done.stdout) == (redact == "75")

    def test_json_has_the_names_of_gitleaks(self, scan: Call, folder: Path):
        (folder / "a").write_text(f"x {token(1)}\n")
        (leak,) = scan("a", *JSON).leaks
        assert leak | {"Entropy": 0} == {
            "RuleID": "github-pat",
            "Description": "GitHub personal access token (classic)",
            "StartLine": 1,
            "EndLine": 1,
            "StartColumn": 3,
            "EndColumn": 42,
            "Match": "gh" + "p_***",
            "Secret": "gh" + "p_***",
            "File": "a",
            "SymlinkFile": "",
            "Commit": "",
            "Entropy": 0,
            "Author": "",
            "Email": "",
            "Date": "",
            "Message": "",
            "Tags": [],
            "Fingerprint": "a:github-pat:1",
            "Severity": "critical",
            "Offset": 2,
            "Via": "",
        }
        assert leak["Entropy"] > 3

    def test_nothing_found_is_an_empty_report_and_not_none(self, scan: Call, folder: Path):
        (folder / "a").write_text("x")
        assert scan("a", *JSON).leaks == []
        assert scan("a", "--format", "csv").stdout.startswith("RuleID,Commit,File,")
        assert json.loads(scan("a", "--format", "sarif").stdout)["runs"][0]["results"] == []

    @pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\tx"], ids=repr)
    def test_csv_has_no_formulas(self, scan: Call, folder: Path, name: str):
        (folder / name).write_text(token(1))
        (row,) = csv.DictReader(io.StringIO(scan(".", "--format", "csv").stdout))
        assert row["File"] == f"'{name}"
        assert row["Fingerprint"].startswith("'")

    def test_sarif_is_valid_and_says_where(self, scan: Call, repository: Repository):
        repository.write("ä b", f"ä {token(1)}\n")
        first = repository.commit()
        schema = json.loads(SCHEMA.read_text())
        for arguments in ((".",), ("--history",), (".", "/proc/self/mem")):
            log = json.loads(scan(*arguments, "--format", "sarif").stdout)
            jsonschema.Draft4Validator(schema).validate(log)
            (run,) = log["runs"]
            (result,) = run["results"]
            assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "github-pat"
            place = result["locations"][0]["physicalLocation"]
            assert place["artifactLocation"]["uri"] == "%C3%A4%20b"
            assert place["region"] == {
                "startLine": 1, "startColumn": 3, "endLine": 1, "endColumn": 43,
            }  # fmt: skip
            assert run["invocations"][0]["executionSuccessful"] is (len(arguments) == 1)
        assert scan("--history", "--format", "sarif").stdout.count(first) >= 2

    def test_a_report_goes_to_a_file(self, scan: Call, folder: Path):
        (folder / "a").write_text(token(1))
        done = scan("a", *JSON, "--output", "report.json")
        assert done.stdout == ""
        assert json.loads((folder / "report.json").read_text())[0]["File"] == "a"


class TestKnown:
    def test_a_report_of_ours_is_a_baseline(self, scan: Call, repository: Repository):
        repository.write("a", f"{token(1)}\n")
        repository.commit()
        for arguments in ((".",), ("--history",)):
            scan(*arguments, *JSON, "--output", "../baseline.json")
            done = scan(*arguments, "--baseline", "../baseline.json")
            assert done.returncode == 0
            assert "1 known" in done.stderr
        repository.write("a", f"{token(1)} {token(2)}\n")
        scan(".", *JSON, "--output", "../baseline.json")
        repository.write("a", f"{token(1)} {token(2)} {token(3)}\n")
        assert scan(".", "--baseline", "../baseline.json", *JSON).places == [("a", 1, 83)]

    def test_a_report_of_gitleaks_is_one_by_the_secret(self, scan: Call, folder: Path):
        (folder / "a").write_text(f"\n\n{token(1)}\n{token(2)}\n")
        entry = {"RuleID": "theirs", "File": "a", "Secret": token(1), "StartLine": 1}
        (folder / "b.json").write_text(json.dumps([entry]))
        assert scan("a", "--baseline", "b.json", *JSON).places == [("a", 4, 1)]

    def test_a_report_of_gitleaks_that_was_redacted_is_one_by_the_place(
        self, scan: Call, folder: Path
    ):
        (folder / "a").write_text(f"{token(1)}\n{token(2)}\n")
        entry = {
            "RuleID": "github-pat", "File": "a", "Secret": "REDACTED", "Commit": "",
            "StartLine": 2, "EndLine": 2, "StartColumn": 1, "EndColumn": 40,
        }  # fmt: skip
        (folder / "b.json").write_text(json.dumps([entry]))
        assert scan("a", "--baseline", "b.json", *JSON).places == [("a", 1, 1)]

    def test_a_report_of_old_that_found_nothing_is_a_baseline(self, scan: Call, folder: Path):
        (folder / "a").write_text(token(1))
        (folder / "b.json").write_text("null")
        assert scan("a", "--baseline", "b.json", *JSON).places == [("a", 1, 1)]

    def test_what_is_known_moves_in_its_file_and_not_to_another(self, scan: Call, folder: Path):
        (folder / "a").write_text(token(1))
        entry = {"RuleID": "github-pat", "File": "a", "Secret": token(1)}
        (folder / "b.json").write_text(json.dumps([entry]))
        (folder / "a").write_text(f"\n\n  {token(1)}")
        assert scan("a", "--baseline", "b.json").returncode == 0
        (folder / "a").rename(folder / "c")
        assert scan("c", "--baseline", "b.json", *JSON).places == [("c", 3, 3)]

    def test_a_file_that_leaks_by_its_name_is_known_as_gitleaks_writes_it(
        self, scan: Call, folder: Path
    ):
        (folder / "rules.toml").write_text("[[rules]]\nid = 'key-file'\npath = '[.]key$'\n")
        (folder / "a.key").write_text("# gitleaks:allow\n")
        rules = ("a.key", "--rules", "rules.toml")
        assert scan(*rules, *JSON).places == [("a.key", 0, 0)]
        assert "a.key\n  name  error     key-file" in scan(*rules).stdout
        entry = {
            "RuleID": "key-file", "File": "a.key", "Secret": "", "Match": "file detected: a.key",
            "StartLine": 0, "EndLine": 0, "StartColumn": 0, "EndColumn": 0,
        }  # fmt: skip
        (folder / "b.json").write_text(json.dumps([entry]))
        assert scan(*rules, "--baseline", "b.json").returncode == 0
        (folder / ".gitleaksignore").write_text("a.key:key-file:0\n")
        assert scan(*rules).returncode == 0

    def test_comments_let_be_unless_told_otherwise(self, scan: Call, folder: Path):
        (folder / "a").write_text(f"{token(1)} # gitleaks:allow\n")
        done = scan("a")
        assert done.returncode == 0
        assert "1 let be by a comment" in done.stderr
        assert scan("a", "--no-comments").returncode == 1

    def test_fingerprints_in_a_file_are_left_out(self, scan: Call, repository: Repository):
        repository.write("a", f"{token(1)}\n")
        repository.write("b", f"{token(2)}\n")
        first = repository.commit()
        repository.write(
            ".gitleaksignore", f"# known\na:github-pat:1\n{first}:b:github-pat:1 # x\n"
        )
        assert scan(".", *JSON).places == [("b", 1, 1)]
        assert scan("--history").returncode == 0
        assert scan(".", "--ignore-file", "/dev/null", *JSON).places == [("a", 1, 1), ("b", 1, 1)]

    def test_a_file_of_fingerprints_that_is_none_is_refused(self, scan: Call, folder: Path):
        (folder / ".gitleaksignore").write_text("a:github-pat:1\nwhat is this\n")
        done = scan(".")
        assert done.returncode == 3
        assert ".gitleaksignore:2" in done.stderr
