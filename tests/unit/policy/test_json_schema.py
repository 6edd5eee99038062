"""The published JSON Schemas say of keys and types what the loader says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from policy_documents import DOCUMENTS

from aesp_proxy.daemon.pack_files import built_in_dir
from aesp_proxy.decide.policy.exception import read_exception
from aesp_proxy.decide.policy.hierarchy import read_hierarchy
from aesp_proxy.decide.policy.stated import read_stated
from aesp_proxy.errors import ConfigError

ROOT = Path(__file__).parents[3]
SPEC = ROOT / "tests/data/spec/policies"
FOUND = sorted({*built_in_dir().glob("**/*.yaml"), *SPEC.glob("**/*.yaml")})
POLICIES = [p for p in FOUND if not p.name.endswith((".test.yaml", "policy-hierarchy.yaml"))]
HEAD = 'version: "1.2.0"\n'


def schema(name):
    form = json.loads((ROOT / f"policies/schema/{name}.schema.json").read_text())
    Draft202012Validator.check_schema(form)
    return Draft202012Validator(form)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_every_ready_policy_is_valid(path):
    assert list(schema("policy").iter_errors(yaml.safe_load(path.read_text()))) == []


def test_the_hierarchy_of_the_specification_is_valid():
    text = (SPEC / "governance/policy-hierarchy.yaml").read_text()
    read_hierarchy(text, "h")
    assert schema("hierarchy").is_valid(yaml.safe_load(text))


BAD = [
    "guard: {}\n",
    "guards: []\n",
    "guards: {egress_allowlist: {alow: []}}\n",
    "guards: {egress_allowlist: {enabled: null}}\n",
    'guards: {egress_allowlist: {enabled: "true"}}\n',
    "guards: {egress_allowlist: {allow: a.example}}\n",
    "guards: {egress_allowlist: {allow: [{a: b}]}}\n",
    "guards: {egress_allowlist: {default_action: permit}}\n",
    "guards: {mcp_tool: {max_args_size: -1}}\n",
    "guards: {mcp_tool: {max_args_size: 1.5}}\n",
    "guards: {patch_integrity: {max_imbalance_ratio: -0.5}}\n",
    "guards: {patch_integrity: {max_imbalance_ratio: many}}\n",
    "guards: {secret_leak: {patterns: [{name: x}]}}\n",
    "guards: {secret_leak: {patterns: [{name: x, pattern: y, severity: high}]}}\n",
    "rules: [{policy_id: a}]\n",
    "rules: [{policy_id: a, rule: {condition: a, effect: MAYBE}}]\n",
    "rules: [{policy_id: a, rule: {condition: a, effect: DENY, actions: [http.got]}}]\n",
    "settings: {session_timeout_secs: 99999999999}\n",
    "settings: {fail_fast: 1}\n",
    "locked: guards\n",
    "merge_strategy: mix\n",
]


@pytest.mark.parametrize("text", BAD)
def test_what_the_loader_refuses_for_keys_and_types_the_schema_refuses(text):
    with pytest.raises(ConfigError):
        read_stated(HEAD + text, "p")
    assert not schema("policy").is_valid(yaml.safe_load(HEAD + text))


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
def test_other_versions_are_refused_by_both(version):
    text = f'version: "{version}"\n'
    with pytest.raises(ConfigError):
        read_stated(text, "p")
    assert not schema("policy").is_valid(yaml.safe_load(text))


VALID = schema("policy")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(DOCUMENTS)
def test_what_loads_is_valid(text):
    read_stated(text, "p")
    assert VALID.is_valid(json.loads(text))


def test_every_key_has_a_description_for_the_editor():
    def silent(form, path):
        for name, field in form.get("properties", {}).items():
            if not field.get("description"):
                yield f"{path}.{name}"
            yield from silent(field, f"{path}.{name}")
            yield from silent(field.get("items", {}), f"{path}.{name}")

    for name in ("policy", "hierarchy", "exception"):
        assert list(silent(schema(name).schema, name)) == []


def test_an_exception_is_valid_where_it_loads():
    text = (ROOT / "tests/data/exception.yaml").read_text()
    read_exception(text, "e")
    assert schema("exception").is_valid(yaml.safe_load(text))
    assert not schema("exception").is_valid(yaml.safe_load(text.replace("Approved", "Agreed")))
