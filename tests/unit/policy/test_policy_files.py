"""Policies and packs from disk: every failure is one clear line, nothing is half loaded."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from aesp_proxy.daemon.pack_files import built_in_dir, read_packs
from aesp_proxy.daemon.policy_compile import VersionTime, compile_file
from aesp_proxy.daemon.policy_files import load_snapshot, read_policy, read_text
from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.policy.compiled_json import to_json
from aesp_proxy.decide.secrets.rule_table import unbroken
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Verdict
from aesp_proxy.model.event import EgressRequest, FileAccess, FileOperation, ToolCall
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.principal import Principal

KEY = b"k" * 32
WHO = Principal(principal_id="", agent_id="", agent_type="", session_id="")


@pytest.fixture(scope="module")
def baseline() -> Snapshot:
    return load_snapshot(None, fingerprint_key=KEY, serial=3)


def request(host: str, **headers: str) -> EgressRequest:
    return EgressRequest(
        event_id="e",
        time_ns=0,
        principal=WHO,
        scheme="https",
        method="POST",
        host=parse_host(host),
        port=443,
        target="/",
        path="/",
        query="",
        headers=tuple((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()),
        http_version="1.1",
    )


def file(path: str) -> FileAccess:
    return FileAccess(
        event_id="e",
        time_ns=0,
        principal=WHO,
        operation=FileOperation.OPEN,
        path=path,
        resolved=path,
    )


def test_the_built_in_baseline_is_used_when_no_policy_is_given(baseline: Snapshot) -> None:
    assert baseline.policy_name == "Baseline for coding agents"
    assert baseline.policy_where == "built-in baseline.yaml"
    assert baseline.serial == 3
    assert baseline.scanner is not None
    assert len(baseline.scanner.rules) == len(read_packs())
    assert baseline.warnings == ()


POLICIES = sorted(
    path for path in built_in_dir().glob("*.yaml") if not path.name.endswith(".test.yaml")
)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_every_ready_policy_loads_and_refuses_secrets_and_drop_sites(path: Path) -> None:
    snapshot = load_snapshot(path, fingerprint_key=KEY, serial=1)
    assert all(warning.endswith("has no effect yet") for warning in snapshot.warnings)
    assert {guard.name for guard in snapshot.guards} >= {
        "egress_allowlist",
        "forbidden_path",
        "mcp_tool",
        "secret_leak",
    }
    for secret in ("/home/x/.ssh/id_rsa", "/w/.env", "/w/server.pem"):
        assert decide(file(secret), snapshot).verdict is Verdict.DENY
    assert decide(request("pastebin.com"), snapshot).verdict is Verdict.DENY
    assert decide(request("127.0.0.1"), snapshot).verdict is Verdict.DENY
    assert decide(request("api.anthropic.com"), snapshot).verdict.passes


@pytest.mark.parametrize(
    ("host", "verdict"),
    [
        ("api.openai.com", Verdict.ALLOW),
        ("pypi.org", Verdict.ALLOW),
        ("registry.npmjs.org", Verdict.ALLOW),
        ("github.com", Verdict.ALLOW),
        ("bedrock-runtime.eu-west-1.amazonaws.com", Verdict.ALLOW),
        ("s3.amazonaws.com", Verdict.DENY),
        ("example.com", Verdict.DENY),
        ("gist.github.com", Verdict.DENY),
        ("x.ngrok.io", Verdict.DENY),
    ],
)
def test_the_baseline_lets_a_coding_agent_work_and_no_more(
    host: str, verdict: Verdict, baseline: Snapshot
) -> None:
    assert decide(request(host), baseline).verdict is verdict


def test_the_baseline_asks_for_what_cannot_be_undone(baseline: Snapshot) -> None:
    calls = {
        name: decide(
            ToolCall(
                event_id="e", time_ns=0, principal=WHO, server="s", name=name, arguments=b"{}"
            ),
            baseline,
        ).verdict
        for name in ("read_file", "delete_repo", "anything")
    }
    assert calls == {
        "read_file": Verdict.ALLOW,
        "delete_repo": Verdict.ASK,
        "anything": Verdict.DENY,
    }


def test_a_credential_of_the_baseline_goes_home_and_nowhere_else(baseline: Snapshot) -> None:
    rule = next(rule for rule in read_packs() if rule.id == "github-pat")
    token = unbroken(rule.positives[0].decode()).decode()
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    for value in (f"Bearer {token}", f"Basic {basic}"):
        home = decide(request("api.github.com", authorization=value), baseline)
        assert home.verdict is Verdict.ALLOW
        assert home.findings
        away = decide(request("api.openai.com", authorization=value), baseline)
        assert away.verdict is Verdict.DENY
    assert decide(request("api.github.com", x_note=token), baseline).verdict is Verdict.DENY


def test_a_policy_file_is_read_with_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b'\xef\xbb\xbfversion: "1.1.0"\r\nname: x\r\n')
    policy = read_policy(path)
    assert (policy.name, policy.version, policy.where) == ("x", "1.1.0", str(path))


def test_a_missing_policy_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_policy(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path}/none.yaml: no such file (check the path)"


def test_a_directory_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r": a directory, not a file \(name the file\)$"):
        read_policy(tmp_path)


def test_an_unreadable_policy_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("x")
    path.chmod(0)
    if os.geteuid() == 0:  # root may read it, so the refusal is injected
        refusal = PermissionError(13, "Permission denied")
        monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(refusal))
    with pytest.raises(ConfigError, match=r": may not be read \(give this user the right"):
        read_policy(path)


def test_a_policy_that_is_not_utf_8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError) as caught:
        read_policy(path)
    assert str(caught.value) == f"{path}:2: not UTF-8"


def test_a_policy_over_4_mib_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConfigError, match=r": larger than 4 MiB$"):
        read_policy(path)


@pytest.mark.parametrize("path", [Path("a\x00b"), Path("x" * 5000)])
def test_a_path_that_cannot_be_is_one_clear_line(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: "):
        read_text(path)


def test_a_policy_comes_through_a_pipe_too() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b'version: "1.2.0"\n')
    finally:
        os.close(writer)
    try:
        assert read_policy(Path(f"/dev/fd/{reader}")).version == "1.2.0"
    finally:
        os.close(reader)


def test_a_bad_policy_gives_no_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        'version: "1.2.0"\nguards: {secret_leak: {patterns: [{name: a, pattern: "("}]}}\n'
    )
    with pytest.raises(ConfigError, match=rf"^{path}:2:54: "):
        load_snapshot(path, fingerprint_key=KEY, serial=1)


def test_a_compiled_policy_may_be_larger_than_a_written_one(tmp_path: Path) -> None:
    rules = "".join(
        f"  - {{policy_id: r{n}, applies_to: ['egress:h{n}.example'],"
        " rule: {condition: 'true', effect: DENY}}\n"
        for n in range(7000)
    )
    path = tmp_path / "p.yaml"
    path.write_text(f'version: "1.2.0"\nrules:\n{rules}')
    made = compile_file(path, time=VersionTime(seconds=0, source=""))
    compiled = tmp_path / "p.json"
    compiled.write_bytes(to_json(made))
    assert compiled.stat().st_size > 4 * 2**20
    assert read_policy(compiled).hash == made.policy.hash
