"""The envelope of a SARIF 2.1.0 log of one run.

Source: OASIS, Static Analysis Results Interchange Format 2.1.0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Final

from aesp_proxy.cli.output import PROGRAM

_SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def sarif_log(
    *,
    rules: Sequence[Mapping[str, object]],
    results: Sequence[Mapping[str, object]],
    successful: bool = True,
    notifications: Sequence[Mapping[str, object]] = (),
) -> str:
    """Return a log as JSON. ``notifications`` say what the run could not do; then it failed."""
    invocation: dict[str, object] = {"executionSuccessful": successful and not notifications}
    if notifications:
        invocation["toolExecutionNotifications"] = list(notifications)
    run = {
        "tool": {"driver": {
            "name": PROGRAM, "version": version("aesp-proxy"), "rules": list(rules),
        }},
        "columnKind": "unicodeCodePoints",
        "invocations": [invocation],
        "results": list(results),
    }  # fmt: skip
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)
