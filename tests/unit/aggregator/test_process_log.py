"""The log of the aggregator's processes says where something failed, and quotes nobody."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SECRET = "q9Zt4LmX0vKc7RbYw2NsD5hJ8gFp3TaUe6WiQo1"
BEGIN = """\
import asyncio, logging, sys, threading
from aesp_proxy.aggregator.process import log, log_to_stderr
log_to_stderr()
secret = sys.argv[1]
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "try:\n    int(secret)\nexcept ValueError:\n    log.exception('writer_ended')\n",
            {"event": "writer_ended", "level": "error"},
        ),
        (
            "logging.getLogger('uvicorn.error').error('bad header %s', secret)\n",
            {"event": "library_complains", "library": "uvicorn.error", "level": "error"},
        ),
        (
            (
                "async def wrong():\n    int(secret)\n"
                "async def main():\n    task = asyncio.create_task(wrong())\n"
                "    await asyncio.sleep(0)\n    del task\nasyncio.run(main())\n"
            ),
            {"event": "library_complains", "library": "asyncio", "level": "error"},
        ),
        ("int(secret)\n", {"event": "ended", "level": "critical"}),
        (
            "threading.Thread(target=int, args=(secret,)).start()\n",
            {"event": "thread_failed", "level": "error"},
        ),
    ],
    ids=["ours", "library", "task", "process", "thread"],
)
def test_no_exception_and_no_library_is_quoted(script: str, said: dict[str, str]):
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", BEGIN + script, SECRET],
        capture_output=True,
        text=True,
        check=False,
    )
    assert SECRET not in ran.stderr
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    (line,) = [line for line in lines if said.items() <= line.items()]
    if "header" not in script:
        assert line["exception"].startswith("ValueError at ")
