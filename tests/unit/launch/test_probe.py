"""What the probes of ``doctor`` say of what they found."""

from __future__ import annotations

import errno
import os
import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aesp_proxy.launch.ca import ensure_ca
from aesp_proxy.launch.environment import VARIABLES
from aesp_proxy.launch.isolation.layers import MEANINGS, Layer, Report
from aesp_proxy.launch.probe import clients, isolation, machine, state
from aesp_proxy.launch.probe.finding import Finding, Group, Level, worst

NOW = datetime.now(UTC)
ALL_STANDS = dict.fromkeys(Layer, 0)


def told(outcomes, *, degraded=False):
    report = Report(outcomes)
    found = list(isolation.told(report, degraded=degraded, is_root=False))
    return dict(zip(Layer, found, strict=True))


def test_layers_that_stand_are_ok_and_need_no_remedy():
    found = told(ALL_STANDS)
    assert {each.level for each in found.values()} == {Level.OK}
    assert {each.remedy for each in found.values()} == {""}


@pytest.mark.parametrize("layer", Layer)
def test_a_layer_that_run_insists_on_is_missing_and_others_are_weaker(layer):
    finding = told({**ALL_STANDS, layer: errno.EPERM})[layer]
    assert finding.level is (Level.MISSING if MEANINGS[layer].required else Level.WEAKER)
    assert "Operation not permitted" in finding.found
    assert MEANINGS[layer].open_without in finding.meaning
    assert finding.remedy


def test_settings_that_go_on_degraded_make_what_is_missing_weaker():
    finding = told({**ALL_STANDS, Layer.NETWORK: errno.EPERM}, degraded=True)[Layer.NETWORK]
    assert finding.level is Level.WEAKER
    assert finding.meaning.startswith("`run` goes on")


def finding(level):
    return Finding(group=Group.SETUP, name="a", level=level, found="", meaning="")


def test_the_worst_level_counts_and_what_is_unused_does_not():
    assert worst([]) is Level.OK
    assert worst([finding(Level.OK), finding(Level.UNUSED)]) is Level.OK
    assert worst([finding(Level.WEAKER), finding(Level.OK)]) is Level.WEAKER
    assert worst([finding(Level.WEAKER), finding(Level.MISSING)]) is Level.MISSING


def test_this_machine_is_told_of_without_a_guess():
    found = {each.name: each for each in machine.machine_findings(connections_max=1)}
    assert os.uname().release in found["kernel"].found
    assert found["clock"].found


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.1.0-18-amd64", (6, 1)), ("5.15.167.4-WSL2", (5, 15)), ("6", (6, 0)), ("", (0, 0))],
)
def test_releases_of_kernels_are_read(release, expected):
    assert machine.version_of(release) == expected


@pytest.mark.parametrize(
    ("release", "architecture", "level"),
    [("6.12.0", "x86_64", Level.OK), ("5.10.0", "aarch64", Level.WEAKER),
     ("6.12.0", "riscv64", Level.MISSING)],
)  # fmt: skip
def test_an_old_kernel_is_weaker_and_an_architecture_without_filter_is_missing(
    release, architecture, level
):
    assert machine._kernel(release, architecture).level is level


def test_too_few_descriptors_for_the_connections_allowed_are_weaker():
    assert machine._descriptors((1024, 4096), 5000).level is Level.WEAKER
    assert machine._descriptors((1024, 20_000), 5000).level is Level.OK
    assert machine._descriptors((65536, 65536), 5000).level is Level.OK
    unlimited = machine._descriptors((resource.RLIM_INFINITY,) * 2, 5000)
    assert unlimited.level is Level.OK
    assert "unlimited" in unlimited.found


def mounts_file(tmp_path, kind):
    path = tmp_path / "mounts"
    path.write_text(f"none / {kind} rw 0 0\n")
    return path


def test_a_state_directory_that_is_not_there_is_not_made(tmp_path):
    place = tmp_path / "a/b"
    found = state.state_finding(place, mounts=mounts_file(tmp_path, "ext4"))
    assert found.level is Level.OK
    assert "made when used" in found.found
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("kind", ["tmpfs", "nfs4"])
def test_a_file_system_that_forgets_or_is_far_away_is_weaker(tmp_path, kind):
    found = state.state_finding(tmp_path, mounts=mounts_file(tmp_path, kind))
    assert found.level is Level.WEAKER
    assert kind in found.found


def test_a_file_in_place_of_the_state_directory_is_missing(tmp_path):
    place = tmp_path / "file"
    place.write_text("")
    assert state.state_finding(place, mounts=mounts_file(tmp_path, "ext4")).level is Level.MISSING


def test_a_ca_that_is_not_there_is_not_made(tmp_path):
    found = state.ca_finding(tmp_path / "ca", now=NOW)
    assert (found.level, found.found) == (Level.OK, "none yet")
    assert not (tmp_path / "ca").exists()


def test_a_ca_that_others_can_read_is_missing_and_the_mode_of_a_good_one_is_told(tmp_path):
    ca = ensure_ca(tmp_path / "ca", now=NOW)
    assert "mode 0600" in state.ca_finding(tmp_path / "ca", now=NOW).found
    ca.combined.chmod(0o644)
    found = state.ca_finding(tmp_path / "ca", now=NOW)
    assert found.level is Level.MISSING
    assert "chmod 600" in found.remedy


def test_the_file_system_of_the_deepest_mount_counts():
    rows = "a / ext4 rw 0 0\nb /home nfs4 rw 0 0\nc /home/a\\040b xfs rw 0 0\n"
    assert state.file_system_of(Path("/home/x"), rows) == "nfs4"
    assert state.file_system_of(Path("/home/a b/c"), rows) == "xfs"
    assert state.file_system_of(Path("/homes"), rows) == "ext4"


def test_every_tool_that_is_called_trusting_is_reached_by_a_variable_that_run_sets():
    assert set(clients.TRUSTING.values()) <= {variable.name for variable in VARIABLES}


def test_tools_with_roots_of_their_own_are_weaker_and_say_how():
    there = {"curl", "java", "firefox"}
    found = list(clients.client_findings(lambda tool: tool if tool in there else None))
    assert found[0].found == "curl, java"
    assert [(each.name, each.level) for each in found[1:]] == [("firefox", Level.WEAKER)]
    assert "certutil" in found[1].remedy
