"""``aesp-proxy why`` inside a run: a command hears why it was refused, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import without_namespaces
from fuse_lab import why_not
from isolation_probe import probe

PROGRAM = Path(sys.executable).parent / "aesp-proxy"
POLICY = """\
version: "1.2.0"
name: the-name-of-the-policy
guards:
  egress_allowlist: {default_action: block, allow: [one.test]}
  forbidden_path: {enabled: true, patterns: ["**/.env", "**/kept/**", "**/*.unheard-of"]}
  secret_leak: {enabled: false}
"""
# Links of what may not even be listed; a directory that holds it; a name that is not UTF-8.
AGENT = """
import json, os, subprocess, sys, urllib.request
program = sys.argv[1]
def tries(call, *given):
    try:
        call(*given)
    except OSError:
        pass
def write(path):
    with open(path, "w") as file:
        file.write("x")
def told(*words, **environment):
    ran = subprocess.run([program, "why", *words], capture_output=True, text=True,
                         env=os.environ | environment)
    return [ran.returncode, ran.stdout, ran.stderr]
tries(lambda: open("other").read())
tries(lambda: open("folder/kept/key").read())
tries(os.rename, "folder", "renamed")
tries(write, "made.unheard-of")
tries(write, b"caf\\xff/.env")
tries(write, os.fsencode(("d" * 200 + "/") * 19) + b".env")
tries(urllib.request.urlopen, "http://two.test/")
host, port, token = os.environ["AESP_WHY"].split()
print(json.dumps({
    "all": told("--json", "-n", "1000"),
    "text": told("made"),
    "wrong": told(AESP_WHY=f"{host} {port} {token[::-1]}x"),
}))
"""


class Place:
    """A project with what an agent may not see, and how to run one there."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.cache = cache
        self.folder, self.project = folder, folder / "p"
        kept = self.project / "folder" / "kept"
        kept.mkdir(parents=True)
        (folder / "h").mkdir()
        (kept / "key").write_text("KEY")
        os.link(kept / "key", self.project / "other")
        (folder / "policy.yaml").write_text(POLICY)
        (folder / "agent.py").write_text(AGENT)

    def run(self, backend: str, *, wrapper: tuple[str, ...] = ()) -> dict[str, list[object]]:
        words = [
            *wrapper, str(PROGRAM), "run", "--policy", str(self.folder / "policy.yaml"),
            "--state", str(self.folder / "s"), "--files", backend, "--allow-degraded",
            "--set", f"scan.cache_dir={self.cache}", "--",
            sys.executable, str(self.folder / "agent.py"), str(PROGRAM),
        ]  # fmt: skip
        ran = subprocess.run(
            words,
            cwd=self.project,
            env={**os.environ, "HOME": str(self.folder / "h")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rules")


WITHOUT = (sys.executable, without_namespaces.__file__, "unshare")
NO_FUSE = why_not()
CASES = [
    pytest.param("fuse", (), marks=pytest.mark.skipif(bool(NO_FUSE), reason=NO_FUSE or "-")),
    pytest.param("notify", WITHOUT),
    pytest.param("stage", (), marks=pytest.mark.skipif(bool(probe().missing()), reason="no walls")),
]
NAMED = {
    "fuse": {("file.create", "made.unheard-of"), ("file.create", "caf\\xff/.env"),
             ("file.open", "folder")},
    "notify": {("file.open", "other"), ("file.open", "folder/kept/key"),
               ("file.create", "made.unheard-of"), ("file.create", "caf\\xff/.env")},
    "stage": set(),
}  # fmt: skip


@pytest.mark.parametrize(("backend", "wrapper"), CASES, ids=["fuse", "no network", "stage"])
def test_a_command_hears_why_by_the_names_that_it_gave_and_no_other(cache, backend, wrapper):
    with tempfile.TemporaryDirectory(prefix="aesp") as folder:
        place = Place(Path(folder).resolve(), cache)
        (place.project / os.fsdecode(b"caf\xff")).mkdir()
        (place.project / (("d" * 200 + "/") * 19)).mkdir(parents=True)
        told = place.run(backend, wrapper=wrapper)
        code, out, _ = told["all"]
        assert code == 0
        rows = [json.loads(line) for line in str(out).splitlines()]
        named = {
            (row["action"], row["resource"].removeprefix(f"{place.project}/"))
            for row in rows
            if row["action"].startswith("file.") and "ddd" not in row["resource"]
        }
        assert named == NAMED[backend]
        assert [row["reason"] for row in rows if row["resource"] == "http://two.test:80/"] == [
            "host_not_allowed"
        ]
        # Neither the policy nor a name that is kept from it, unless it gave that itself.
        assert "name-of-the-policy" not in str(told)
        assert "one.test" not in str(told)
        assert "**" not in str(told)
        assert ("kept" in str(told)) == (backend == "notify")
        assert told["wrong"][0] == 4
        assert "does not know us" in str(told["wrong"][2])
        if backend == "stage":
            assert told["text"][0] == 1
        else:
            assert "path_forbidden: refused by the policy of this run" in str(told["text"][1])
