"""Where the start of ``run`` goes: the CPU that loading each of its processes takes.

``python -m benchmarks.start``. Each is loaded in turn with a bare interpreter, and so on for
some rounds; of each the least is told, and how many bare interpreters it is, which other load
on the machine changes little. Nothing is judged: ``egress`` measures the start as a whole.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from typing import Final

LOADED: Final = {
    "a bare interpreter": "",
    "worker": "aesp_proxy.daemon.worker",
    "of it: mitmproxy": "aesp_proxy.intercept.egress.master",
    "file guard": "aesp_proxy.daemon.file_guard",
    "sealer": "aesp_proxy.record.sealer_process",
    "the command itself": "aesp_proxy.cli.run, aesp_proxy.daemon.supervisor, "
    "aesp_proxy.daemon.process, aesp_proxy.cli.walls, aesp_proxy.launch.ca",
}


def load_ms(modules: str) -> float:
    """Load modules in a process of their own, as ours do; its CPU in milliseconds."""
    program = f"import gc; gc.disable(); import {modules}" if modules else "pass"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-I", "-c", program], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * took_s


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(prog="benchmarks.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    least = dict.fromkeys(LOADED, float("inf"))
    for _ in range(parser.parse_args().rounds):
        for name, modules in LOADED.items():
            least[name] = min(least[name], load_ms(modules))
    bare = least["a bare interpreter"]
    for name, took_ms in least.items():
        print(f"{name:24} {took_ms:6.0f} ms {took_ms / bare:6.1f} x")


if __name__ == "__main__":
    main()
