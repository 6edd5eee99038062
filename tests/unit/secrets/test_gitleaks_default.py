"""Gitleaks' own rule file loads whole, and finds in files what it is written to find."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from pathlib import Path

import pytest

from aesp_proxy.daemon.rule_cache import compiled_set
from aesp_proxy.decide.secrets.files import FileScanner
from aesp_proxy.decide.secrets.gitleaks import parse_gitleaks
from aesp_proxy.decide.secrets.rule import RuleSet
from aesp_proxy.decide.secrets.rule_set import for_the_wire

FILE = Path(__file__).resolve().parents[2] / "data" / "gitleaks" / "gitleaks.toml"
CHANCE = random.Random(11)


@pytest.fixture(scope="module")
def rules() -> RuleSet:
    return parse_gitleaks(FILE.read_text(), FILE.name)


@pytest.fixture(scope="module")
def scanner(rules: RuleSet) -> FileScanner:
    taken, locator = compiled_set(rules, None)
    assert taken is rules
    return FileScanner(rules, locator)


def test_every_rule_is_taken(rules: RuleSet) -> None:
    assert (len(rules.rules), rules.warnings, len(rules.allow)) == (222, (), 1)


def test_all_but_the_rule_for_names_can_go_on_the_wire(rules: RuleSet) -> None:
    wire = for_the_wire(rules)
    assert len(wire.rules) == 221
    (warning,) = wire.warnings
    assert "'pkcs12-file'" in warning


def _some(count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(CHANCE.choices(alphabet, k=count))


def _digits(count: int) -> str:
    return _some(count, string.digits)


SAMPLES: dict[str, Callable[[], str]] = {
    "github-pat": lambda: f'token = "ghp_{_some(36)}"',
    "gitlab-pat": lambda: f"glpat-{_some(20)}",
    "npm-access-token": lambda: f"//registry/:_authToken=npm_{_some(36).lower()}\n",
    "airtable-personnal-access-token": lambda: f"pat{_some(14)}.{_some(64, 'abcdef0189')} airtable",
    "generic-api-key": lambda: f'client_secret = "{_some(24)}q7"\n',
    "private-key": lambda: f"-----BEGIN PRIVATE KEY-----\n{_some(1700)}\n-----END PRIVATE KEY-----",
    "curl-auth-user": lambda: f"curl -u bob:{_some(14)} https://host.example/",
    "kubernetes-secret-yaml": lambda: f"kind: Secret\ndata:\n  password: {_some(24)}\n",
    "stripe-access-token": lambda: f"sk_live_{_some(24)}",
    "slack-bot-token": lambda: f"xoxb-{_digits(12)}-{_digits(12)}{_some(24)}",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_what_a_rule_is_for_is_found(scanner: FileScanner, name: str) -> None:
    data = b"line one\n" + SAMPLES[name]().encode() + b"\n"
    path = b"deploy/secret.yaml" if name.startswith("kube") else b"src/app.py"
    found = scanner.scan(data, path).found
    assert name in {one.rule.id for one in found}
    assert scanner.scan(data, b"a/node_modules/b.js").found == ()


def test_a_name_alone_and_what_the_allowlists_are_for(scanner: FileScanner) -> None:
    assert [one.rule.id for one in scanner.scan(b"", b"certs/site.pfx").found] == ["pkcs12-file"]
    assert scanner.scan(b'api_key = "${DEPLOY_KEY}"\n', b"a.sh").found == ()
    assert scanner.scan(b'secret = "abcdefghijklmnopqrstuvwxyz"\n', b"a.py").found == ()
