"""What ``policy lint`` finds in lists and rules, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from aesp_proxy.cli.policy.lint_files import attempt, lint_file
from aesp_proxy.decide.policy.lint.finding import LintFinding

ROOT = Path(__file__).parents[3]
PACKS = sorted(
    path
    for path in (ROOT / "policies").rglob("*.yaml")
    if not path.name.endswith(".test.yaml") and path.parent.name != "governance"
)

Lint = Callable[[str], list[LintFinding]]


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    """Lint guards and rules given as YAML below the top."""

    def call(text: str) -> list[LintFinding]:
        path = tmp_path / "p.yaml"
        path.write_text('version: "1.2.0"\nname: p\n' + dedent(text))
        return list(lint_file(path))

    return call


def rule(policy_id: str, condition: str, effect: str = "DENY", **more: object) -> str:
    extra = "".join(f", {key}: {value}" for key, value in more.items())
    body = f'{{condition: "{condition}", effect: {effect}}}'
    return f"  - {{policy_id: {policy_id}{extra}, rule: {body}}}\n"


def rules(*items: str) -> str:
    return "rules:\n" + "".join(items)


def hosts(allow: str, block: str = "", default: str = "block") -> str:
    return (
        "guards:\n  egress_allowlist:\n"
        f"    allow: [{allow}]\n    block: [{block}]\n    default_action: {default}\n"
    )


def checks(findings: list[LintFinding]) -> list[str]:
    return [each.check for each in findings]


@pytest.mark.parametrize("pack", PACKS, ids=lambda path: path.name)
def test_no_policy_that_comes_along_has_a_warning(pack: Path) -> None:
    assert [each for each in lint_file(pack) if each.level != "note"] == []


@pytest.mark.parametrize(
    ("entry", "check"),
    [
        ('"*"', "host-too-broad"),
        ('"*.com"', "host-too-broad"),
        ('"*.co.uk"', "host-too-broad"),
        ('"api.*"', "host-too-broad"),
        ("0.0.0.0/0", "host-too-broad"),
        ('"::/0"', "host-too-broad"),
        ("64.0.0.0/2", "host-too-broad"),
        ('"*.github.io"', "host-multi-tenant"),
    ],
)
def test_an_entry_that_is_too_broad_is_told_with_a_host(lint: Lint, entry: str, check: str) -> None:
    (found,) = lint(hosts(entry))
    assert (found.check, found.level, found.place[1:]) == (check, "warning", (5, 13))
    assert found.witness is not None
    assert attempt(found.witness) is not None


@pytest.mark.parametrize(
    "entry",
    [
        "api.example.com",
        '"*.example.com"',
        '"*.corp.example:*"',
        "10.0.0.0/8",
        '"fd00::/8"',
        '"bedrock-runtime.*.amazonaws.com"',
        '"*-aiplatform.googleapis.com"',
    ],
)
def test_an_entry_that_names_what_somebody_owns_is_not_told(lint: Lint, entry: str) -> None:
    assert lint(hosts(entry)) == []


def test_the_default_that_allows_is_a_warning_and_the_one_that_records_a_note(lint: Lint) -> None:
    (allow,) = lint(hosts("a.example", default="allow"))
    (log,) = lint(hosts("a.example", default="log"))
    assert (allow.check, allow.level, allow.place[1]) == ("default-allows", "warning", 7)
    assert (log.check, log.level) == ("default-allows", "note")


@pytest.mark.parametrize(
    ("allow", "block"),
    [
        ("a.example", '"*.example"'),
        ("a.example", '"*"'),
        ('"*.a.example"', '"*.example"'),
        ('"a.example:8443"', "a.example"),
        ("10.1.0.0/16", "10.0.0.0/8"),
        ("10.1.2.3", '"*"'),
    ],
)
def test_an_allowed_entry_that_is_blocked_is_dead(lint: Lint, allow: str, block: str) -> None:
    (found,) = lint(hosts(allow, block))
    assert found.check == "allow-blocked"
    assert found.related[0].source.endswith(":6")


@pytest.mark.parametrize(
    ("allow", "block"),
    [
        ("a.example", '"a.example:22"'),
        ('"*.example.com"', "a.example.com"),
        ("example.com", '"*.example.com"'),
        ("11.1.0.0/16", "10.0.0.0/8"),
    ],
)
def test_an_allowed_entry_of_which_something_is_left_is_not_dead(
    lint: Lint, allow: str, block: str
) -> None:
    assert lint(hosts(allow, block)) == []


def test_entries_that_others_cover_are_redundant_and_of_twins_the_later_one(lint: Lint) -> None:
    found = lint(hosts('a.b.example, "*.b.example", "*.B.example"', 'x.c.example, "*.c.example"'))
    assert [(each.check, each.message) for each in found] == [
        ("allow-redundant", "a.b.example is allowed by *.b.example already"),
        ("allow-redundant", "*.B.example is allowed by *.b.example already"),
        ("block-redundant", "x.c.example is blocked by *.c.example already"),
    ]


def test_an_entry_that_stands_twice_is_told_once_with_both_places(lint: Lint) -> None:
    (found,) = lint(hosts("a.b.example, a.b.example"))
    assert (found.check, found.place[1:], found.level) == ("entry-duplicate", (5, 26), "note")


def paths(patterns: str, exceptions: str = "", more: str = "") -> str:
    return (
        "guards:\n  forbidden_path:\n"
        f"    patterns: [{patterns}]\n    exceptions: [{exceptions}]\n{more}"
    )


def test_a_pattern_below_another_is_redundant(lint: Lint) -> None:
    (found,) = lint(paths("/root/.ssh/**, /root/**"))
    assert found.check == "path-redundant"
    assert found.message == "/root/.ssh/** is forbidden by /root/** already"


def test_patterns_that_only_meet_are_left_alone(lint: Lint) -> None:
    assert lint(paths('"**/.ssh/**", "/root/**", "/Root-x/*.[!a]"')) == []


@pytest.mark.parametrize("exception", ["/opt/x", '"/opt/**/*.py"', '"/rooty/*.py"'])
def test_an_exception_that_meets_no_pattern_lifts_nothing(lint: Lint, exception: str) -> None:
    (found,) = lint(paths('"/root/**", "**/*.key"', exception))
    assert (found.check, found.level) == ("exception-lifts-nothing", "warning")


@pytest.mark.parametrize(
    "exception", ['"**/x.KEY"', '"/ROOT/x"', '"**/[!a].key"', '"/{root,opt}/y"']
)
def test_an_exception_that_may_meet_a_pattern_is_left_alone(lint: Lint, exception: str) -> None:
    assert lint(paths('"/root/**", "**/*.key"', exception)) == []


def test_an_exception_that_lifts_all_of_a_pattern_is_told(lint: Lint) -> None:
    (found,) = lint(paths('"/root/**", "**/*.key"', '"/**"'))
    assert found.check == "exception-lifts-pattern"
    assert found.message == "/** lifts everything that is forbidden"


def test_what_is_allowed_and_forbidden_is_dead_unless_it_is_excepted(lint: Lint) -> None:
    more = '  path_allowlist: {file_write_allow: ["/w/**/.ENV"], file_access_allow: [/w/x]}\n'
    (found,) = lint(paths('"**/.env"', more=more))
    assert found.check == "path-allow-forbidden"
    assert lint(paths('"**/.env"', '"/w/a/.ENV"', more=more)) == []


def test_a_path_list_that_allows_everything_is_told(lint: Lint) -> None:
    more = '  path_allowlist: {file_write_allow: ["/**"], file_access_allow: ["**"]}\n'
    found = lint(paths("/etc/shadow", more=more))
    assert [(each.check, each.level) for each in found] == [
        ("path-too-broad", "warning"),
        ("path-too-broad", "note"),
    ]


def test_tools_that_are_blocked_redundant_or_everything_are_told(lint: Lint) -> None:
    found = lint(
        """\
        guards:
          mcp_tool:
            allow: [read_*, read_file, Shell_Exec, "*"]
            block: ["*shell*", my_shell]
            require_confirmation: [a_shell]
        """
    )
    told = {(each.check, each.message.split()[0]) for each in found}
    assert told >= {
        ("allow-blocked", "Shell_Exec"),
        ("allow-redundant", "read_file"),
        ("tool-too-broad", "*"),
        ("block-redundant", "my_shell"),
        ("confirmation-dead", "a_shell"),
    }


def test_patterns_of_secrets_and_patches_that_match_too_much_are_told(lint: Lint) -> None:
    found = lint(
        """\
        guards:
          secret_leak:
            skip_paths: ["**"]
            patterns:
              - {name: words, pattern: "[a-z]{3}"}
              - {name: digits, pattern: "[0-9]{16}"}
              - {name: good, pattern: "CORP-[A-Z0-9]{16}"}
          patch_integrity:
            forbidden_patterns: [".", "eval[(]"]
          mcp_tool: {allow: [a]}
        """
    )
    assert checks(found) == [
        "secret-search-skipped",
        "secret-pattern-broad",
        "secret-pattern-slow",
        "patch-pattern-broad",
    ]


def test_guards_that_are_off_are_told_content_guards_louder(lint: Lint) -> None:
    found = lint(
        """\
        guards:
          secret_leak: {enabled: false}
          egress_allowlist: {enabled: false}
          mcp_tool: {allow: [a]}
        """
    )
    assert [(each.check, each.level) for each in found] == [
        ("guard-off", "warning"),
        ("guard-off", "note"),
    ]


def test_a_credential_for_a_host_that_nothing_allows_is_told(lint: Lint) -> None:
    text = hosts('"*.a.example", "x*.b.example"') + (
        "  secret_leak:\n    credentials:\n      - rule: github-*\n"
        '        hosts: [c.a.example, x1.b.example, "*.b.example", c.example]\n'
        "        headers: [authorization]\n"
    )
    (found,) = lint(text)
    assert (found.check, found.place[1:]) == ("credential-unreachable", (11, 59))
    allowing = rules(rule("a", "true", "ALLOW", applies_to="['egress:c.example']", version="1"))
    assert "credential-unreachable" not in checks(lint(text + allowing))


def actions(*entries: str, more: str = "") -> str:
    listed = "".join(f"      - {{{entry}}}\n" for entry in entries)
    return hosts('"*.a.example"') + f"  secret_leak:\n{more}    actions:\n{listed}"


BELOW = "severity_threshold: error"


@pytest.mark.parametrize(
    ("entries", "more", "told"),
    [
        (("rule: github-*, action: record, hosts: [b.example]",), "", "action-unreachable"),
        (("rule: github-*, action: redact, severity: warning",), BELOW, "action-without-effect"),
        (("rule: github-*, action: redact",), "redact: true", "action-without-effect"),
        (
            ("rule: '*', action: record", "rule: github-pat, action: redact"),
            "",
            "action-without-effect",
        ),
        (
            ("rule: github-pat, action: redact", "rule: github-pat, action: redact"),
            "",
            "action-without-effect",
        ),
        (
            (
                "rule: 'git*', action: record, hosts: ['*.a.example']",
                "rule: github-pat, action: record, hosts: [x.a.example], severity: error",
            ),
            "",
            "action-without-effect",
        ),
    ],
    ids=["host", "below", "redact", "milder", "twice", "within"],
)
def test_an_action_that_never_decides_is_told(
    lint: Lint, entries: tuple[str, ...], more: str, told: str
) -> None:
    found = lint(actions(*entries, more=f"    {more}\n" if more else ""))
    assert checks(found) == [told]


def test_actions_that_decide_are_left_alone(lint: Lint) -> None:
    text = actions(
        "rule: github-pat, action: record, hosts: [x.a.example]",
        "rule: github-pat, action: redact",
        "rule: 'git*', action: redact, severity: error",
        "rule: 'registered:*', action: record, hosts: ['*.a.example']",
    )
    assert checks(lint(text)) == []


def test_what_has_no_effect_yet_is_a_note_at_its_place(lint: Lint) -> None:
    (found,) = lint("guards: {mcp_tool: {allow: [a]}}\nsettings: {verbose_logging: true}\n")
    assert (found.check, found.place[1]) == ("loader-note", 4)
