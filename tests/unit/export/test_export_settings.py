"""A settings file holds or is refused with its place; a secret stands in no message."""

from __future__ import annotations

from pathlib import Path

import pytest

from aesp_proxy.aggregator.export.settings import KEYS, TYPES, load_settings
from aesp_proxy.errors import ConfigError

SECRET = "s3cr3t-of-the-sink"


@pytest.fixture
def write(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text(SECRET + "\n")
    token.chmod(0o600)

    def write_file(text: str) -> Path:
        path = tmp_path / "export.yaml"
        path.write_text(text)
        return path

    return write_file


def test_a_file_of_every_sort_holds(write):
    path = write(
        """
region: eu-west
sinks:
  soc: {type: splunk, url: "https://splunk.example:8088", secret_file: token, index: main}
  search: {type: elastic, url: "https://es.example", index: audit, secret_env: ES_KEY, user: u}
  lines: {type: syslog, address: "siem.example:6514", verdicts: [deny, ask], format: cef}
  otel: {type: otlp, url: "http://127.0.0.1:4318", proofs: true, timeout_s: 2.5}
  hook: {type: webhook, url: "https://hook.example", path: /in, secret_file: token, start: now}
  stream: {type: kafka, address: "k1:9092,k2:9092", topic: t, events_max: 9}
"""
    )
    found = load_settings(path, environment={"ES_KEY": "k"})
    assert [sink.type for sink in found.sinks] == list(TYPES)
    assert [sink.format for sink in found.sinks] == ["cim", "ecs", "cef", "ocsf", "ocsf", "ocsf"]
    assert found.sink("soc").secret == SECRET
    assert found.sink("search").secret == "k"
    assert found.sink("lines").verdicts == ("deny", "ask")
    assert (found.sink("otel").timeout_s, found.sink("otel").proofs) == (2.5, True)
    assert {sink.region for sink in found.sinks} == {"eu-west"}
    assert SECRET not in repr(found)


SPLUNK = 'sinks:\n  soc: {type: splunk, url: "https://s.example", secret_file: token'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "export.yaml"),
        ("sinks: []", "sinks must be a map"),
        ("regions: x\nsinks: {}", ":1:1: 'regions' is not a setting"),
        ("sinks:\n  So C: {type: splunk}", "cannot name a sink"),
        ("sinks:\n  soc: splunk", "a sink is a map"),
        ("sinks:\n  soc: {type: soup}", "type must be one of"),
        (SPLUNK + ", tokn: x}", ":2:69: 'tokn' is not"),
        (SPLUNK + ", topic: x}", "'topic' is not a setting of splunk"),
        (SPLUNK + ", format: xml}", "format must be one of ocsf"),
        (SPLUNK + ", events_max: 0}", "events_max must be 1 to 10000"),
        (SPLUNK + ", events_max: many}", "events_max must be 1 to 10000"),
        (SPLUNK + ", timeout_s: nan}", "timeout_s must be 0.1 to 300"),
        (SPLUNK + ", acknowledge: yes}", "acknowledge must be true or false"),
        (SPLUNK + ", verdicts: [block]}", "verdicts must be one of"),
        (SPLUNK + ", secret_env: X}", "not both"),
        ('sinks:\n  soc: {type: splunk, url: "https://s.example"}', "secret_env is missing"),
        (SPLUNK.replace("https", "http") + "}", "http goes to loopback only"),
        (SPLUNK.replace("https", "ftp") + "}", "url must be https"),
        (SPLUNK.replace("s.example", "user:pw@s.example") + "}", "url must be https"),
        (SPLUNK.replace("s.example", "s.example/x") + "}", "url has no path"),
        (SPLUNK.replace("s.example", "[::1") + "}", "url must be https"),
        ('sinks:\n  e: {type: elastic, url: "https://e.example"}', "index is missing"),
        ('sinks:\n  e: {type: elastic, url: "https://e", index: i, format: cef}', "takes no cef"),
        ("sinks:\n  s: {type: syslog}", "address is missing"),
        ('sinks:\n  s: {type: syslog, address: "s.example:514", plain: true}', "loopback only"),
        ('sinks:\n  k: {type: kafka, address: "127.0.0.1:1,k:2", plain: true}', "loopback only"),
        ("sinks:\n  s: {type: syslog, address: a}\n  s: {type: syslog, address: a}", "twice"),
        ('sinks:\n  h: {type: webhook, url: "https://h", secret_env: NONE}', "secret is empty"),
        (SPLUNK + ", dead_letters_max: 0}", "dead_letters_max must be 1 to 1e+06"),
        (SPLUNK + ', proxy: "http://u:pw@p.example:1"}', "proxy must be http or https://HOST"),
        (SPLUNK + ', proxy: "socks5://p.example:1"}', "proxy must be http or https://HOST"),
        (SPLUNK + ', proxy: "http://p.example/x"}', "proxy must be http or https://HOST"),
        (SPLUNK + ', proxy: "http://p.example", proxy_user: u}', "go together"),
        (SPLUNK + ', proxy: "http://p.example", proxy_secret_file: token}', "go together"),
        (
            SPLUNK + ', proxy: "http://p.example", proxy_user: "a:b", proxy_secret_file: token}',
            "proxy_user has a colon",
        ),
        (SPLUNK + ", proxy_user: u, proxy_secret_file: token}", "proxy is missing"),
        (
            SPLUNK.replace("https://s.example", "http://127.0.0.1") + ', proxy: "http://p"}',
            "through a proxy goes TLS only",
        ),
        ('sinks:\n  s: {type: syslog, address: a, proxy: "https://p"}', "proxy must be http://"),
        (
            'sinks:\n  s: {type: syslog, address: "127.0.0.1:1", plain: true, proxy: "http://p"}',
            "through a proxy goes TLS only",
        ),
        ('sinks:\n  k: {type: kafka, address: k, proxy: "http://p"}', "not a setting of kafka"),
        ('sinks:\n  h: {type: webhook, url: "https://h", secret_env: LINES}', "more than one line"),
        ('sinks:\n  h: {type: webhook, url: "https://h", secret_file: gone}', "cannot be read"),
    ],
)
def test_what_does_not_hold_is_refused(write, text: str, says: str):
    with pytest.raises(ConfigError) as caught:
        load_settings(write(text), environment={"LINES": f"{SECRET}\nX-Header: forged"})
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_secret_that_others_may_read_is_refused(write, tmp_path: Path):
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(ConfigError, match="others may read it"):
        load_settings(write(SPLUNK + "}"), environment={})


def test_every_key_says_what_it_is_for():
    assert all(key.help.endswith((".", ")")) for key in KEYS.values())
