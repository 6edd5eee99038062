"""What an operator wrote in the wrong place is quoted by its beginning where it may be a token."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from aesp_proxy.cli import main
from aesp_proxy.daemon.config_load import load
from aesp_proxy.daemon.config_secrets import Secrets
from aesp_proxy.daemon.secret_sources import from_source
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.errors import ConfigError, TrustError

SECRET = "q9Zt4LmX0vKc7RbYw2NsD5hJ8gFp3TaUe6WiQo1"
GUARDS = (
    'version: "1.2.0"\nname: p\nguards:\n  egress_allowlist: {default_action: block, allow: [A]}\n'
)
POLICIES = {
    "version": f"version: {SECRET}\n",
    "host": GUARDS.replace("A", f"'{SECRET}/x'"),
    "url": GUARDS.replace("A", f"'https://u:{SECRET}@a.example/'"),
    "action": GUARDS.replace("block", SECRET),
    "resource": GUARDS
    + f"rules: [{{policy_id: r, applies_to: ['{SECRET}'], rule: {{condition: 'true'}}}}]\n",
    "port": GUARDS
    + f"  secret_leak: {{credentials: [{{rule: r, hosts: ['{SECRET}:x'], headers: [a]}}]}}\n",
    "path": GUARDS + f"  secret_leak: {{skip_paths: ['{SECRET}[']}}\n",
}


@pytest.mark.parametrize("text", POLICIES.values(), ids=POLICIES)
def test_of_a_policy(text: str):
    with pytest.raises(ConfigError) as raised:
        load_policy(text, "p.yaml")
    assert SECRET[4:] not in str(raised.value)


@pytest.mark.parametrize(
    ("environ", "file"),
    [
        ({f"AESP_NO_{SECRET}": "x"}, ""),
        ({"AESP_LISTEN_PORT": SECRET}, ""),
        ({}, f"{SECRET}: 1\n"),
        ({}, f"upstream: {{resolve: {{a.example: '{SECRET}'}}}}\n"),
        ({}, f"upstream: {{proxy: ['{SECRET}']}}\n"),
    ],
)
def test_of_settings(tmp_path: Path, environ: dict[str, str], file: str):
    (tmp_path / "c.yaml").write_text(file)
    with pytest.raises(ConfigError) as raised:
        load(environ=environ, is_root=False, flags={}, file=tmp_path / "c.yaml")
    assert SECRET[4:] not in str(raised.value)


def test_of_sources_of_secrets():
    with pytest.raises(ConfigError) as raised:
        from_source(SECRET, Secrets(), None)
    assert SECRET[4:] not in str(raised.value)


def test_of_a_command_line():
    said = CliRunner().invoke(main, ["enroll", f"aesp1.{SECRET}"]).output
    assert "unexpected extra argument (aesp1.q9Zt...)" in said


def test_words_names_and_numbers_stay_and_what_others_signed_is_told_whole():
    texts = (
        "unknown setting isolation.allow_degraded_mode", "port 99999999999999999999",
        "file-2026-11-26T14-00-00.batch", "no such pack: personalinformation",
    )  # fmt: skip
    assert [str(ConfigError(text)) for text in texts] == list(texts)
    assert SECRET in str(TrustError(f"another key: {SECRET}"))
