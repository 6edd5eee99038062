"""A weakening: what a lower level would let pass that a higher one refuses, with a witness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aesp_proxy.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakening:
    """One of them.

    ``key`` is the dotted key, ``what`` says what is wrong with it. ``above`` and ``below``
    are FILE:LINE and FILE:LINE:COL. ``witness`` is what was refused and would pass; empty
    where the statement itself is not accepted.
    """

    key: str
    what: str
    above: str
    below: str
    witness: str = ""
    remedy: str = ""

    @property
    def message(self) -> str:
        """One line without the place of the lower file."""
        told = f"; {self.witness} was refused and would pass" if self.witness else ""
        return f"{self.key}: {self.what}, against {self.above}{told}"

    def error(self) -> ConfigError:
        """Return it as the error that refuses the level."""
        return ConfigError(
            self.message,
            where=self.below,
            remedy=self.remedy or "below this level the policy may only become stricter",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What ``override_rules`` tighten: guard -> FILE:LINE of the rule that says so.

    ``additions`` and ``removals`` name the guards whose list may not get or lose entries.
    """

    additions: Mapping[str, str]
    removals: Mapping[str, str]


NOTHING_FROZEN: Final = Frozen(additions={}, removals={})


def value_witness(key: str, above: str, below: str) -> str:
    """Return what passes by ``below`` and not by ``above``, for a key with one value."""
    match key:
        case "guards.patch_integrity.max_additions":
            return f"a patch that adds {int(above) + 1} lines"
        case "guards.patch_integrity.max_deletions":
            return f"a patch that deletes {int(above) + 1} lines"
        case "guards.patch_integrity.max_imbalance_ratio":
            return f"a patch with {below} added lines for each deleted one"
        case "guards.patch_integrity.require_balance":
            return "a patch that adds 1000 lines and deletes 1"
        case "guards.mcp_tool.max_args_size":
            return f"a call with {int(above) + 1} bytes of arguments"
        case "guards.mcp_tool.default_action":
            return "a call of the tool 'witness'"
        case "guards.egress_allowlist.default_action":
            return "a connection to witness.example:443"
        case "guards.secret_leak.severity_threshold":
            return f"a finding of severity {above}"
        case "guards.forbidden_path.require":
            return "a run without a guard of files"
        case "guards.secret_leak.unscannable":
            return "a body that cannot be scanned"
        case "settings.session_timeout_secs":
            return f"a session of {int(above) + 1} seconds"
        case _:
            return f"{key.rpartition('.')[2]} {below} for {above}"
