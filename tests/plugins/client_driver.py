"""Runs below ``run``: plays every case of a file, some beside each other; writes what each said.

``client_driver.py CASES SAID``, standard library only. A case names the variables that it
keeps of those that ``run`` has set, beside what every program needs; ``["*"]`` is all of them.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TOGETHER = 3
WAIT_S = 60
EVERYBODY = ("PATH", "HOME", "LANG", "RUSTUP_HOME", "NODE_PATH")


def environment_of(case: dict[str, Any]) -> dict[str, str]:
    """Return a case's environment."""
    given = dict(os.environ)
    if case["keep"] == ["*"]:
        return given
    environment = {name: given[name] for name in (*EVERYBODY, *case["keep"]) if name in given}
    if "JAVA_TOOL_OPTIONS" in case["keep"] and not case["keeps_proxy"]:
        words = shlex.split(given["JAVA_TOOL_OPTIONS"])
        trust = [word for word in words if "trustStore" in word]
        environment["JAVA_TOOL_OPTIONS"] = shlex.join(trust)
    return environment


def play(case: dict[str, Any]) -> dict[str, Any]:
    """Run one program; a time-out is an exit code of -1."""
    folder = Path(case["folder"])
    folder.mkdir(parents=True)
    proxy = os.environ["HTTPS_PROXY"].removeprefix("http://")
    host, _, port = proxy.rpartition(":")

    def filled(text: str) -> str:
        for name, value in (("proxy", proxy), ("proxy_host", host), ("proxy_port", port)):
            text = text.replace(f"{{{name}}}", value)
        return text

    environment = environment_of(case)
    environment |= {name: filled(text) for name, text in case["set"].items()}
    begin = time.monotonic()
    try:
        ran = subprocess.run(
            [filled(word) for word in case["words"]], cwd=folder, env=environment,
            input=case["input"], capture_output=True, encoding="utf-8", errors="replace",
            check=False, timeout=WAIT_S,
        )  # fmt: skip
        code, out, err = ran.returncode, ran.stdout, ran.stderr
    except subprocess.TimeoutExpired as error:
        code, out, err = -1, str(error.stdout), str(error.stderr)
    took = time.monotonic() - begin
    return {"name": case["name"], "code": code, "out": out, "err": err, "seconds": round(took, 2)}


def main() -> None:
    """Play them all."""
    cases = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    with ThreadPoolExecutor(TOGETHER) as pool:
        said = list(pool.map(play, cases))
    Path(sys.argv[2]).write_text(json.dumps(said), "utf-8")


if __name__ == "__main__":
    main()
