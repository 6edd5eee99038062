"""Loading a policy: whole or not at all, each refusal with its place, reason and remedy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.policy import schema
from aesp_proxy.decide.policy.load import BUILT_IN_PATHS, load_policy
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Severity, Verdict

HEAD = 'version: "1.2.0"\n'


def guards(text: str) -> str:
    return HEAD + "guards:\n" + "".join(f"  {line}\n" for line in text.splitlines())


BAD = [
    ("", "p.yaml: the file is empty"),
    ("# nothing\n", "p.yaml: the file is empty"),
    ("- a\n", "p.yaml:1:1: expected keys and values at the top"),
    ("just words\n", "p.yaml:1:1: expected keys and values at the top"),
    ("name: x\n", 'p.yaml:1:1: version is missing (begin with version: "1.2.0")'),
    (
        'version: "2.0.0"\n',
        "p.yaml:1:10: unsupported version '2.0.0' (this version reads 1.1.0 and 1.2.0)",
    ),
    (
        "version: 1.2\n",
        "p.yaml:1:10: unsupported version '1.2' (this version reads 1.1.0 and 1.2.0)",
    ),
    (
        'version: "1.0.0"\nhierarchy: []\n',
        (
            "p.yaml:1:10: version 1.0.0 is the hierarchy file (levels and override_rules), not a"
            " policy (give one of the policies that it names, or policy compile)"
        ),
    ),
    (
        HEAD + "guard: {}\n",
        "p.yaml:2:1: unknown key 'guard' in the policy (did you mean 'guards'?)",
    ),
    (
        guards("egress_allowlist:\n  alow: []"),
        "p.yaml:4:5: unknown key 'alow' in guards.egress_allowlist (did you mean 'allow'?)",
    ),
    (
        guards("secret_leak:\n  patterns:\n    - nam: x\n      pattern: y"),
        "p.yaml:5:9: unknown key 'nam' in guards.secret_leak.patterns (did you mean 'name'?)",
    ),
    (
        guards("secret_leak:\n  zzz: 1"),
        (
            "p.yaml:4:5: unknown key 'zzz' in guards.secret_leak (known keys: actions,"
            " additional_packs, additional_patterns, credentials, enabled, packs, patterns, redact,"
            " remove_packs, remove_patterns, severity_threshold, skip_paths,"
            " unscannable)"
        ),
    ),
    (
        guards("egress_allowlist:\n  enabled: null"),
        "p.yaml:4:14: guards.egress_allowlist.enabled is null (give it a value or take it out)",
    ),
    (
        guards("egress_allowlist:\n  enabled:"),
        "p.yaml:4:13: guards.egress_allowlist.enabled is null (give it a value or take it out)",
    ),
    (
        guards("egress_allowlist:\n  enabled: yes"),
        "p.yaml:4:14: guards.egress_allowlist.enabled: expected true or false, found 'yes'",
    ),
    (
        guards('egress_allowlist:\n  enabled: "true"'),
        (
            "p.yaml:4:14: guards.egress_allowlist.enabled: expected true or false, found the text"
            " 'true'"
        ),
    ),
    (
        guards("egress_allowlist:\n  default_action: permit"),
        (
            "p.yaml:4:21: guards.egress_allowlist.default_action: expected allow or log or block,"
            " found 'permit'"
        ),
    ),
    (
        guards("egress_allowlist:\n  allow: example.com"),
        "p.yaml:4:12: guards.egress_allowlist.allow: expected a list of texts, found 'example.com'",
    ),
    (
        guards("egress_allowlist:\n  allow:\n    - a.example\n    -"),
        "p.yaml:6:8: guards.egress_allowlist.allow holds an empty item",
    ),
    (
        guards("egress_allowlist:\n  allow: [{a: b}]"),
        "p.yaml:4:13: guards.egress_allowlist.allow: expected a text, found keys and values",
    ),
    (
        guards("egress_allowlist: []"),
        "p.yaml:3:21: guards.egress_allowlist: expected keys and values, found a list",
    ),
    (
        guards("egress_allowlist:\n  allow: []\n  allow: []"),
        "p.yaml:5:5: the key 'allow' stands twice (first on line 4)",
    ),
    (
        guards("egress_allowlist:\n  allow: [https://a.example/]"),
        "p.yaml:4:13: bad host pattern 'https://a.example/': a URL; write the host only",
    ),
    (
        guards("egress_allowlist:\n  allow: [a b]"),
        "p.yaml:4:13: bad host pattern 'a b': a space is not part of a host",
    ),
    (
        guards("egress_allowlist:\n  block: ['*pastebin*']"),
        (
            "p.yaml:4:13: bad host pattern '*pastebin*': a '*' does not cross a dot, so this never"
            " matches; write *.NAME"
        ),
    ),
    (
        guards("forbidden_path:\n  patterns: ['*.pem']"),
        (
            "p.yaml:4:16: bad path pattern '*.pem': a path pattern begins with / or **/, else it"
            " would never match"
        ),
    ),
    (
        guards("forbidden_path:\n  exceptions: ['/a/[b']"),
        "p.yaml:4:18: bad path pattern '/a/[b': a '[' that is not closed",
    ),
    (
        guards("mcp_tool:\n  allow: [a/b/c]"),
        "p.yaml:4:13: bad tool pattern 'a/b/c': write TOOL or SERVER/TOOL",
    ),
    (
        guards("mcp_tool:\n  max_args_size: -1"),
        (
            "p.yaml:4:20: guards.mcp_tool.max_args_size: expected a whole number, 0 or more, found"
            " '-1'"
        ),
    ),
    (
        guards("mcp_tool:\n  max_args_size: 1e9"),
        (
            "p.yaml:4:20: guards.mcp_tool.max_args_size: expected a whole number, 0 or more, found"
            " '1e9'"
        ),
    ),
    (
        guards("mcp_tool:\n  max_args_size: 99999999999999999999"),
        (
            "p.yaml:4:20: guards.mcp_tool.max_args_size: expected a whole number, 0 or more, found"
            " '99999999999999999999'"
        ),
    ),
    (
        guards("secret_leak:\n  patterns: [{name: x}]"),
        "p.yaml:4:16: guards.secret_leak.patterns.pattern is missing",
    ),
    (
        guards(
            "secret_leak:\n  patterns:\n    - {name: x, pattern: a1}\n    - {name: x, pattern: b1}"
        ),
        "p.yaml:6:16: the pattern 'x' stands twice (first at p.yaml:5)",
    ),
    (
        guards("secret_leak:\n  severity_threshold: high"),
        (
            "p.yaml:4:25: guards.secret_leak.severity_threshold: expected critical or error or"
            " warning or info, found 'high'"
        ),
    ),
    (
        HEAD + "settings:\n  session_timeout_secs: 1h\n",
        (
            "p.yaml:3:25: settings.session_timeout_secs: expected a whole number, 0 or more, found"
            " '1h'"
        ),
    ),
    (HEAD + "a: *x\n", "p.yaml:2:4: anchors and aliases are not accepted; write the value out"),
    (
        HEAD + "a: &x 1\n",
        "p.yaml:2:4: anchors and aliases are not accepted; write the value out",
    ),
    (
        HEAD + "<<: {name: x}\n",
        "p.yaml:2:1: merge keys (<<) are not accepted; write the keys out",
    ),
    (HEAD + "name: !!str x\n", "p.yaml:2:7: tags (!...) are not accepted"),
    (HEAD + "---\n" + HEAD, "p.yaml:2:1: a second document; one file holds one policy"),
    (HEAD + "name: [\n", "p.yaml:3:1: not valid YAML: did not find expected node content"),
    (
        guards("egress_allowlist:\n  allow:\n    - *.example.com"),
        (
            "p.yaml:5:10: not valid YAML: did not find expected alphabetic or numeric character"
            " (a value that begins with * stands in quotes)"
        ),
    ),
    (
        guards("egress_allowlist:\n  allow:\n    - [fd00::/8]:443\n"),
        (
            "p.yaml:5:19: not valid YAML: did not find expected '-' indicator"
            " (a value that begins with [ stands in quotes)"
        ),
    ),
    (
        HEAD + "name: @x\n",
        (
            "p.yaml:2:7: not valid YAML: found character that cannot start any token"
            " (a value that begins with @ stands in quotes)"
        ),
    ),
    (HEAD + "name: 'x\n", "p.yaml:3:1: not valid YAML: found unexpected end of stream"),
    (
        HEAD + "\tname: x\n",
        "p.yaml:2:1: not valid YAML: found character that cannot start any token",
    ),
    (HEAD + "name: \x07\n", "p.yaml: not valid YAML: control characters are not allowed"),
    ("[" * 5000, "p.yaml:1:17: nested deeper than 16 levels"),
    (HEAD + "name: " + "x" * 70000, "p.yaml:2:7: a value longer than 65536 characters"),
    ("x" * (4 * 2**20 + 1), "p.yaml: larger than 4 MiB"),
    (
        HEAD + "locked: [" + "a," * 50_001 + "]",
        "p.yaml:2:100010: a list of more than 50000 items",
    ),
    (
        guards("forbidden_path:\n  patterns: [" + "/a," * 5_001 + "]"),
        "p.yaml:4:16: a list of more than 5000 path patterns",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_a_bad_policy_is_refused_with_place_reason_and_remedy(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy(text, "p.yaml")
    assert str(caught.value) == message


def test_extends_is_refused_where_only_the_text_is_here() -> None:
    with pytest.raises(
        ConfigError, match=r"^p.yaml:2:10: extends needs the files beside"
    ) as caught:
        load_policy(HEAD + "extends: global/baseline\n", "p.yaml")
    assert "--policy FILE" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        guards("path_allowlist:\n  enabled: false\n  file_access_allow: [/w/**]"),
        guards("patch_integrity: {enabled: false, max_imbalance_ratio: 2.5}"),
        HEAD + "rules: []\nlocked: []\n",
        HEAD + "merge_strategy: merge\n",
        guards("forbidden_path: {enabled: false, additional_patterns: [/x]}"),
        guards("egress_allowlist: {additional_allow: []}"),
    ],
)
def test_what_is_switched_off_or_empty_loads(text: str) -> None:
    assert load_policy(text, "p.yaml").version == "1.2.0"


def test_a_section_that_is_switched_off_is_still_checked_for_unknown_keys() -> None:
    with pytest.raises(ConfigError, match="unknown key 'max_addition'"):
        load_policy(guards("patch_integrity: {enabled: false, max_addition: 1}"), "p.yaml")


def test_nothing_that_is_left_out_allows() -> None:
    policy = load_policy(guards("egress_allowlist: {}\nmcp_tool: {}"), "p.yaml")
    assert policy.egress is not None
    assert policy.egress.allow == ()
    assert policy.egress.default_verdict is Verdict.DENY
    assert policy.tools is not None
    assert policy.tools.default_verdict is Verdict.DENY
    assert policy.paths is None
    assert policy.secrets.enabled
    assert policy.secrets.severity_threshold is Severity.ERROR


def test_a_policy_without_guards_loads_and_says_that_it_refuses_everything() -> None:
    policy = load_policy(HEAD, "p.yaml")
    assert policy.warnings == ("p.yaml: no guard is on, so every event is refused",)


def test_forbidden_path_without_patterns_has_the_built_in_ones() -> None:
    policy = load_policy(guards("forbidden_path: {}"), "p.yaml")
    assert policy.paths is not None
    assert tuple(item.value for item in policy.paths.patterns) == BUILT_IN_PATHS
    assert policy.paths.patterns[0].source == "p.yaml:3 (built-in patterns)"


def test_forbidden_path_with_an_empty_list_says_that_it_forbids_nothing() -> None:
    policy = load_policy(guards("forbidden_path: {patterns: []}"), "p.yaml")
    assert policy.warnings == ("p.yaml:3: forbidden_path forbids nothing",)


def test_every_item_keeps_its_line() -> None:
    policy = load_policy(
        guards("egress_allowlist:\n  allow:\n    - a.example\n    - b.example"), "p"
    )
    assert policy.egress is not None
    assert [rule.source for rule in policy.egress.allow] == ["p:5", "p:6"]
    assert policy.egress.source == "p:3"
    assert policy.egress.allow_source == "p:4"


def test_settings_and_switches_without_effect_are_told() -> None:
    text = guards("egress_allowlist: {}")
    policy = load_policy(
        text + "settings: {verbose_logging: true, session_timeout_secs: 5, fail_fast: true}\n", "p"
    )
    assert policy.settings.fail_fast
    assert policy.warnings == (
        "p:4:35: settings.session_timeout_secs has no effect yet",
        "p:4:12: settings.verbose_logging has no effect yet",
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"""'"type"\\s*:\\s*"service_account"'""", r'"type"\s*:\s*"service_account"'),
        (r"'\\b\\d{3}-\\d{2}\\b'", r"\b\d{3}-\d{2}\b"),
        (r'"\\b\\d{3}"', r"\b\d{3}"),
        (r"'\b\d{3}'", r"\b\d{3}"),
        (r"'C:\\Users\\x'", r"C:\\Users\\x"),
        (r"'\\d\s'", r"\\d\s"),
        (r"MRN[:-]?\s*\d{8,12}", r"MRN[:-]?\s*\d{8,12}"),
    ],
)
def test_patterns_with_doubled_backslashes_in_single_quotes_mean_what_they_say(
    written: str, read: str
) -> None:
    text = guards(f"secret_leak:\n  patterns:\n    - name: x\n      pattern: {written}")
    assert load_policy(text, "p").secrets.patterns[0].pattern.value == read


def test_the_hash_is_of_the_meaning_and_not_of_the_writing() -> None:
    one = load_policy(guards("egress_allowlist:\n  allow: [a.example, b.example]"), "one")
    two = load_policy(
        "# a comment\n"
        + guards('egress_allowlist:\n  enabled: true\n  allow: ["b.example", a.example]'),
        "two",
    )
    three = load_policy(guards("egress_allowlist:\n  allow: [a.example]"), "one")
    assert one.hash == two.hash
    assert one.hash != three.hash
    assert len(one.hash) == 64


@pytest.mark.parametrize(
    "change",
    [
        "egress_allowlist: {default_action: log}",
        "egress_allowlist: {block: [a.example]}",
        "forbidden_path: {patterns: [/x]}",
        "forbidden_path: {patterns: [/x], exceptions: [/x]}",
        "secret_leak: {enabled: false}",
        "secret_leak: {severity_threshold: info}",
        "secret_leak: {skip_paths: [/x]}",
        "secret_leak: {patterns: [{name: a, pattern: abc}]}",
        "secret_leak: {patterns: [{name: a, pattern: abc, luhn_check: true}]}",
        "secret_leak: {patterns: [{name: a, pattern: abc, validate: [luhn, mixed]}]}",
        "secret_leak: {patterns: [{name: a, pattern: abc, keywords: [x]}]}",
        "secret_leak: {patterns: [{name: a, pattern: abc, entropy: 2.5}]}",
        "secret_leak: {patterns: [{name: a, pattern: 'a(b)c', secret_group: 1}]}",
        "secret_leak: {patterns: [{name: a, pattern: abc, luhn_check: true, invalid: info}]}",
        "secret_leak: {packs: [personal]}",
        "secret_leak: {credentials: [{rule: a, hosts: [a.example], headers: [x]}]}",
        "mcp_tool: {}",
        "mcp_tool: {allow: [a]}",
        "mcp_tool: {block: [a]}",
        "mcp_tool: {require_confirmation: [a]}",
        "mcp_tool: {max_args_size: 1}",
        "mcp_tool: {default_action: allow}",
    ],
)
def test_everything_that_changes_a_decision_changes_the_hash(change: str) -> None:
    assert load_policy(guards(change), "p").hash != load_policy(HEAD, "p").hash
    assert (
        load_policy(guards(change), "p").hash
        != load_policy(guards("egress_allowlist: {}"), "p").hash
    )


@given(st.sampled_from(sorted(schema.GUARDS)), st.data())
def test_an_unknown_key_is_never_ignored(guard: str, data: st.DataObject) -> None:
    known = schema.GUARDS[guard].keys
    key = data.draw(st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(lambda k: k not in known))
    with pytest.raises(ConfigError):
        load_policy(guards(f"{guard}:\n  enabled: false\n  {key}: 1"), "p")


@given(
    st.lists(
        st.text(alphabet=st.sampled_from("ab:.*-[]{}'\"#&!|>%@\n\t ü\x00"), max_size=12),
        max_size=12,
    )
)
def test_any_text_loads_or_is_a_config_error(lines: list[str]) -> None:
    try:
        load_policy(HEAD + "\n".join(lines), "p")
    except ConfigError as error:
        told = str(error)
    else:
        return
    assert told.startswith("p")
