"""Leases on one machine: one holder, until it lets go, dies, or its file is taken away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aesp_proxy.aggregator.identity import DataDir
from aesp_proxy.aggregator.stores import open_leases
from aesp_proxy.errors import ConfigError


def test_a_lease_is_one_holders_until_it_is_let_go(tmp_path: Path):
    leases = open_leases(DataDir(tmp_path))
    first = leases.take("log")
    assert first is not None
    assert first.held()
    assert leases.take("log") is None
    assert leases.take("other") is not None
    first.release()
    assert not first.held()
    assert leases.take("log") is not None


def test_a_lease_falls_when_its_holder_dies(tmp_path: Path):
    take = (
        "import sys; from pathlib import Path;"
        "from aesp_proxy.aggregator.identity import DataDir;"
        "from aesp_proxy.aggregator.stores import open_leases;"
        "lease = open_leases(DataDir(Path(sys.argv[1]))).take('log');"
        "print(lease is not None, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", take, os.fspath(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        leases = open_leases(DataDir(tmp_path))
        assert leases.take("log") is None
        holder.kill()
        holder.wait()
    assert leases.take("log") is not None


def test_a_lease_whose_file_was_removed_is_held_no_more(tmp_path: Path):
    leases = open_leases(DataDir(tmp_path))
    first = leases.take("log")
    assert first is not None
    (tmp_path / "log.lease").unlink()
    assert not first.held()
    second = leases.take("log")
    assert second is not None
    assert second.held()
    assert not first.held()


def test_a_lease_has_a_plain_name(tmp_path: Path):
    with pytest.raises(ConfigError):
        open_leases(DataDir(tmp_path)).take("../log")
