"""Settings: layers, limits, and refusing what nobody knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.daemon.config import KEYS, VARIABLES, Settings, build
from aesp_proxy.daemon.config_file import read_file
from aesp_proxy.daemon.config_load import default_state_dir, from_environment, load
from aesp_proxy.daemon.config_values import Given, split_port
from aesp_proxy.errors import ConfigError


def settings_of(**values: object) -> Settings:
    """Build from dotted names, ``__`` for the dot."""
    layer = {"state_dir": Given(value="/s", where="test")}
    layer |= {
        name.replace("__", "."): Given(value=value, where="f.yaml:3:7")
        for name, value in values.items()
    }
    return build([layer])


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("limits: {head_bytes_max: 2000, header_count_max: 20, head_s_max: 2}\n")
    environ = {
        "HOME": "/h",
        "AESP_LIMITS_HEADER_COUNT_MAX": "30",
        "AESP_LIMITS_HEAD_S_MAX": "3.5",
    }
    flags = {"limits.head_s_max": "4"}
    limits = load(environ=environ, is_root=False, flags=flags, file=file).limits
    assert (limits.head_bytes_max, limits.header_count_max, limits.head_s_max) == (2000, 30, 4.0)
    assert limits.target_bytes_max == 16384


def test_the_defaults_are_within_their_own_limits():
    for key in KEYS.values():
        if isinstance(key.default, int | float):
            assert key.minimum <= key.default <= key.maximum, key.name
        if key.choices:
            assert key.default in key.choices or key.form == "list", key.name
        assert key.help.endswith("."), key.name


def test_each_setting_has_a_variable_of_its_own():
    assert len(VARIABLES) == len(KEYS)
    assert VARIABLES["AESP_UPSTREAM_CONNECT_TIMEOUT_S"].name == "upstream.connect_timeout_s"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("audit.mod", "batch", "did you mean audit.mode?"),
        ("audit.mode", "fast", "batch|blocking|blocking-strict"),
        ("audit.may_lose", "names,nmes", "outcomes|names|file_reads|requests"),
        ("audit.may_lose", ["names", "all"], "'all' is not one of its values"),
        ("limits.head_s_max", float("nan"), "outside its limits"),
        ("limits.head_s_max", float("inf"), "outside its limits"),
        ("limits.head_s_max", True, "true is not a number"),
        ("limits.head_bytes_max", 2000.0, "not a whole number"),
        ("limits.head_bytes_max", 1, "from 1024 to"),
        ("listen.port", "80", "not a whole number"),
        ("listen.port", 65536, "outside its limits"),
        ("listen.host", "0.0.0.0", "not a loopback address"),
        ("listen.host", "localhost", "not a loopback address"),
        ("policy", "", "not a path"),
        ("policy", 3, "not a path"),
        ("agent.id", "a\x1b[31m", "control character"),
        ("upstream.resolve", "x", "not a map"),
        ("upstream.resolve", {"a": 5}, "does not say where"),
        ("upstream.resolve", {"a": "b.example"}, "not an address"),
        ("upstream.resolve", {"a:0": "127.0.0.1"}, "not a host or host:port"),
        ("upstream.resolve", {"a": "127.0.0.1:99999"}, "not an address"),
        ("upstream.resolve", {"a b": "127.0.0.1"}, "not a host"),
        ("upstream.resolve", [["a", "::1"], ["A.", "::1"]], "twice"),
        ("upstream.resolve", None, "not a map"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_would_be_right(name, value, says):
    with pytest.raises(ConfigError) as caught:
        settings_of(**{name.replace(".", "__"): value})
    assert says in str(caught.value)
    assert str(caught.value).startswith("f.yaml:3:7")


def test_what_may_be_lost_is_a_list_and_contradicts_the_strict_mode():
    assert settings_of().audit.losable_words == ()
    assert settings_of(audit__may_lose=["names", "outcomes"]).audit.losable_words == (
        "names", "outcomes",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="lets nothing pass in doubt"):
        settings_of(audit__may_lose="names", audit__mode="blocking-strict")


def test_static_addresses_are_canonical_and_sorted():
    given_map = {"B.Example.": "[::1]:8443", "a.example:443": "127.0.0.1"}
    resolve = settings_of(upstream__resolve=given_map).upstream.resolve
    assert resolve == (("a.example:443", "127.0.0.1"), ("b.example", "[::1]:8443"))


def test_static_addresses_in_a_variable():
    layer = from_environment({"AESP_UPSTREAM_RESOLVE": "a=127.0.0.1:1, b:2=::1"})
    layer["state_dir"] = Given(value="/s", where="test")
    assert build([layer]).upstream.resolve == (("a", "127.0.0.1:1"), ("b:2", "::1"))


def test_a_variable_nobody_knows_is_refused():
    with pytest.raises(ConfigError, match="did you mean AESP_AUDIT_MODE"):
        from_environment({"AESP_AUDIT_MODES": "batch"})


def test_what_a_worker_is_told_is_json_and_comes_back_the_same():
    settings = settings_of(
        policy="/p.yaml", upstream__resolve={"a": "127.0.0.1"}, limits__head_s_max=2.5
    )
    flat = json.loads(json.dumps(settings.to_worker()))
    assert Settings.from_worker(flat) == settings


def test_a_worker_refuses_settings_that_no_supervisor_makes():
    with pytest.raises(ConfigError, match="no state directory"):
        Settings.from_worker({})
    with pytest.raises(ConfigError, match="unknown setting"):
        Settings.from_worker({"state_dir": "/s", "more": 1})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("audit: {mode: batch, mode: blocking}", ":1:22: audit.mode stands twice"),
        ("audit: {}\naudit: {}", ":2:1: audit stands twice"),
        ("audits: {}", ":1:1: unknown setting audits"),
        ("audit:\n  mod: x", ":2:3: unknown setting audit.mod (did you mean audit.mode?)"),
        ("audit: batch", ":1:8: is not a map"),
        ("- 1", ":1:1: is not a map"),
        ("audit: {mode: [a]}", "a list has no place here"),
        ("audit: {mode: ", "not YAML"),
        ("? [a]\n: 1", "a key is not text"),
        ("policy: !!python/object:os.system x\nlisten: {port: y}", ""),
        ("listen: {port: 0o17}", ""),
        ("listen: {port: 1:30}", ""),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_column(tmp_path, text, says):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(environ={"HOME": "/h"}, is_root=False, flags={}, file=file)
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_an_empty_file_sets_nothing(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("# nothing\n")
    assert read_file(file) == {}


def test_a_file_that_was_asked_for_must_be_readable(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(environ={}, is_root=False, flags={}, file=tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_file(tmp_path / "b.yaml")
    (tmp_path / "big.yaml").write_text("# " + "x" * (1 << 20))
    with pytest.raises(ConfigError, match="more than"):
        read_file(tmp_path / "big.yaml")
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 100_000)
    with pytest.raises(ConfigError):
        read_file(tmp_path / "deep.yaml")


def test_the_persons_file_is_found_before_the_systems(tmp_path):
    system = tmp_path / "system.yaml"
    system.write_text("limits: {header_count_max: 11}\n")
    own = tmp_path / "xdg/aesp-proxy/config.yaml"
    environ = {"HOME": "/h", "XDG_CONFIG_HOME": str(tmp_path / "xdg")}

    def count() -> int:
        found = load(environ=environ, is_root=False, flags={}, system_file=system)
        return found.limits.header_count_max

    assert count() == 11
    own.parent.mkdir(parents=True)
    own.write_text("limits: {header_count_max: 12}\n")
    assert count() == 12


def test_a_path_in_a_file_is_relative_to_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("policy: mine.yaml\nstate_dir: /var/s\n")
    settings = load(environ={"HOME": "/h"}, is_root=False, flags={}, file=file)
    assert settings.policy == tmp_path / "mine.yaml"
    assert settings.state_dir == Path("/var/s")


def test_a_path_in_a_flag_is_relative_to_where_we_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load(environ={"HOME": "/h"}, is_root=False, flags={"policy": "p.yaml"})
    assert settings.policy == tmp_path / "p.yaml"


def test_where_the_state_lives_when_nobody_says():
    assert default_state_dir({}, is_root=True) == Path("/var/lib/aesp-proxy")
    assert default_state_dir({"HOME": "/h"}, is_root=False) == Path("/h/.local/state/aesp-proxy")
    named = {"HOME": "/h", "XDG_STATE_HOME": "/x"}
    assert default_state_dir(named, is_root=False) == Path("/x/aesp-proxy")
    named["XDG_STATE_HOME"] = "relative"
    assert default_state_dir(named, is_root=False) == Path("/h/.local/state/aesp-proxy")


@given(st.text(max_size=40))
def test_splitting_a_port_never_fails_and_never_gives_a_wrong_one(text):
    host, port = split_port(text)
    assert host in text
    assert port is None or port == "" or 0 < int(port) < 65536


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(), st.text()),
)


@given(st.dictionaries(st.sampled_from(sorted(KEYS)), values, max_size=4))
def test_whatever_is_given_is_settings_or_a_config_error(given_values):
    layer = {name: Given(value=value, where="w") for name, value in given_values.items()}
    layer.setdefault("state_dir", Given(value="/s", where="w"))
    try:
        settings = build([layer])
    except ConfigError:
        return
    assert Settings.from_worker(settings.to_worker()) == settings


def test_settings_that_cannot_be_looked_at_are_an_error_and_not_skipped(tmp_path, monkeypatch):
    def refused(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refused)
    with pytest.raises(ConfigError, match="Permission denied"):
        load(environ={"HOME": str(tmp_path)}, is_root=False, flags={})


def test_a_client_certificate_is_a_path_below_the_file_that_names_it(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text('tls: {version_min: 1.3, client_certificates: {"*.corp.test": keys/a.pem}}\n')
    tls = load(environ={"HOME": "/h"}, is_root=False, flags={}, file=file).tls
    assert tls.version_min == "1.3"
    assert tls.client_certificates == (("*.corp.test", str(tmp_path / "keys/a.pem")),)


def test_client_certificates_of_a_variable_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environ = {"AESP_TLS_CLIENT_CERTIFICATES": "a.test=one.pem, b.test:8443=/two.pem"}
    pairs = build([{"state_dir": Given(value="/s", where="t")}, from_environment(environ)]).tls
    assert pairs.client_certificates == (
        ("a.test", str(tmp_path / "one.pem")),
        ("b.test:8443", "/two.pem"),
    )
    with pytest.raises(ConfigError, match="does not say where"):
        build([from_environment({"AESP_TLS_CLIENT_CERTIFICATES": "a.test"})])


def test_a_password_in_the_url_of_the_corporate_proxy_is_refused_on_the_command_line_only():
    url = "http://alice:hunter2@proxy.test:3128"
    name = "upstream.proxy"
    with pytest.raises(ConfigError, match="no place on a command line") as caught:
        load(environ={"HOME": "/h"}, is_root=False, flags={name: url}, system_file=Path("/no"))
    assert "hunter2" not in str(caught.value)
    environ = {"HOME": "/h", "AESP_UPSTREAM_PROXY": url}
    settings = load(environ=environ, is_root=False, flags={}, system_file=Path("/no"))
    assert settings.upstream.proxy == url
    assert "hunter2" not in repr(settings)
    assert Settings.from_worker(settings.to_worker()) == settings
