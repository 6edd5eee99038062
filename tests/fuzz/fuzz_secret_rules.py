"""Fuzz the rule loader: any text is a set of rules or a ConfigError, and never a hang.

What is taken must be usable: both engines compile it, and neither takes the empty
string. Run alone under atheris, or from pytest with random bytes.
"""

from __future__ import annotations

import sys

from aesp_proxy.decide.secrets.files import FileScanner
from aesp_proxy.decide.secrets.gitleaks import parse_gitleaks
from aesp_proxy.decide.secrets.reference import Confirmer
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rule_set import for_the_wire, without_refused
from aesp_proxy.decide.secrets.rules import parse_rules, rule_from_policy
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity

FRAME = "[[rules]]\nid = 'a'\ndescription = 'a'\nseverity = 'error'\n"
CHARS_MAX = 400


def fuzz_one(data: bytes) -> None:
    """Take ``data`` as a rule file, as the rest of a rule, and as a pattern of a policy."""
    text = data[:CHARS_MAX].decode("utf-8", "replace")
    for file in (text, FRAME + text, FRAME + "regex = '''" + text.replace("'", "") + "'''\n"):
        try:
            _usable(parse_rules(file, "fuzz.toml"))
        except ConfigError as error:
            _told(error, "fuzz.toml")
        _as_gitleaks(file)
    try:
        _usable((rule_from_policy("a", text, Severity.ERROR, where="fuzz.yaml:1"),))
    except ConfigError as error:
        _told(error, "fuzz.yaml:1")


def _as_gitleaks(text: str) -> None:
    """Take a text as a file of another program: taken rule by rule, with a line for each."""
    try:
        found = without_refused(parse_gitleaks(text, "fuzz.toml"))
    except ConfigError as error:
        _told(error, "fuzz.toml")
        return
    if not all(line.isprintable() and line.startswith("fuzz.toml") for line in found.warnings):
        raise AssertionError(f"a line that cannot be shown: {found.warnings!r}")
    if FileScanner(found).scan(b"", b"a/name").found and not any(
        rule.path_only for rule in found.rules
    ):
        raise AssertionError("something is found in nothing")
    wire = for_the_wire(found).rules
    if wire:
        _usable(wire)


def _usable(rules: tuple[Rule, ...]) -> None:
    if SecretScanner(rules, b"a key that is used by no one").scan(b"", "body"):
        raise AssertionError("something is found in nothing")
    if Confirmer(rules).find(b""):
        raise AssertionError("a rule matches nothing at all")


def _told(error: ConfigError, where: str) -> None:
    if not str(error).startswith(where) or "\n" in error.message or not error.message.isprintable():
        raise AssertionError(f"a reason that cannot be shown: {error!r}")


if __name__ == "__main__":
    import atheris  # type: ignore[import-not-found]

    atheris.instrument_all()
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
