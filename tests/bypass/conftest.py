"""What the cases are played with: proxies for all of them, the command, one run of probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from bypass_cases import read_cases
from bypass_lab import POLICY_FILE, Labs, running_labs
from bypass_play import RunCli, Stage
from bypass_probes import run_probes

from aesp_proxy.cli import main


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    with running_labs(tmp_path_factory.mktemp("labs")) as running:
        yield running


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, str]]:
    """Run the probes of all cases, once, when the first one is asked for."""

    @cache
    def run() -> dict[str, str]:
        codes = {
            case.name: given["code"]
            for case in read_cases()
            for given in case.inputs
            if given["kind"] == "probe"
        }
        return run_probes(codes, tmp_path_factory.mktemp("probes"), POLICY_FILE)

    return run


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> RunCli:
    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def stage(labs: Labs, cli: RunCli, probes: Callable[[], dict[str, str]], tmp_path: Path) -> Stage:
    return Stage(labs=labs, cli=cli, probes=probes, directory=tmp_path)
