"""The page of attacks on files, from the table that the tests play (``file_attacks.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

INTRODUCTION = """# Attacks on files

{note}
Small programs that try to read or change what the policy forbids. What the backends are is in
[files](files.md).

## By whom

Every attack is played in whole runs, by every backend and as every kind of user
(`tests/live/test_file_attacks.py`, as root; `tests/e2e/test_notify.py` without), with real files:
each number below is asserted, attack by attack, and so is that a run which a backend is not to be
had for ends before the command begins. Beside each attack an allowed file is read. Played without
us each attack succeeds, but for what the kernel asks privilege for. *In a container*: without
capabilities, behind what Docker's own filter refuses (mounts, namespaces, handles, io_uring ...).

{users}

## By attack

All that does not say otherwise is stopped, whoever tries. By `stage` that means: not read, and the
tree is as it was; what the agent made of its stage is refused when it is to be published
(`tests/live/test_stage.py`). `observe` stops nothing.

"""


HONEST = """
## Honest programs

What must go on as it does without us, nothing of it refused. What plays them stands above each
column; `tests/live/test_many_files.py` unpacks, reads and keeps 100,000 small files with each.

{programs}
"""


def page(note: str, attacks: ModuleType, honest: ModuleType) -> str:
    """Write the page."""
    backends = tuple(attacks.PLAYED)
    lines = _table("attack", backends)
    for one in attacks.ATTACKS.values():
        told = (one.except_for.get(each) for each in backends)
        cells = (f"**not stopped**: {why}" if why else "stopped" for why in told)
        lines.append(f"| {one.name} | {' | '.join(cells)} |")
    users = "\n".join(_users(attacks, backends))
    columns = [f"{backend}: `{test}`" for backend, test in honest.PLAYED.items()]
    rows = [f"| {name} |{' unbroken |' * len(columns)}" for name in honest.HONEST]
    programs = "\n".join([*_table("program", tuple(columns)), *rows])
    written = INTRODUCTION.format(note=note, users=users) + "\n".join(lines) + "\n"
    return written + HONEST.format(programs=programs)


def _users(attacks: ModuleType, backends: tuple[str, ...]) -> Iterator[str]:
    yield from _table("played as", backends)
    every = len(attacks.ATTACKS)
    for user, called in attacks.USERS.items():
        cells = []
        for backend in backends:
            why = attacks.PLAYED[backend].get(user)
            stopped = every - len(attacks.reached(backend, user))
            cells.append(why or f"{stopped} of {every} stopped")
        yield f"| {called} | {' | '.join(cells)} |"


def _table(first: str, backends: tuple[str, ...]) -> list[str]:
    return [f"| {first} | {' | '.join(backends)} |", "|---|" + "---|" * len(backends)]
