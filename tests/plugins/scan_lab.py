"""Tokens that are nobody's, repositories made on the spot, and the command as a person calls it."""

from __future__ import annotations

import json
import os
import random
import string
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aesp_proxy.cli import main

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase


def token(seed: int) -> str:
    """Return a GitHub token with its check sum, made up from a seed."""
    body = "".join(random.Random(seed).choices(string.ascii_letters + string.digits, k=30))
    check, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        check, digit = divmod(check, 62)
        digits = _DIGITS[digit] + digits
    return "gh" + "p_" + body + digits


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str

    @property
    def leaks(self) -> list[dict]:
        return json.loads(self.stdout)

    @property
    def places(self) -> list[tuple[str, int, int]]:
        return [(leak["File"], leak["StartLine"], leak["StartColumn"]) for leak in self.leaks]


Call = Callable[..., Done]


@pytest.fixture
def scan(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Call:
    """Call ``aesp-proxy scan``; what it compiles is kept for the tests of this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "no-state"))

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main.main(["scan", *map(str, arguments)])
        streams = capsys.readouterr()
        return Done(int(exited.value.code or 0), streams.out, streams.err)

    return call


@dataclass(frozen=True)
class Repository:
    path: Path

    def git(self, *arguments: str) -> str:
        environment = os.environ | {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_AUTHOR_DATE": "2026-01-05T10:00:00+01:00",
            "GIT_COMMITTER_DATE": "2026-01-05T10:00:00+01:00",
        }
        done = subprocess.run(
            ["git", "-c", "user.name=A Person", "-c", "user.email=a@b.example", *arguments],
            cwd=self.path,
            env=environment,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode("utf-8", "replace").strip()

    def write(self, name: str | bytes, content: str | bytes) -> None:
        path = self.path / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, message: str = "a change", *, add: bool = True) -> str:
        if add:
            self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Give an empty repository, which is the working folder."""
    made = Repository(tmp_path / "repository")
    made.path.mkdir()
    made.git("init", "--quiet", "--initial-branch=main", ".")
    monkeypatch.chdir(made.path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that is in no repository, and is the working folder."""
    path = tmp_path / "folder"
    path.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return path
