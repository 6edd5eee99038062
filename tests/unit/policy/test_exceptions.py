"""Exceptions: only approved, signed and in scope, only what they name, never what is locked."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest

from aesp_proxy.daemon.policy_compile import VersionTime, compile_scope, version_time
from aesp_proxy.daemon.policy_hierarchy import PolicyHierarchy
from aesp_proxy.decide.policy.compiled_json import from_json, to_json
from aesp_proxy.decide.policy.exception import read_exception
from aesp_proxy.decide.policy.scope import parse_scope
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.grant import GrantKind
from aesp_proxy.record.signature import new_private_pem, signer_from_pem

DATA = Path(__file__).parents[2] / "data"
TEXT = (DATA / "exception.yaml").read_text()
SCOPE = "region=us-east,unit=engineering,team=ml-platform,framework=hipaa"
NOW = version_time("2026-02-01T00:00:00Z", {}, Path())
PUBLIC, SIGN = signer_from_pem(new_private_pem())


@pytest.fixture
def root(tmp_path):
    shutil.copytree(DATA / "spec", tmp_path / "repo")
    return tmp_path / "repo"


def put(root, text=TEXT, sign=SIGN, encode=lambda signature: signature):
    path = root / "exception.yaml"
    path.write_text(text)
    if sign is not None:
        (root / "exception.yaml.sig").write_bytes(encode(sign(text.encode())))
    return path


def compiled(root, path, *, scope=SCOPE, time=NOW, keys=(PUBLIC,)):
    found = PolicyHierarchy(root)
    return compile_scope(found, parse_scope(scope), time=time, keys=keys, more_exceptions=[path])


@pytest.mark.parametrize("encode", [lambda data: data, base64.b64encode, base64.encodebytes])
def test_an_approved_and_signed_exception_becomes_grants(root, encode):
    made = compiled(root, put(root, encode=encode))
    grants = made.policy.grants
    assert [(grant.kind, grant.pattern, grant.source) for grant in grants] == [
        (GrantKind.EGRESS, "api.vendor.example", "exception.yaml:14"),
        (GrantKind.PATH, "/srv/phi/sample/**", "exception.yaml:13"),
        (GrantKind.TOOL, "vendor/evaluate", "exception.yaml:15"),
    ]
    assert {grant.grant_id for grant in grants} == {"EX-1"}
    assert grants[0].from_ns == 1767225600 * 10**9
    assert grants[0].until_ns == 1775001600 * 10**9
    assert made.policy.layers[-1].level == "exception"
    again = from_json(to_json(made).decode(), "c.json")
    assert again.grants == grants


def test_what_is_not_signed_by_a_given_key_is_an_error(root):
    other, _ = signer_from_pem(new_private_pem())
    with pytest.raises(ConfigError, match="not that of a given key"):
        compiled(root, put(root), keys=(other,))
    with pytest.raises(ConfigError, match="give --exception-key"):
        compiled(root, put(root), keys=())
    (root / "exception.yaml.sig").unlink()
    with pytest.raises(ConfigError, match=r"there is no exception\.yaml\.sig"):
        compiled(root, put(root, sign=None))
    path = put(root)
    path.write_text(TEXT.replace("api.vendor.example", "evil.example"))
    with pytest.raises(ConfigError, match="not that of a given key"):
        compiled(root, path)
    (root / "exception.yaml.sig").write_bytes(b"no signature")
    with pytest.raises(ConfigError, match="not that of a given key"):
        compiled(root, path)


@pytest.mark.parametrize("status", ["Draft", "PENDING_REVIEW", "Rejected", "Expired", "Revoked"])
def test_one_that_is_not_approved_has_no_effect_and_is_told(root, status):
    made = compiled(root, put(root, TEXT.replace("status: Approved", f"status: {status}")))
    assert made.policy.grants == ()
    assert any("has no effect: its status is" in warning for warning in made.policy.warnings)


def test_one_that_is_over_has_no_effect_and_one_not_yet_in_force_is_kept(root):
    late = version_time("2026-04-01T00:00:00Z", {}, Path())
    made = compiled(root, put(root), time=late)
    assert made.policy.grants == ()
    assert any("it is over" in warning for warning in made.policy.warnings)
    early = VersionTime(seconds=0, source="")
    assert len(compiled(root, put(root), time=early).policy.grants) == 3


@pytest.mark.parametrize(
    "scope",
    [
        "region=us-east,unit=engineering,team=other,framework=hipaa",
        "region=us-east,unit=finance,team=ml-platform",
        "region=us-east",
        "region=us-east,unit=engineering,team=ml-platform,framework=gdpr",
    ],
)
def test_it_holds_in_its_scope_only(root, scope):
    assert compiled(root, put(root), scope=scope).policy.grants == ()


@pytest.mark.parametrize(
    ("lock", "told"),
    [
        ("guards.egress_allowlist", "'api.vendor.example' in guards.egress_allowlist"),
        ("guards.forbidden_path.patterns", "'/srv/phi/sample/**' in guards.forbidden_path"),
        ("guards", "what is locked has no exceptions"),
        ("guards.mcp_tool", "'vendor/evaluate' in guards.mcp_tool"),
    ],
)
def test_what_is_locked_has_no_exceptions(root, lock, told):
    path = root / "policies/regions/us-east.yaml"
    path.write_text(f'version: "1.1.0"\nlocked: [{lock}]\n')
    with pytest.raises(ConfigError) as caught:
        compiled(root, put(root))
    assert told in str(caught.value)
    assert "policies/regions/us-east.yaml:2:10" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("  allow_paths", "  custom: {a: b}\n  allow_paths", "custom is known, and nothing"),
        ('end: "2026-04-01T00:00:00Z"', "auto_renew: true", "auto_renew is not supported"),
        ('  end: "2026-04-01T00:00:00Z"\n', "", "duration.end is missing"),
        ("2026-04-01T00:00:00Z", "2026-04-01T00:00:00", "not a time with a zone"),
        ("2026-04-01T00:00:00Z", "2025-04-01T00:00:00Z", "ends before it starts"),
        ("grace@", "ada@", "nobody but the requestor has approved"),
        ("decision: Approved", "decision: Rejected", "nobody but the requestor"),
        ("status: Approved", "status: Agreed", "expected Draft or"),
        ("  team: ml-platform\n", "", "scope.team is missing"),
        ("kind: exception\n", "", "kind is missing"),
        ("[api.vendor.example]", "[https://x]", "bad host pattern"),
        ("[/srv/phi/sample/**]", "[srv]", "bad path pattern"),
        ("id: EX-1", "id: ''", "id is missing or empty"),
    ],
)
def test_a_bad_exception_is_refused(old, new, told):
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        read_exception(TEXT.replace(old, new), "e.yaml")
    assert told in str(caught.value)
    assert str(caught.value).startswith("e.yaml:")


def test_a_permanent_one_may_have_no_end():
    text = TEXT.replace("ProjectException", "PermanentException")
    text = text.replace('  end: "2026-04-01T00:00:00Z"\n', "")
    assert read_exception(text, "e").until_ns == 2**63 - 1
