"""A hierarchy on disk: the specification's as written, what is missing, what leads outside."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aesp_proxy.cli.policy.compile_command import compile_command
from aesp_proxy.cli.policy.prove_command import prove_command
from aesp_proxy.daemon.policy_compile import VersionTime, compile_scope, steps_of, version_time
from aesp_proxy.daemon.policy_files import read_policy
from aesp_proxy.daemon.policy_hierarchy import PolicyHierarchy
from aesp_proxy.decide.policy.compiled_json import from_json, to_json
from aesp_proxy.decide.policy.exception import read_exception
from aesp_proxy.decide.policy.hierarchy import read_hierarchy
from aesp_proxy.decide.policy.prove_levels import prove_steps
from aesp_proxy.decide.policy.scope import parse_scope
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Verdict

SPEC = Path(__file__).parents[2] / "data" / "spec"
TIME = VersionTime(seconds=1_700_000_000, source="--time")
SCOPE = "region=us-east,unit=engineering,team=ml-platform,framework=hipaa,framework=soc2"
HEAD = 'version: "1.2.0"\n'


@pytest.fixture
def root(tmp_path):
    """A copy of the specification's hierarchy that a test may change."""
    shutil.copytree(SPEC, tmp_path / "repo")
    return tmp_path / "repo"


def write(root, name, text):
    path = root / "policies" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def compiled(root, scope=SCOPE, **more):
    return compile_scope(PolicyHierarchy(root), parse_scope(scope), time=TIME, **more)


def test_the_hierarchy_of_the_specification_compiles_as_written():
    policy = compiled(SPEC).policy
    assert [(layer.level, layer.path) for layer in policy.layers] == [
        ("global", "policies/global/baseline.yaml"),
        ("compliance", "policies/compliance/hipaa.yaml"),
        ("region", "policies/regions/us-east.yaml"),
    ]
    assert policy.egress is not None
    assert [rule.text for rule in policy.egress.allow] == [
        "*.internal.company.com",
        "*.corp.company.com",
    ]
    assert policy.egress.default_verdict is Verdict.DENY
    assert [pattern.name for pattern in policy.secrets.patterns] == [
        "aws_access_key",
        "gcp_service_account",
        "company_api_token",
        "ssn",
        "medical_record_number",
    ]
    patterns = {pattern.name: pattern.pattern.value for pattern in policy.secrets.patterns}
    assert patterns["gcp_service_account"] == r'"type"\s*:\s*"service_account"'
    assert patterns["ssn"] == r"\b\d{3}-\d{2}-\d{4}\b"
    assert policy.paths is not None
    assert len(policy.paths.patterns) == 16 + 5
    assert policy.paths.patterns[-1].source == "policies/compliance/hipaa.yaml:15"
    assert policy.patch is not None
    assert (policy.patch.additions_max, policy.patch.deletions_max) == (1000, 500)
    assert policy.settings.session_timeout_s == 1800
    assert policy.settings.verbose_logging
    assert policy.scope == tuple(pair for pair in parse_scope(SCOPE).pairs)
    assert policy.stamp == f"20231114221320:{policy.hash[:8]}"


def test_without_the_framework_the_providers_stay():
    egress = compiled(SPEC, "region=us-east").policy.egress
    assert egress is not None
    assert "*.openai.com" in [rule.text for rule in egress.allow]


def test_compiling_gives_the_same_bytes_wherever_the_files_lie(root, tmp_path):
    shutil.copytree(root, tmp_path / "elsewhere" / "deep")
    one, two = to_json(compiled(root)), to_json(compiled(tmp_path / "elsewhere" / "deep"))
    assert one == two
    assert one.endswith(b"}\n")
    assert b"/repo" not in one


def test_the_folder_of_policies_may_be_the_root(root):
    policy = compiled(root / "policies").policy
    assert policy.layers[0].path == "global/baseline.yaml"
    assert policy.hash == compiled(root).policy.hash


def test_a_compiled_policy_is_the_same_policy_again(root, tmp_path):
    made = compiled(root)
    path = tmp_path / "compiled.json"
    path.write_bytes(to_json(made))
    again = read_policy(path)
    assert again.hash == made.policy.hash
    assert again.layers == made.policy.layers
    assert again.scope == made.policy.scope
    assert again.stamp == made.policy.stamp
    assert (again.paths, again.egress, again.tools) == (
        made.policy.paths,
        made.policy.egress,
        made.policy.tools,
    )
    assert (again.patch, again.rules) == (made.policy.patch, made.policy.rules)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("**/phi/**", "**/fhi/**", "the hash does not match"),
        ("*.corp.company.com", "*.com", "the hash does not match"),
        ('"serial":1700000000', '"serial":1700000000,"serial":1', "a key stands twice"),
        ('"value":true', '"value":NaN', "NaN is no number"),
        ("aesp-compiled-policy/1", "aesp-compiled-policy/9", "not of the format"),
        ('"policy":{', '"policy":{"zzz":{},', "not a compiled policy: 'zzz'"),
        ('"line":', '"lime":', "no line"),
        ('"sources":[', '"sources":[3,', "an object is missing"),
    ],
)
def test_a_compiled_policy_that_was_changed_is_refused(root, old, new, told):
    text = to_json(compiled(root)).decode()
    assert old in text
    with pytest.raises(ConfigError) as caught:
        from_json(text.replace(old, new, 1), "c.json")
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"format": 1}', "[" * 100_000])
def test_what_is_no_compiled_policy_is_refused(text):
    with pytest.raises(ConfigError):
        from_json(text, "c.json")


def test_a_team_may_not_weaken_and_is_told_both_places(root):
    write(root, "teams/ml-platform.yaml", HEAD + "guards:\n  egress_allowlist:\n    allow: [a.b]\n")
    with pytest.raises(ConfigError) as caught:
        compiled(root)
    assert str(caught.value).startswith(
        "policies/teams/ml-platform.yaml:4:13: guards.egress_allowlist.allow: 'a.b' is allowed by"
        " nothing above, against policies/global/baseline.yaml:31; a connection to a.b:443 was"
        " refused and would pass"
    )


def test_a_level_that_stands_below_overridable_ones_only_joins_like_a_file_that_extends(root):
    path = root / "policies/governance/policy-hierarchy.yaml"
    path.write_text(path.read_text().replace("overridable: false", "overridable: true"))
    write(root, "units/engineering.yaml", HEAD + "guards: {egress_allowlist: {allow: [a.b]}}\n")
    egress = compiled(root).policy.egress
    assert egress is not None
    assert [rule.text for rule in egress.allow] == ["a.b"]
    write(root, "teams/ml-platform.yaml", HEAD + "guards: {egress_allowlist: {allow: [c.d]}}\n")
    with pytest.raises(ConfigError, match="nothing above"):
        compiled(root)


def test_a_missing_mandatory_level_is_an_error_and_an_optional_one_is_not(root):
    assert compiled(root, "region=us-east,unit=finance").policy.layers
    with pytest.raises(ConfigError, match=r"region is mandatory, and policies/regions/us-west"):
        compiled(root, "region=us-west")
    with pytest.raises(ConfigError, match="the scope names no region"):
        compiled(root, "team=a")


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        ("region=us-eats", "did you mean 'us-east'"),
        ("region=us-east,framework=hippa", "did you mean 'hipaa'"),
        ("region=../x", "bad scope"),
        ("region=us-east,region=us-west", "region is us-east already"),
        ("planet=earth", "known keys"),
        ("region", "write KEY=NAME"),
        ("team=.hidden,region=us-east", "bad scope"),
    ],
)
def test_a_scope_that_is_none_is_refused(root, scope, told):
    with pytest.raises(ConfigError) as caught:
        compiled(root, scope)
    assert told in str(caught.value)


def test_a_file_that_leads_outside_of_the_root_is_refused(root, tmp_path):
    outside = tmp_path / "outside.yaml"
    outside.write_text(HEAD)
    (root / "policies/teams").mkdir()
    (root / "policies/teams/ml-platform.yaml").symlink_to(outside)
    with pytest.raises(ConfigError, match="leads outside"):
        compiled(root)
    (root / "policies/teams/ml-platform.yaml").unlink()
    write(root, "teams/ml-platform.yaml", HEAD + "extends: ../../../outside\n")
    with pytest.raises(ConfigError, match="leads outside of the repository"):
        compiled(root)


def test_what_a_level_extends_and_stands_above_already_is_joined_once(root):
    write(root, "teams/ml-platform.yaml", HEAD + "extends: compliance/hipaa\n")
    assert [layer.level for layer in compiled(root).policy.layers].count("global") == 1


HIERARCHY = 'version: "1.0.0"\nhierarchy:\n  - {level: global, path: g.yaml}\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        ('version: "1.2.0"\n', "not a hierarchy file"),
        ('version: "1.0.0"\n', "hierarchy is missing"),
        ('version: "1.0.0"\nhierarchy: []\n', "has no level"),
        (HIERARCHY + "  - {level: global, path: h.yaml}\n", "the level 'global' stands twice"),
        (HIERARCHY + "  - {level: global, path: g.yaml, x: 1}\n", "unknown key 'x'"),
        (HIERARCHY + "  - {level: planet, path: g.yaml}\n", "expected global or compliance"),
        (HIERARCHY.replace("g.yaml", "../g.yaml"), "bad path"),
        (HIERARCHY.replace("g.yaml", "/g.yaml"), "bad path"),
        (HIERARCHY.replace("g.yaml", "'{planet}.yaml'"), "bad path"),
        (HIERARCHY + "hierarchy_depth_limit: 0\n", "1 levels, and hierarchy_depth_limit is 0"),
        (HIERARCHY + "hierarchy_depth_limit: 33\n", "at most 32"),
        (HIERARCHY + "policy_review_required: true\n", "not enforced"),
        (
            HIERARCHY + "override_rules: {egress_allowlist: {allow_additions: true}}\n",
            "an override rule may only tighten",
        ),
        (
            HIERARCHY + "override_rules: {secret_leak: {allow_removals: true}}\n",
            "an override rule may only tighten",
        ),
        (HIERARCHY + "override_rules: {nothing: {}}\n", "unknown key 'nothing'"),
    ],
)  # fmt: skip
def test_a_bad_hierarchy_is_refused(text, told):
    with pytest.raises(ConfigError) as caught:
        read_hierarchy(text, "h.yaml")
    assert told in str(caught.value)
    assert str(caught.value).startswith("h.yaml")


def test_override_rules_close_the_list_of_forbidden_paths(root):
    path = root / "policies/governance/policy-hierarchy.yaml"
    path.write_text(path.read_text().replace("allow_additions: true", "allow_additions: false", 1))
    with pytest.raises(ConfigError, match="added to a list that is closed, against policies/gov"):
        compiled(root)


def test_every_scope_that_has_files_is_proved(root):
    write(root, "teams/a.yaml", HEAD + "guards: {mcp_tool: {block: [x]}}\n")
    write(root, "units/finance.yaml", HEAD + "guards: {egress_allowlist: {allow: []}}\n")
    found = PolicyHierarchy(root)
    scopes = list(found.scopes())
    assert {str(scope) for scope in scopes} >= {
        "region=us-east",
        "framework=hipaa,region=us-east,unit=finance,team=a",
    }
    for scope in scopes:
        assert all(step.holds for step in prove_steps(steps_of(found, scope)))


def test_the_time_of_a_version_is_never_the_clock(tmp_path):
    assert version_time("2026-01-02T03:04:05Z", {}, tmp_path).stamp == "20260102030405"
    assert version_time(None, {"SOURCE_DATE_EPOCH": "60"}, tmp_path).stamp == "19700101000100"
    assert version_time(None, {}, tmp_path).stamp == "19700101000000"
    for bad in ("yesterday", "2026-01-02T03:04:05", "2026-01-02", ""):
        with pytest.raises(ConfigError):
            version_time(bad, {}, tmp_path)
    with pytest.raises(ConfigError):
        version_time(None, {"SOURCE_DATE_EPOCH": "-1"}, tmp_path)


def run(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_command_writes_a_file_that_decides(root, tmp_path):
    out = tmp_path / "policy.json"
    answer = run(
        compile_command, "--root", root, "--scope", SCOPE, "--out", out, "--time",
        "2026-01-02T03:04:05Z", "--format", "json",
    )  # fmt: skip
    assert answer.exit_code == 0
    form = json.loads(out.read_bytes())
    assert form["version"] == f"20260102030405:{form['hash'][:8]}"
    assert form["serial"] == 1767323045
    assert [source["level"] for source in form["sources"]] == ["global", "compliance", "region"]
    allow = form["policy"]["guards"]["keys"]["egress_allowlist"]["keys"]["allow"]["list"]
    assert allow[0] == {
        "column": 9,
        "level": "global",
        "line": 36,
        "path": "policies/global/baseline.yaml",
        "style": "double",
        "value": "*.internal.company.com",
    }
    assert read_policy(out).hash == form["hash"]


def test_the_command_shows_the_level_and_line_of_every_item(root):
    answer = run(
        compile_command, "--root", root, "--scope", SCOPE, "--time", "2026-01-02T03:04:05Z"
    )
    line = next(
        line for line in answer.output.splitlines() if "session_timeout" in line and "1800" in line
    )
    assert line.split() == [
        "settings.session_timeout_secs",
        "1800",
        "compliance",
        "policies/compliance/hipaa.yaml:38",
    ]


def test_one_file_compiles_with_what_it_extends(root):
    path = root / "policies/compliance/hipaa.yaml"
    answer = run(compile_command, "--policy", path, "--time", "2026-01-02T03:04:05Z")
    assert answer.exit_code == 0
    assert "../global/baseline.yaml:36" in answer.output


def test_proving_tells_what_each_level_changes(root):
    answer = run(prove_command, "--root", root, "--scope", SCOPE)
    assert answer.exit_code == 0
    assert "nothing is weakened" in answer.output
    assert "  - egress_allowlist.allow *.openai.com (policies/global/baseline.yaml:34)" in (
        answer.output.splitlines()
    )


def test_proving_finds_every_weakening_and_answers_1(root):
    write(
        root,
        "teams/ml-platform.yaml",
        HEAD + "guards:\n  egress_allowlist: {allow: [a.b]}\n  secret_leak: {enabled: false}\n",
    )
    answer = run(prove_command, "--root", root, "--format", "json")
    assert answer.exit_code == 1
    told = [
        weakening["key"]
        for scope in json.loads(answer.output)
        for level in scope["levels"]
        for weakening in level["weakenings"]
    ]
    assert {"guards.egress_allowlist.allow", "guards.secret_leak.enabled"} <= set(told)


def test_compiling_tells_every_weakening_and_answers_3(root):
    text = "guards:\n  egress_allowlist: {allow: [a.b]}\n  secret_leak: {enabled: false}\n"
    write(root, "teams/ml-platform.yaml", HEAD + text)
    answer = run(compile_command, "--root", root, "--scope", SCOPE, "--out", root / "c.json")
    assert answer.exit_code == 3
    told = [line for line in answer.stderr.splitlines() if "was refused and would pass" in line]
    assert len(told) == 2
    assert not (root / "c.json").exists()


DAMAGED = {
    "hierarchy": (read_hierarchy, (SPEC / "policies/governance/policy-hierarchy.yaml").read_text()),
    "exception": (read_exception, (SPEC.parent / "exception.yaml").read_text()),
    "compiled": (from_json, to_json(compiled(SPEC)).decode()),
}
PIECES = ["", "", "null", "[]", "{}", "9" * 30, "\x00", "\ud800", "&a", "*a", "..", "-1", '"', "}"]


@pytest.mark.parametrize("kind", sorted(DAMAGED))
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.floats(0, 1), st.integers(0, 30), st.sampled_from(PIECES))
def test_a_damaged_file_loads_or_is_an_error_of_ours(kind, at, cut, piece):
    read, text = DAMAGED[kind]
    place = int(at * len(text))
    with contextlib.suppress(ConfigError):
        read(text[:place] + piece + text[place + cut :], "f")
