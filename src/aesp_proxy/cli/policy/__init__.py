"""``aesp-proxy policy``: compile policies, and tools to trust them.

Each command stands in a module of its own, imported when it is used.
"""

from __future__ import annotations

from typing import Final

import click

from aesp_proxy.cli.lazy import LazyGroup, Table

COMMANDS: Final[Table] = {
    "compile": (
        "aesp_proxy.cli.policy.compile_command:compile_command",
        "Join the levels of a hierarchy into the policy of one scope.",
    ),
    "diff": (
        "aesp_proxy.cli.policy.diff:diff",
        "Say what changes in meaning from one policy to another.",
    ),
    "explain": (
        "aesp_proxy.cli.policy.explain:explain",
        "Say why an attempt gets its verdict.",
    ),
    "fmt": (
        "aesp_proxy.cli.policy.fmt_command:fmt_command",
        "Bring policy files into one layout, comments kept.",
    ),
    "lint": (
        "aesp_proxy.cli.policy.lint_command:lint_command",
        "Find in policies that load what is likely wrong.",
    ),
    "prove": (
        "aesp_proxy.cli.policy.prove_command:prove_command",
        "Show that no level weakens what stands above it.",
    ),
    "simulate": (
        "aesp_proxy.cli.policy.simulate:simulate",
        "Replay recorded decisions under another policy.",
    ),
    "test": (
        "aesp_proxy.cli.policy.test_command:test_command",
        "Try suites of cases on policies, and tell what they cover.",
    ),
}


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
def policy() -> None:
    """Compile policies, check them, and say what they mean."""
