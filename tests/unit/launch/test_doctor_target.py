"""What ``doctor --attack`` takes over from this machine's settings, and what it does not."""

from __future__ import annotations

import pytest

from aesp_proxy.cli.doctor_target import Hosts, hosts_of, write_config, write_policy
from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.config_load import load
from aesp_proxy.daemon.policy_files import read_policy

POLICY = """\
version: "1.2.0"
name: doctor
guards:
  egress_allowlist: {default_action: DEFAULT, allow: [ALLOW]}
  secret_leak: {enabled: false}
"""


def settings(tmp_path, **flags: str) -> Settings:
    named = {name.replace("__", "."): value for name, value in flags.items()}
    return load(environ={}, is_root=False, flags={"state_dir": str(tmp_path), **named})


def with_policy(tmp_path, allow, default="block"):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace("ALLOW", allow).replace("DEFAULT", default), "utf-8")
    return settings(tmp_path, policy=str(path))


def test_nothing_that_leads_off_the_machine_is_taken_over(tmp_path):
    given = settings(
        tmp_path,
        forward__dir=str(tmp_path),
        upstream__proxy="http://corporate.example:3128",
        upstream__connect_timeout_s="3",
        budget__requests_max="1",
        isolation__mode="degraded",
        limits__head_s_max="7",
    )
    written = tmp_path / "config.yaml"
    write_config(given, written, {"upstream.resolve": {"a.example": "127.0.0.1"}})
    read = load(environ={}, is_root=False, flags={}, file=written)
    assert read.forward.dir is None
    assert not read.upstream.proxy
    assert read.budget.requests_max == settings(tmp_path).budget.requests_max
    assert read.upstream.resolve == (("a.example", "127.0.0.1"),)
    assert (read.isolation.mode, read.limits.head_s_max) == ("degraded", 7)
    assert read.upstream.connect_timeout_s == 3


@pytest.mark.parametrize(
    ("allow", "expected"),
    [
        ("a.example, b.example", ("a.example", "b.example")),
        ('"*.a.example", "b.example:22"', ("aesp-doctor.a.example", "")),
        ('"a.example:*"', ("a.example", "")),
        ("10.0.0.0/8", ("", "")),
        ("", ("", "")),
    ],
)
def test_hosts_are_those_that_the_policy_lets_through_on_both_web_ports(tmp_path, allow, expected):
    hosts = hosts_of(with_policy(tmp_path, allow))
    assert (hosts.allowed, hosts.second) == expected
    assert hosts.denied


def test_a_policy_that_allows_every_host_has_none_to_refuse(tmp_path):
    assert hosts_of(with_policy(tmp_path, "", "allow")) == Hosts(
        allowed="allowed.aesp-doctor.test", second="", denied=""
    )


def test_the_copy_of_a_policy_decides_as_the_policy_does_and_can_be_copied_again(tmp_path):
    given = with_policy(tmp_path, "a.example")
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    write_policy(given, first)
    write_policy(settings(tmp_path, policy=str(first)), second)
    assert first.read_bytes() == second.read_bytes()
    copied = read_policy(first).egress
    assert copied is not None
    assert [rule.text for rule in copied.allow] == ["a.example"]


def test_the_built_in_baseline_is_attacked_where_no_policy_is_set(tmp_path):
    write_policy(settings(tmp_path), tmp_path / "copy.json")
    assert "Baseline" in read_policy(tmp_path / "copy.json").name
