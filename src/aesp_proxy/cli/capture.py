"""``aesp-proxy capture``: the packet rules that bring a host's, or a pod's, connections here.

``aesp-proxy daemon`` keeps them by itself where it may. These commands are for whoever
keeps them instead: a service of its own, or the init container of a pod.
"""

from __future__ import annotations

from typing import Final

import click

from aesp_proxy.cli.lazy import LazyGroup, Table

COMMANDS: Final[Table] = {
    "check": ("aesp_proxy.cli.capture_rules:check", "Say whether the rules stand as they should."),
    "install": ("aesp_proxy.cli.capture_rules:install", "Put the rules in, in place of old ones."),
    "keep": ("aesp_proxy.cli.capture_keep:keep", "Keep the rules until told to stop."),
    "remove": ("aesp_proxy.cli.capture_rules:remove", "Take the rules away."),
    "show": ("aesp_proxy.cli.capture_rules:show", "Print the rules as nft does."),
}


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
def capture() -> None:
    """Bring what users, groups or cgroups of this host send to the proxy.

    All but `show` need CAP_NET_ADMIN in the network namespace that is captured.
    """
