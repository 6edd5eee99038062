"""The rules of a capture put in, looked at, taken away, each once; see ``capture``.

Exit codes: 0 done, 1 the rules are not what they should be, 3 wrong settings or names,
4 the kernel does not let us.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from aesp_proxy.cli.capture_flags import rule_flags, spared_flag, wish_for
from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import printable
from aesp_proxy.errors import UnavailableError


@contextmanager
def _kernel() -> Iterator[None]:
    """Translate what the kernel answers."""
    from aesp_proxy.intercept.capture.keeper import REMEDY, why_not

    try:
        yield
    except OSError as error:
        raise UnavailableError(why_not(error), where="nftables", remedy=REMEDY) from error


@click.command()
@rule_flags
@spared_flag
def install(**given: Any) -> int:  # noqa: ANN401 - the flags of ``rule_flags``
    """Put the rules in, in one step, in place of those that may be there.

    They stay until `remove`, or until the machine or the pod ends. Nobody watches them:
    that is `keep`, or the daemon.
    """
    from aesp_proxy.intercept.capture import tables

    wish = wish_for(**given)
    table = wish.table()
    with _kernel():
        tables.replace(table)
        different = tables.differences(table)
    if different:
        raise UnavailableError(f"the kernel took other rules: {'; '.join(different)}")
    click.echo(printable(f"captured: {wish.told()}"))
    return ExitCode.DONE


@click.command()
@rule_flags
@spared_flag
def check(**given: Any) -> int:  # noqa: ANN401 - the flags of ``rule_flags``
    """Say whether the rules stand that `install` would put in; change nothing."""
    from aesp_proxy.intercept.capture import tables

    wish = wish_for(**given)
    table = wish.table()
    with _kernel():
        different = tables.differences(table)
    for each in different:
        click.echo(printable(each))
    if different:
        return ExitCode.FINDINGS
    click.echo(printable(f"captured: {wish.told()}"))
    return ExitCode.DONE


@click.command()
def remove() -> int:
    """Take the rules away: the captured go their own way again."""
    from aesp_proxy.intercept.capture import tables
    from aesp_proxy.intercept.capture.ruleset import FAMILY, NAME

    with _kernel():
        was_there = tables.remove(FAMILY, NAME)
    click.echo("removed" if was_there else "there were none")
    return ExitCode.DONE


@click.command()
@rule_flags
@spared_flag
def show(**given: Any) -> int:  # noqa: ANN401 - the flags of ``rule_flags``
    """Print the rules that `install` would put in, as `nft list` writes them."""
    click.echo(wish_for(**given).table().text(), nl=False)
    return ExitCode.DONE
