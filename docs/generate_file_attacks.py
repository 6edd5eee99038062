"""The page of attacks on files, from the table that the tests play (``file_attacks.py``)."""

from __future__ import annotations

from types import ModuleType

INTRODUCTION = """# Attacks on files

{note}
Small programs that try to read or change what the policy forbids. Each is played against each
backend (`tests/e2e/test_notify.py`, `tests/live/test_fuse.py`, `tests/live/test_fanotify.py`), with
real files, by who has no privilege: all that does not say otherwise is stopped, and played without
the backend it succeeds. What the backends are is in [files](files.md).

"""
BACKENDS = ("fuse", "notify", "fanotify")


def page(note: str, attacks: ModuleType) -> str:
    """Write the page."""
    lines = [f"| attack | {' | '.join(BACKENDS)} |", "|---|" + "---|" * len(BACKENDS)]
    for one in attacks.ATTACKS.values():
        told = (one.except_for.get(each) for each in BACKENDS)
        cells = (f"**not stopped**: {why}" if why else "stopped" for why in told)
        lines.append(f"| {one.name} | {' | '.join(cells)} |")
    return INTRODUCTION.format(note=note) + "\n".join(lines) + "\n"
