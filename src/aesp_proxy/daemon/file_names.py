"""What of a policy decides on files by their name alone, and how long that stays so. Pure."""

from __future__ import annotations

from aesp_proxy.daemon.file_judge import FileJudge
from aesp_proxy.decide.guards.forbidden_path import ForbiddenPath
from aesp_proxy.decide.guards.path_allowlist import PathAllowlist
from aesp_proxy.model.event import FileOperation


def sole_guard(judge: FileJudge) -> ForbiddenPath | None:
    """Return the guard that alone can forbid an opening by name; None where more can.

    A home directory has hundreds of thousands of names, of which few are forbidden: asking
    the engine for each took 20 us, this takes one.
    """
    snapshot = judge.snapshot
    if rules_speak_of_files(judge):
        return None
    if any(isinstance(guard, PathAllowlist) for guard in snapshot.guards):
        return None
    forbidding = [guard for guard in snapshot.guards if isinstance(guard, ForbiddenPath)]
    return forbidding[0] if len(forbidding) == 1 else None


def rules_speak_of_files(judge: FileJudge) -> bool:
    """Tell whether a rule may decide on an opening."""
    rules = judge.snapshot.rules
    asked = judge.event(FileOperation.OPEN, "/", "/")
    return rules is not None and rules.plan_of(asked) is not None


def is_lasting(judge: FileJudge) -> bool:
    """Tell whether an answer by name stays what it is as long as the policy does.

    A rule may read the time, and an exception ends.
    """
    return judge.snapshot.grants is None and not rules_speak_of_files(judge)
