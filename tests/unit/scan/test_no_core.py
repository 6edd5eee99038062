"""Commands that read what must not leave have the kernel write no core of them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress

import pytest

from aesp_proxy.cli import check, main, secrets
from aesp_proxy.cli.scan import command


class ReachedError(Exception):
    """The command is about to read."""


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The limit of cores at the moment in which a command begins to read."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    seen: list[int] = []

    def reached(*_: object, **__: object) -> None:
        seen.append(resource.getrlimit(resource.RLIMIT_CORE)[0])
        raise ReachedError

    monkeypatch.setattr(command, "asked", reached)
    monkeypatch.setattr(secrets, "_settings", reached)
    monkeypatch.setattr(check, "load_snapshot", reached)
    monkeypatch.setattr("aesp_proxy.cli.flags.split_listen", reached)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield seen
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.parametrize(
    "words",
    [
        ["scan", "-"],
        ["secrets", "register", "--name", "N"],
        ["check", "--policy", "p.yaml", "--events", "-"],
        ["witness", "serve", "--dir", "w"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_CORE)[1] == 0, reason="no process here leaves a core"
)
def test_a_command_that_reads_secrets_leaves_no_core(
    words: list[str], limits: list[int], tmp_path: pytest.TempPathFactory
) -> None:
    with suppress(SystemExit):
        main([*words, *(["--state", str(tmp_path)] if words[0] == "secrets" else [])])
    assert limits == [1]
