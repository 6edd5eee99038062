"""Values that were registered and let go can hardly be read in the memory of who did it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from drawn_secrets import drawn

SCRIPT = """\
import sys
from aesp_proxy.daemon.config_secrets import Secrets
from aesp_proxy.daemon.freed import overwrite_freed
from aesp_proxy.daemon.secret_registry import Registry, register_frames
from aesp_proxy.daemon.secret_sources import from_source
registry = Registry(b"k" * 32)
def register():
    added, _ = registry.add(from_source("file:" + sys.argv[1], Secrets(), None))
    return len(list(register_frames(added)))
register()
if sys.argv[2] == "overwritten":
    overwrite_freed()
print(len(registry), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("mode", "least", "most"), [("left", 20, 200), ("overwritten", 0, 20)])
def test_of_two_hundred_values_a_tenth_may_be_found_and_not_all(
    tmp_path: Path, mode: str, least: int, most: int
):
    values = [drawn(40) for _ in range(200)]
    file = tmp_path / "x.env"
    file.write_text("".join(f"A{number}_TOKEN={value}\n" for number, value in enumerate(values)))
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(file), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"200\n"
        memory = written_memory(process.pid)
        process.communicate()
    assert least <= sum(value.encode() in memory for value in values) <= most


def written_memory(pid: int) -> bytes:
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if "w" in rights:
                begin, end = (int(word, 16) for word in place.split("-"))
                memory.seek(begin)
                found.append(memory.read(end - begin))
    return b"".join(found)
