"""Files that extend each other: each strategy, each change to a list, circles and depth."""

from __future__ import annotations

import pytest

from aesp_proxy.daemon.policy_files import read_policy
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.errors import ConfigError

HEAD = 'version: "1.2.0"\n'
TOP = (
    HEAD
    + """
name: Top
guards:
  egress_allowlist: {allow: [a.example, "*.b.example", c.example:8443], block: [x.example]}
  forbidden_path: {patterns: [/top/**], exceptions: [/top/open]}
  secret_leak: {patterns: [{name: one, pattern: "one[0-9]"}], skip_paths: [/top/skip]}
  mcp_tool: {allow: [read, fs/list], max_args_size: 9}
rules:
  - {policy_id: r, rule: {condition: a, effect: DENY}}
  - {policy_id: s, rule: {condition: b, effect: DENY}}
settings: {fail_fast: true}
"""
)


def load(text, top=TOP, strategy=""):
    def parent(_named, _child):
        return "top.yaml", top

    head = HEAD + "extends: top\n" + (f"merge_strategy: {strategy}\n" if strategy else "")
    return load_policy(head + text, "low.yaml", parent)


def hosts(rules):
    return [rule.text for rule in rules]


def texts(items):
    return [item.value for item in items]


def test_a_child_that_says_nothing_is_its_parent():
    policy = load("")
    assert policy.hash == load_policy(TOP, "top.yaml").hash
    assert [layer.path for layer in policy.layers] == ["top.yaml", "low.yaml"]
    assert policy.egress is not None
    assert policy.egress.allow[0].source == "top.yaml:5"


def test_lists_are_the_childs_where_it_states_them_and_the_rest_is_the_parents():
    policy = load("guards: {egress_allowlist: {allow: [z.example]}}\n")
    assert policy.egress is not None
    assert hosts(policy.egress.allow) == ["z.example"]
    assert policy.egress.allow[0].source == "low.yaml:3"
    assert hosts(policy.egress.block) == ["x.example"]
    assert policy.tools is not None
    assert policy.tools.args_bytes_max == 9


def test_additions_and_removals_change_the_parents_list():
    policy = load(
        "guards:\n"
        "  egress_allowlist:\n"
        "    {additional_allow: [z.example], remove_allow: [a.example],"
        " additional_block: [y.example], remove_block: [x.example]}\n"
        "  forbidden_path: {additional_patterns: [/low], remove_patterns: [/top/**]}\n"
        "  secret_leak:\n"
        "    {additional_patterns: [{name: two, pattern: two}], remove_patterns: [one]}\n"
        "  mcp_tool: {additional_allow: [write], remove_allow: ['fs/*']}\n"
    )
    assert policy.egress is not None
    assert hosts(policy.egress.allow) == ["*.b.example", "c.example:8443", "z.example"]
    assert hosts(policy.egress.block) == ["y.example"]
    assert policy.paths is not None
    assert texts(policy.paths.patterns) == ["/low"]
    assert [pattern.name for pattern in policy.secrets.patterns] == ["two"]
    assert policy.tools is not None
    assert texts(policy.tools.allow) == ["read", "write"]
    assert policy.warnings == ()


def test_exceptions_and_skipped_paths_are_united():
    policy = load(
        "guards:\n  forbidden_path: {exceptions: [/low/open, /top/open]}\n"
        "  secret_leak: {skip_paths: [/low/skip]}\n"
    )
    assert policy.paths is not None
    assert texts(policy.paths.exceptions) == ["/top/open", "/low/open"]
    assert texts(policy.secrets.skip_paths) == ["/top/skip", "/low/skip"]


def test_rules_replace_those_of_the_same_id_in_their_place():
    policy = load("rules:\n  - {policy_id: r, rule: {condition: z, effect: ASK}}\n"
                  "  - {policy_id: t, rule: {condition: y, effect: DENY}}\n")  # fmt: skip
    assert [(rule.policy_id.value, rule.condition.value) for rule in policy.rules] == [
        ("r", "z"),
        ("s", "b"),
        ("t", "y"),
    ]


def test_a_removal_takes_every_entry_that_it_covers():
    policy = load("guards: {egress_allowlist: {remove_allow: ['*.example', c.example]}}\n")
    assert policy.egress is not None
    assert policy.egress.allow == ()


def test_a_removal_of_a_network_takes_every_address_in_it():
    top = HEAD + "guards: {egress_allowlist: {allow: [10.0.0.0/8, 8.8.8.8, 'fd00::/8']}}\n"
    policy = load("guards: {egress_allowlist: {remove_allow: [0.0.0.0/0]}}\n", top)
    assert policy.egress is not None
    assert hosts(policy.egress.allow) == ["fd00::/8"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "guards: {egress_allowlist: {remove_allow: [api.b.example]}}\n",
            ("low.yaml:3:44: remove_allow takes out 'api.b.example', but '*.b.example' at"
            " top.yaml:5 still allows it (add it to additional_block, or remove that entry in"
            " guards.egress_allowlist)"),
        ),
        (
            "guards: {egress_allowlist: {default_action: log, remove_allow: [a.example]}}\n",
            ("low.yaml:3:65: remove_allow takes out 'a.example', but default_action at low.yaml:3"
            " still lets it pass (add it to additional_block)"),
        ),
        (
            "guards: {secret_leak: {additional_patterns: [{name: one, pattern: two}]}}\n",
            "low.yaml:3:46: 'one' is another thing at top.yaml:7 (give it a name of its own)",
        ),
    ],
)  # fmt: skip
def test_a_change_that_does_not_do_what_it_says_is_refused(text, told):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert str(caught.value) == told


def test_a_removal_of_what_is_not_there_is_told():
    assert load("guards: {mcp_tool: {remove_allow: [nobody]}}\n").warnings == (
        "low.yaml:3:36: guards.mcp_tool.remove_allow removes 'nobody', which is not there",
    )


def test_replace_leaves_the_child_alone():
    text = "guards: {egress_allowlist: {allow: [z.example]}}\n"
    assert load(text, strategy="replace").hash == load_policy(HEAD + text, "x").hash


def test_merge_takes_whole_sections_of_the_child():
    policy = load("guards: {egress_allowlist: {block: [z.example]}}\n", strategy="merge")
    assert policy.egress is not None
    assert (hosts(policy.egress.allow), hosts(policy.egress.block)) == ([], ["z.example"])
    assert policy.tools is not None
    assert policy.settings.fail_fast
    assert len(policy.rules) == 2


@pytest.mark.parametrize("strategy", ["replace", "merge", "deep_merge"])
def test_no_strategy_goes_around_a_lock(strategy):
    top = TOP + "locked: [guards.egress_allowlist.block]\n"
    with pytest.raises(ConfigError, match=r"is locked by 'guards.egress_allowlist.block' at top"):
        load("guards: {egress_allowlist: {block: []}}\n", top, strategy)
    if strategy != "deep_merge":
        with pytest.raises(ConfigError, match="is locked by"):
            load("guards: {egress_allowlist: {allow: []}}\n", top, strategy)
    assert load("", top).hash == load_policy(top, "x").hash


def test_locks_are_inherited():
    top = TOP + "locked: [settings]\n"
    policy = load_policy(top, "x")
    assert policy.settings.fail_fast
    with pytest.raises(ConfigError):
        load("locked: [rules]\nsettings: {}\n", top)


def chain(tmp_path, count):
    for number in range(count):
        last = number == count - 1
        text = HEAD + ("" if last else f"extends: p{number + 1}\n")
        (tmp_path / f"p{number}.yaml").write_text(text)
    return tmp_path / "p0.yaml"


def test_a_chain_of_32_files_loads_and_one_of_33_does_not(tmp_path):
    assert len(read_policy(chain(tmp_path, 32)).layers) == 32
    with pytest.raises(ConfigError, match=r"more than 32 files: .*p0.yaml -> .* -> .*p32.yaml"):
        read_policy(chain(tmp_path, 33))


def test_a_circle_is_refused_with_its_files(tmp_path):
    for name, parent in (("a", "b"), ("b", "./c.yaml"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(HEAD + f"extends: {parent}\n")
    with pytest.raises(ConfigError) as caught:
        read_policy(tmp_path / "a.yaml")
    names = [tmp_path / f"{name}.yaml" for name in "abca"]
    assert caught.value.message == (
        f"extends goes in a circle: {' -> '.join(str(name) for name in names)}"
    )
    (tmp_path / "self.yaml").write_text(HEAD + "extends: self\n")
    with pytest.raises(ConfigError, match="in a circle"):
        read_policy(tmp_path / "self.yaml")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nobody", "no such parent: 'nobody'"),
        ("/etc/passwd", "extends names no file"),
        ("../../../../../../../etc/hostname.yaml", "no such parent|leads outside"),
        ('"\\0"', "extends names no file"),
        ('""', "extends names no file"),
        ("a" * 600, "extends names no file"),
    ],
)
def test_a_parent_that_is_not_there_is_refused(tmp_path, name, told):
    path = tmp_path / "p.yaml"
    path.write_text(HEAD + f"extends: {name}\n")
    with pytest.raises(ConfigError, match=told) as caught:
        read_policy(path)
    assert caught.value.where.startswith(f"{path}:2:10")


def test_the_policies_that_come_along_can_be_extended(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        HEAD + "extends: baseline\nguards: {egress_allowlist: {additional_allow: [a.example]}}\n"
    )
    policy = read_policy(path)
    assert [layer.path for layer in policy.layers] == ["built-in baseline.yaml", str(path)]
    assert policy.egress is not None
    assert policy.egress.allow[0].source.startswith("built-in baseline.yaml:")
    assert policy.egress.allow[-1].text == "a.example"


RULE = (
    "rules:\n  - policy_id: {id}\n    applies_to: {to}\n"
    "    rule: {{condition: a, effect: {effect}}}\n"
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (RULE.format(id="a", to="[]", effect="ALLOW"), "allows and does not name what"),
        (RULE.format(id="a b", to="[]", effect="DENY"), "bad policy_id 'a b'"),
        (RULE.format(id="''", to="[]", effect="DENY"), "bad policy_id ''"),
        (RULE.format(id="a", to="[host]", effect="DENY"), "bad resource 'host'"),
        (RULE.format(id="a", to="['egress:a b']", effect="DENY"), "bad host pattern"),
        (RULE.format(id="a", to="[]", effect="deny"), "expected ALLOW or DENY"),
        (RULE.format(id="a", to="[]", effect="DENY") + "  - policy_id: a\n"
         "    rule: {condition: b, effect: DENY}\n", "the rule 'a' stands twice (first at p:3)"),
        ("rules:\n  - {policy_id: a, rule: {effect: DENY}}\n", "rules.rule.condition is missing"),
        ("rules:\n  - {policy_id: a, rule: {condition: b}}\n", "rules.rule.effect is missing"),
        ("rules:\n  - {policy_id: a}\n", "rules.rule is missing"),
        ("rules:\n  - {rule: {condition: a, effect: DENY}}\n", "rules.policy_id is missing"),
        ("rules: [{policy_id: a, rule: {condition: b, effect: DENY, actions: [get]}}]\n",
         "unknown action 'get'"),
        ("rules: [{policy_id: a, rule: {condition: b, effect: DENY, parameters: {a: [1]}}}]\n",
         "expected a text, found a list"),
        ("guards: {patch_integrity: {forbidden_patterns: ['(']}}\n", "p:2:49: bad patch pattern"),
        ("guards: {patch_integrity: {forbidden_patterns: ['a*']}}\n", "matches the empty text"),
        ("guards: {path_allowlist: {patch_allow: [srv]}}\n", "bad path pattern 'srv'"),
    ],
)  # fmt: skip
def test_a_bad_rule_or_entry_is_refused_with_its_place(text, told):
    with pytest.raises(ConfigError) as caught:
        load_policy(HEAD + text, "p")
    assert told in str(caught.value)
    assert str(caught.value).startswith("p:")


@pytest.mark.parametrize(
    "number", ["NaN", ".nan", "inf", ".inf", "-1", "1e400", "1e3", "9" * 400, "0x10", "1_000", ".5"]
)
@pytest.mark.parametrize(
    "key",
    [
        "guards: {patch_integrity: {max_imbalance_ratio: %s}}",
        "guards: {patch_integrity: {max_additions: %s}}",
        "guards: {mcp_tool: {max_args_size: %s}}",
        "settings: {session_timeout_secs: %s}",
    ],
)
def test_numbers_are_plain_finite_and_not_negative(key, number):
    with pytest.raises(ConfigError, match="expected a"):
        load_policy(HEAD + key % number + "\n", "p")


@pytest.mark.parametrize(
    "text",
    [
        'name: "\\ud800"\n',
        "name: \ud800\n",
        'locked: ["guards\\ud800"]\n',
        'extends: "\\udfff"\n',
        'guards: {forbidden_path: {patterns: ["/\\ud800"]}}\n',
    ],
)
def test_lone_surrogates_are_refused_or_mean_nothing(text):
    try:
        policy = load_policy(HEAD + text, "p")
    except ConfigError:
        return
    assert len(policy.hash) == 64


def test_the_largest_lists_load_or_are_refused_in_little_time():
    rules = "".join(
        f"  - {{policy_id: r{n}, rule: {{condition: 'true', effect: DENY}}}}\n" for n in range(5000)
    )
    assert len(load_policy(HEAD + "rules:\n" + rules, "p").rules) == 5000
    hosts = ",".join(f"h{n}.example" for n in range(20_000))
    policy = load_policy(HEAD + f"guards: {{egress_allowlist: {{allow: [{hosts}]}}}}\n", "p")
    assert policy.egress is not None
    assert len(policy.egress.allow) == 20_000
    with pytest.raises(ConfigError, match="larger than 4 MiB"):
        load_policy(HEAD + "#" * (4 * 2**20) + "\n", "p")
