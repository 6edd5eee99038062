"""A level below others: each law, each weakening with both places and a witness."""

from __future__ import annotations

import pytest

from aesp_proxy.decide.policy.effective import policy_of
from aesp_proxy.decide.policy.levels import strictly_joined
from aesp_proxy.decide.policy.merge import joined
from aesp_proxy.decide.policy.stated import read_stated
from aesp_proxy.decide.policy.weakening import Frozen
from aesp_proxy.errors import ConfigError

HEAD = 'version: "1.2.0"\n'

TOP = (
    HEAD
    + """
guards:
  egress_allowlist:
    allow: ["*.example.com", api.example.org:8443, 10.0.0.0/8]
    block: [bad.example.com]
  forbidden_path:
    patterns: ["**/.ssh/**", "**/*.pem"]
    exceptions: ["**/cacert.pem"]
  mcp_tool:
    allow: [read_*, fs/list]
    block: [rm]
    max_args_size: 100
  secret_leak:
    severity_threshold: error
    patterns: [{name: corp, pattern: "CORP-[0-9]{8}"}]
    packs: [personal]
    credentials: [{rule: "github-*", hosts: [api.example.com], headers: [authorization]}]
    actions:
      - {rule: "github-*", action: redact}
      - {rule: "npm-*", action: record, severity: error, hosts: ["*.example.com"]}
  patch_integrity:
    max_additions: 10
    require_balance: true
    forbidden_patterns: ["chmod 777"]
rules:
  - {policy_id: deny.x, rule: {condition: "true", effect: DENY}, applies_to: ["egress:x.example"]}
  - {policy_id: allow.y, rule: {condition: "true", effect: ALLOW}, applies_to: ["tool:y"]}
settings: {session_timeout_secs: 60, verbose_logging: true}
"""
)


def top(text=TOP):
    return joined(None, read_stated(text, "top.yaml"))[0]


def below(text, above=TOP, **frozen):
    made = (
        Frozen(additions={}, removals={}, **frozen)
        if not frozen
        else Frozen(additions=frozen.get("additions", {}), removals=frozen.get("removals", {}))
    )
    return strictly_joined(top(above), read_stated(HEAD + text, "low.yaml"), made)


def guard(name, text):
    return f"guards:\n  {name}: {{{text}}}\n"


WEAKENINGS = [
    (
        guard("egress_allowlist", "allow: [api.example.com, other.example]"),
        ("low.yaml:3:47: guards.egress_allowlist.allow: 'other.example' is allowed by nothing"
        " above, against top.yaml:5; a connection to other.example:443 was refused and would pass"),
    ),
    (
        guard("egress_allowlist", "allow: ['api.example.com:*']"),
        "a connection to api.example.com:4443 was refused",
    ),
    (guard("egress_allowlist", "allow: ['*']"), "a connection to witness.example:443"),
    (guard("egress_allowlist", "allow: [172.16.0.1]"), "a connection to 172.16.0.1:443"),
    (guard("egress_allowlist", "additional_allow: [b.example]"), "a connection to b.example:443"),
    (
        guard("egress_allowlist", "remove_block: [bad.example.com]"),
        ("'bad.example.com' is forbidden above, against top.yaml:6; a connection to"
        " bad.example.com:443"),
    ),
    (
        guard("egress_allowlist", "default_action: log"),
        ("log is weaker than block, against top.yaml:4 (default); a connection to"
        " witness.example:443"),
    ),
    (guard("egress_allowlist", "remove_allow: [api.example.com]"), "still allows it"),
    (guard("forbidden_path", "remove_patterns: ['**/*.pem']"), "access to '/witness/witness.pem'"),
    (guard("forbidden_path", "exceptions: ['**/id.pem']"), "access to '/witness/id.pem'"),
    (guard("mcp_tool", "allow: [write]"), "a call of the tool 'write' was refused"),
    (guard("mcp_tool", "allow: ['*']"), "a call of the tool"),
    (guard("mcp_tool", "max_args_size: 200"), "a call with 101 bytes of arguments"),
    (guard("mcp_tool", "remove_block: [rm]"), "a call of the tool 'rm'"),
    (guard("secret_leak", "enabled: false"), "the guard is on, against top.yaml:14"),
    (guard("secret_leak", "severity_threshold: critical"), "a finding of severity error"),
    (guard("secret_leak", "remove_patterns: [corp]"), "a secret of the kind 'corp'"),
    (guard("secret_leak", "patterns: [{name: corp, pattern: x1}]"), "'corp' is another thing"),
    (
        guard("secret_leak", "patterns: [{name: corp, pattern: 'CORP-[0-9]{8}', entropy: 3}]"),
        "'corp' is another thing",
    ),
    (guard("secret_leak", "remove_packs: [personal]"), "a secret of the pack 'personal'"),
    (guard("secret_leak", "skip_paths: [/srv/**]"), "access to '/srv/witness'"),
    (
        guard("secret_leak", "credentials: [{rule: npm, hosts: [api.example.com], headers: [a]}]"),
        "the secret 'npm' to api.example.com",
    ),
    (guard("secret_leak", "redact: true"), "true is weaker than false"),
    (guard("secret_leak", "unscannable: record"), "a body that cannot be scanned"),
    (guard("secret_leak", "actions: [{rule: 'aws-*', action: redact}]"), "a finding of 'aws-*'"),
    (guard("secret_leak", "actions: [{rule: 'github-*', action: record}]"), "a finding of"),
    (guard("secret_leak", "actions: [{rule: 'npm-*', action: record}]"), "a finding of 'npm-*'"),
    (
        guard("secret_leak", "actions: [{rule: npm-x, action: redact, hosts: [a.example.com]}]"),
        "a finding of 'npm-x'",  # of severity critical, which above is not spoken of
    ),
    (guard("patch_integrity", "max_additions: 11"), "a patch that adds 11 lines"),
    (guard("patch_integrity", "max_deletions: 501"), "(default); a patch that deletes 501 lines"),
    (guard("patch_integrity", "require_balance: false"), "a patch that adds 1000 lines"),
    (guard("patch_integrity", "enabled: false"), "an added line that matches 'chmod 777'"),
    ("settings: {session_timeout_secs: 61}\n", "a session of 61 seconds"),
    ("settings: {verbose_logging: false}\n", "false is weaker than true"),
    (
        "rules:\n  - {policy_id: z, applies_to: ['*'], rule: {condition: a, effect: ALLOW}}\n",
        "rules.z: a rule that allows is added",
    ),
    (
        "rules:\n  - {policy_id: deny.x, rule: {condition: 'false', effect: DENY}}\n",
        "'deny.x' is another rule above",
    ),
    (
        ("rules:\n  - {policy_id: deny.x, enabled: false, applies_to: ['egress:x.example'],"
        " rule: {condition: 'true', effect: DENY}}\n"),
        "'deny.x' is another rule above",
    ),
    ("merge_strategy: replace\n", "replace would drop what stands above"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WEAKENINGS, ids=[m[:50] for _, m in WEAKENINGS])
def test_a_weakening_is_an_error_with_both_places_and_a_witness(text, message):
    made = below(text)
    assert made.weakenings
    told = str(made.weakenings[0].error())
    assert message in told
    assert told.startswith("low.yaml:")
    assert "\n" not in told


def test_all_weakenings_of_a_level_are_found_at_once():
    text = (
        "guards:\n  egress_allowlist: {allow: [a.example, b.example]}\n"
        "  secret_leak: {enabled: false}\nsettings: {session_timeout_secs: 100}\n"
    )
    assert len(below(text).weakenings) == 4


STRICTER = [
    guard("egress_allowlist", "allow: [a.example.com, '*.b.example.com', '10.1.0.0/16']"),
    guard("egress_allowlist", "allow: ['api.example.org:8443', 'api-*.example.com:443']"),
    guard("egress_allowlist", "allow: []"),
    guard("egress_allowlist", "block: [x.example.com], default_action: block"),
    guard("egress_allowlist", "remove_allow: ['*.example.com']"),
    guard("forbidden_path", "patterns: ['**/phi/**']"),
    guard("forbidden_path", "additional_patterns: ['**/phi/**'], exceptions: []"),
    guard("path_allowlist", "file_access_allow: [/srv/**]"),
    guard("mcp_tool", "allow: [read_file], block: [format], require_confirmation: [read_file]"),
    guard("mcp_tool", "max_args_size: 99"),
    guard("secret_leak", "severity_threshold: info, credentials: []"),
    guard(
        "secret_leak",
        "credentials: [{rule: github-app, hosts: [api.example.com], headers: [Authorization]}]",
    ),
    guard("secret_leak", "actions: []"),
    guard("secret_leak", "actions: [{rule: github-app, action: redact, severity: warning}]"),
    guard(
        "secret_leak",
        "actions: [{rule: npm-x, action: redact, severity: error, hosts: [a.example.com]}]",
    ),
    guard("secret_leak", "patterns: [{name: ssn, pattern: '[0-9]{9}'}]"),
    guard("secret_leak", "additional_packs: [health]"),
    guard("secret_leak", "packs: [contact]"),
    guard("patch_integrity", "max_additions: 9, max_deletions: 500, max_imbalance_ratio: 9.5"),
    "rules:\n  - {policy_id: n, rule: {condition: 'true', effect: DENY}}\n",
    ("rules:\n  - {policy_id: deny.x, version: '2', rule: {condition: 'true', effect: DENY},"
    " applies_to: ['egress:x.example']}\n"),
    ("rules:\n  - {policy_id: allow.y, enabled: false, rule: {condition: 'true', effect: ALLOW},"
    " applies_to: ['tool:y']}\n"),
    "settings: {session_timeout_secs: 59, fail_fast: true}\n",
    "locked: [guards]\n",
]  # fmt: skip


@pytest.mark.parametrize("text", STRICTER)
def test_what_is_stricter_is_taken(text):
    made = below(text)
    assert made.weakenings == ()
    assert made.tree != top()


def test_a_guard_may_end_below_where_no_rule_allows_what_nobody_answers_for():
    text = guard("egress_allowlist", "enabled: false")
    assert below(text).weakenings[0].witness == "a connection to bad.example.com:443"
    made = below(text, TOP.replace("effect: ALLOW", "effect: AUDIT"))
    assert made.weakenings == ()
    assert policy_of(made.tree, "x").egress is None


def test_lists_that_forbid_add_and_lists_that_allow_are_cut():
    made = policy_of(
        below(
            guard("egress_allowlist", "allow: [a.example.com], block: [b.example.com]")
            + "  forbidden_path: {patterns: [/x/**]}\n"
        ).tree,
        "x",
    )
    assert made.egress is not None
    assert [rule.text for rule in made.egress.allow] == ["a.example.com"]
    assert [rule.text for rule in made.egress.block] == ["bad.example.com", "b.example.com"]
    assert made.paths is not None
    assert [item.value for item in made.paths.patterns] == ["**/.ssh/**", "**/*.pem", "/x/**"]
    assert made.paths.patterns[-1].source == "low.yaml:4"


def test_the_built_in_patterns_stay_when_a_level_states_its_own():
    made = below(
        guard("forbidden_path", "patterns: [/x/**]"), HEAD + "guards: {forbidden_path: {}}"
    )
    paths = policy_of(made.tree, "x").paths
    assert paths is not None
    assert "**/.ssh/**" in [item.value for item in paths.patterns]
    assert paths.patterns[0].source.endswith("(built-in patterns)")


@pytest.mark.parametrize(
    ("text", "witness"),
    [
        (guard("egress_allowlist", "allow: [a.example]"), "a connection to a.example:443"),
        (guard("egress_allowlist", "default_action: allow"), "witness.example:443"),
        (guard("mcp_tool", "allow: [t]"), "a call of the tool 't'"),
        (guard("forbidden_path", "patterns: [/x]"), "access to '/witness'"),
        (guard("path_allowlist", "file_write_allow: [/x]"), "access to '/x'"),
    ],
)
def test_a_guard_that_begins_below_may_not_let_pass_what_nobody_answered_for(text, witness):
    made = below(text, HEAD)
    assert made.weakenings
    assert witness in made.weakenings[0].message


@pytest.mark.parametrize(
    "text",
    [
        guard("egress_allowlist", "block: [a.example]"),
        guard("mcp_tool", "allow: []"),
        guard("patch_integrity", "max_additions: 99999"),
        guard("secret_leak", "severity_threshold: error"),
        guard("forbidden_path", "enabled: false"),
    ],
)
def test_a_guard_that_begins_below_may_refuse(text):
    assert below(text, HEAD).weakenings == ()


def test_the_threshold_of_secrets_holds_where_nothing_was_said_of_them():
    made = below(guard("secret_leak", "severity_threshold: critical"), HEAD)
    assert "critical is weaker than error, against top.yaml:1 (default)" in str(
        made.weakenings[0].message
    )


@pytest.mark.parametrize(
    ("lock", "text"),
    [
        ("guards.secret_leak", guard("secret_leak", "severity_threshold: info")),
        ("guards", guard("mcp_tool", "block: [x]")),
        ("guards.forbidden_path.patterns", guard("forbidden_path", "additional_patterns: [/x]")),
        ("settings.session_timeout_secs", "settings: {session_timeout_secs: 1}\n"),
        ("rules", "rules: []\n"),
        ("rules.a.b", "rules: [{policy_id: a.b, rule: {condition: x, effect: DENY}}]\n"),
    ],
)
def test_what_is_locked_no_level_and_no_child_may_state(lock, text):
    above = HEAD + f"locked: [{lock}]\n"
    made = below(text, above)
    assert [w.what for w in made.weakenings] == [f"locked by '{lock}'"]
    with pytest.raises(ConfigError, match=r"^low.yaml:\d+:\d+: .* is locked by .* at top.yaml:2"):
        joined(top(above), read_stated(HEAD + text, "low.yaml"))


@pytest.mark.parametrize(
    ("lock", "text"),
    [
        ("guards.secret_leak", guard("mcp_tool", "block: [x]")),
        ("rules.a", "rules: [{policy_id: a.b, rule: {condition: x, effect: DENY}}]\n"),
        ("settings.fail_fast", "settings: {verbose_logging: true}\n"),
    ],
)
def test_what_is_not_locked_may_be_stated(lock, text):
    assert below(text, HEAD + f"locked: [{lock}]\n").weakenings == ()


@pytest.mark.parametrize(
    "text", ["locked: [guard]", "locked: [guards.x]", "locked: [settings.]", "locked: [name]"]
)
def test_a_lock_on_nothing_is_refused(text):
    with pytest.raises(ConfigError, match="nothing to lock by the name"):
        read_stated(HEAD + text, "x.yaml")


def test_override_rules_close_lists():
    made = below(
        guard("forbidden_path", "additional_patterns: [/x]"),
        additions={"forbidden_path": "h.yaml:9"},
    )
    assert made.weakenings[0].message == (
        "guards.forbidden_path.additional_patterns: '/x' is added to a list that is closed,"
        " against h.yaml:9"
    )
    made = below(
        guard("egress_allowlist", "allow: [a.example.com]"),
        removals={"egress_allowlist": "h.yaml:8"},
    )
    assert "'*.example.com' is taken out of a list that is closed" in made.weakenings[0].message


def test_removing_what_is_not_there_is_a_warning():
    made = below(guard("egress_allowlist", "remove_allow: [nobody.example]"))
    assert made.weakenings == ()
    assert made.warnings == (
        (
            "low.yaml:3:37: guards.egress_allowlist.remove_allow removes 'nobody.example', which is"
            " not there"
        ),
    )


def test_a_level_may_ask_for_a_guard_of_files_and_none_below_may_do_without():
    asks = "guards:\n  forbidden_path: {patterns: [/x], require: enforce}\n"
    made = below("guards:\n  forbidden_path: {require: none}\n", above=HEAD + asks)
    assert "a run without a guard of files" in str(made.weakenings[0].error())
    own = HEAD + "guards:\n  forbidden_path: {patterns: [/x]}\n"
    assert below(asks, above=own).weakenings == ()
