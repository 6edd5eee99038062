"""What is deployed is valid, and holds what its pages promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from aesp_proxy.cli.capture import capture
from aesp_proxy.daemon.config import VARIABLES, build
from aesp_proxy.daemon.config_file import read_file
from aesp_proxy.daemon.config_values import Given
from aesp_proxy.daemon.policy_files import read_policy

DEPLOY = Path(__file__).parents[3] / "deploy"
SIDECAR = DEPLOY / "kubernetes/sidecar.yaml"
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all(SIDECAR.read_text()))


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (each for each in MANIFESTS if each["kind"] == kind)
    return found


def containers() -> dict[str, dict[str, Any]]:
    spec = of_kind("Pod")["spec"]
    return {each["name"]: each for each in (*spec["initContainers"], *spec["containers"])}


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: each["kind"])
def test_manifests_are_valid_in_strict_form(manifest, version):
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_wrong_key_would_be_seen():
    wrong = {**of_kind("Pod"), "spec": {**of_kind("Pod")["spec"], "hostNetwrk": True}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_settings_and_policy_are_ones_that_the_program_takes(tmp_path):
    for name, text in of_kind("ConfigMap")["data"].items():
        (tmp_path / name).write_text(text)
    settings = build(
        [{"state_dir": Given(value="/s", where="-")}, read_file(tmp_path / "config.yaml")]
    )
    assert str(settings.policy) == "/etc/aesp-proxy/policy.yaml"
    assert read_policy(tmp_path / "policy.yaml").name == "example"
    mounts = {each["mountPath"] for each in containers()["aesp-proxy"]["volumeMounts"]}
    for path in (settings.state_dir, settings.daemon.run_dir, settings.daemon.ca_copy):
        assert str(path.parent) in mounts
    proxy = f"http://{settings.listen.host}:{settings.listen.port}"
    env = {each["name"]: each["value"] for each in containers()["agent"]["env"]}
    assert {env[name] for name in ("http_proxy", "https_proxy", "HTTPS_PROXY")} == {proxy}
    assert env["SSL_CERT_FILE"] == str(settings.daemon.ca_copy)


def test_the_first_container_captures_all_but_the_proxy_and_alone_may(tmp_path):
    first, *_ = of_kind("Pod")["spec"]["initContainers"]
    given = first["securityContext"]
    assert given["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert given["allowPrivilegeEscalation"] is False
    assert given["readOnlyRootFilesystem"] is True
    assert "restartPolicy" not in first
    proxy = containers()["aesp-proxy"]["securityContext"]["runAsUser"]
    (tmp_path / "config.yaml").write_text(of_kind("ConfigMap")["data"]["config.yaml"])
    words = [word.replace("/etc/aesp-proxy", str(tmp_path)) for word in first["args"]]
    shown = CliRunner().invoke(capture, ["show", *words[2:]])
    assert shown.exit_code == 0, shown.exception
    assert f"meta skuid {proxy} accept" in shown.output
    assert words[:2] == ["capture", "install"]
    assert 'oif "lo" return' in shown.output


@pytest.mark.parametrize("name", ["aesp-proxy", "agent"])
def test_no_container_has_more_than_it_needs(name):
    given = containers()[name]["securityContext"]
    assert given["allowPrivilegeEscalation"] is False
    assert given["readOnlyRootFilesystem"] is True
    assert given["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in given


def test_the_agent_is_another_user_and_mounts_nothing_of_the_proxy_but_the_certificate():
    agent, proxy = containers()["agent"], containers()["aesp-proxy"]
    assert agent["securityContext"]["runAsUser"] != proxy["securityContext"]["runAsUser"]
    assert [(each["name"], each["readOnly"]) for each in agent["volumeMounts"]] == [("ca", True)]
    assert of_kind("Pod")["spec"]["shareProcessNamespace"] is False


def test_the_image_runs_as_an_ordinary_user_what_the_lock_says():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith(("#", " "))]
    assert ["USER", "65532:65532"] in words
    assert any(line == "RUN uv sync --frozen --no-dev --no-editable" for line in lines)
    assert ["ENTRYPOINT", '["aesp-proxy"]'] in words
    copied = [
        line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line
    ]
    for name in (name for names in copied for name in names):
        assert (DEPLOY.parent / name).exists(), name
    variables = [word.partition("=")[0] for word in " ".join(lines).split() if "AESP_" in word]
    assert len(variables) == 2
    assert set(variables) <= VARIABLES.keys()
