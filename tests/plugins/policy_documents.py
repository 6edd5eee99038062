"""Random policies that a hierarchy could hold, as YAML text (JSON is YAML)."""

from __future__ import annotations

import json

from hypothesis import strategies as st

HOSTS = st.sampled_from([
    "a.example", "b.a.example", "*.a.example", "*.example", "x-*.a.example", "x-1.a.example",
    "a.example:8443", "a.example:*", "*", "10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "8.8.8.8",
    "*.b.a.example:443", "fd00::/8",
])  # fmt: skip
GLOBS = st.sampled_from([
    "/srv/**", "/srv/a", "/srv/*.txt", "**/.env", "/srv/.env", "**", "/w/**/x", "/w/{a,b}/x",
    "/w/[a-c]/x", "/w/b/x", "/srv/a/**", "**/*.pem", "/W/b/x",
])  # fmt: skip
TOOLS = st.sampled_from(["read", "read_*", "*", "fs/read", "fs/*", "re?d", "write", "*/read"])
REGEXES = st.sampled_from(["abc", "x[0-9]+y", "(?i)secret"])


def _some(entries, most=3):
    return st.lists(entries, max_size=most, unique=True)


def _section(**keys):
    return st.fixed_dictionaries({}, optional={"enabled": st.booleans(), **keys})


ACTIONS = st.sampled_from(["allow", "log", "block"])
SEVERITIES = st.sampled_from(["info", "warning", "error", "critical"])
SECRETS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["one", "two"]), "pattern": st.sampled_from(["abc1", "xyz2"])}
    ),
    max_size=2,
    unique_by=lambda item: item["name"],
)
CREDENTIALS = st.lists(
    st.fixed_dictionaries(
        {
            "rule": st.sampled_from(["one", "two"]),
            "hosts": st.lists(HOSTS, min_size=1, max_size=2, unique=True),
            "headers": st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2, unique=True),
        }
    ),
    max_size=2,
)
GUARDS = st.fixed_dictionaries(
    {},
    optional={
        "egress_allowlist": _section(
            allow=_some(HOSTS), block=_some(HOSTS), default_action=ACTIONS,
            additional_allow=_some(HOSTS, 1), remove_allow=_some(HOSTS, 1),
            additional_block=_some(HOSTS, 1), remove_block=_some(HOSTS, 1),
        ),
        "forbidden_path": _section(
            patterns=_some(GLOBS), exceptions=_some(GLOBS),
            additional_patterns=_some(GLOBS, 1), remove_patterns=_some(GLOBS, 1),
        ),
        "path_allowlist": _section(
            file_access_allow=_some(GLOBS), file_write_allow=_some(GLOBS), patch_allow=_some(GLOBS)
        ),
        "mcp_tool": _section(
            allow=_some(TOOLS), block=_some(TOOLS), require_confirmation=_some(TOOLS, 1),
            default_action=ACTIONS, max_args_size=st.sampled_from([0, 5, 100]),
            additional_allow=_some(TOOLS, 1), remove_allow=_some(TOOLS, 1),
        ),
        "secret_leak": _section(
            severity_threshold=SEVERITIES, patterns=SECRETS, skip_paths=_some(GLOBS),
            credentials=CREDENTIALS, remove_patterns=_some(st.sampled_from(["one", "two"]), 1),
        ),
        "patch_integrity": _section(
            max_additions=st.sampled_from([0, 10, 2000]), require_balance=st.booleans(),
            max_imbalance_ratio=st.sampled_from([0.5, 2.0, 50.0]),
            forbidden_patterns=_some(REGEXES),
        ),
    },
)  # fmt: skip
RULES = st.lists(
    st.builds(
        lambda name, effect, enabled: {
            "policy_id": name,
            "applies_to": ["*"],
            "enabled": enabled,
            "rule": {"condition": "true", "effect": effect},
        },
        st.sampled_from(["r1", "r2"]),
        st.sampled_from(["ALLOW", "DENY", "AUDIT", "ASK"]),
        st.booleans(),
    ),
    max_size=2,
    unique_by=lambda rule: rule["policy_id"],
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "fail_fast": st.booleans(),
        "verbose_logging": st.booleans(),
        "session_timeout_secs": st.sampled_from([1, 60, 3600]),
    },
)
LOCKS = _some(
    st.sampled_from(
        ["guards.secret_leak", "settings", "rules", "rules.r1", "guards.mcp_tool.allow"]
    ),
    1,
)
DOCUMENTS = st.fixed_dictionaries(
    {"version": st.just("1.2.0")},
    optional={"guards": GUARDS, "rules": RULES, "settings": SETTINGS, "locked": LOCKS},
).map(json.dumps)
