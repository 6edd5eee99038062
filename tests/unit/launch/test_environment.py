"""The child's environment: everything that points at the proxy and the CA, nothing around."""

from __future__ import annotations

from pathlib import Path

import pytest

from aesp_proxy.launch.environment import VARIABLES, ProxyAddress, Value, child_environment
from aesp_proxy.launch.trust import TrustFiles

PROXY = ProxyAddress(host="127.0.0.1", port=8123)
TRUST = TrustFiles(
    certificate=Path("/ca/cert.pem"),
    bundle=Path("/ca/bundle.pem"),
    wgetrc=Path("/ca/wgetrc"),
    java_store=Path("/my ca/store.p12"),
)


def environment(**base: str) -> dict[str, str]:
    return child_environment(base, proxy=PROXY, trust=TRUST)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_the_proxy_replaces_the_one_that_was_set(name):
    assert environment(**{name: "http://other:1"})[name] == "http://127.0.0.1:8123"


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy", "npm_config_noproxy", "no_grpc_proxy"])
def test_nothing_goes_around(name):
    assert environment(**{name: "*"})[name] == ""


def test_every_proxy_variable_has_both_cases():
    names = {variable.name for variable in VARIABLES}
    generic = {
        n for n in names if n.endswith("_PROXY") and n.count("_") == 1 and n != "RSYNC_PROXY"
    }
    assert {name.lower() for name in generic} <= names


def test_no_variable_stands_twice():
    names = [variable.name for variable in VARIABLES]
    assert len(set(names)) == len(names)


def test_everything_that_names_a_trust_file_names_ours():
    made = environment(SSL_CERT_FILE="/theirs", GIT_SSL_CAINFO="/theirs")
    for variable in VARIABLES:
        if variable.value in (Value.BUNDLE, Value.CERTIFICATE, Value.WGETRC):
            assert made[variable.name].startswith("/ca/")


def test_the_rest_of_the_environment_is_left_alone():
    assert environment(PATH="/bin", LANG="C")["PATH"] == "/bin"


def test_the_base_is_not_changed():
    base = {"NO_PROXY": "*"}
    child_environment(base, proxy=PROXY, trust=TRUST)
    assert base == {"NO_PROXY": "*"}


def test_git_is_told_after_what_it_was_told_already():
    made = environment(
        GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="http.proxy", GIT_CONFIG_VALUE_0="http://other:1"
    )
    assert made["GIT_CONFIG_COUNT"] == "2"
    assert made["GIT_CONFIG_VALUE_0"] == "http://other:1"
    assert (made["GIT_CONFIG_KEY_1"], made["GIT_CONFIG_VALUE_1"]) == (
        "http.proxy",
        "http://127.0.0.1:8123",
    )


def test_java_options_stand_last_and_are_quoted():
    options = environment(JAVA_TOOL_OPTIONS="-Xmx1g")["JAVA_TOOL_OPTIONS"]
    assert options.startswith("-Xmx1g -Dhttp.proxyHost=127.0.0.1 ")
    assert '"-Djavax.net.ssl.trustStore=/my ca/store.p12"' in options


def test_without_java_its_options_are_left_alone():
    from dataclasses import replace

    trust = replace(TRUST, java_store=None)
    assert "JAVA_TOOL_OPTIONS" not in child_environment({}, proxy=PROXY, trust=trust)


def test_an_ipv6_proxy_is_bracketed():
    assert str(ProxyAddress(host="::1", port=80)) == "[::1]:80"


def test_the_child_does_not_get_the_password_of_the_corporate_proxy():
    base = {"AESP_UPSTREAM_PROXY": "http://alice:hunter2@proxy.test:3128"}
    assert "hunter2" not in str(child_environment(base, proxy=PROXY, trust=TRUST))
