"""What the launcher wants of its helper, in words on the helper's command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aesp_proxy.launch.isolation.layers import Layer


class Wish(NamedTuple):
    """The layers to try, and the sockets to make in a network namespace that stands.

    ``only_ports``: those that TCP may be connected to, where there is none; empty for all.
    ``why``: a socket at which the command asks why it was refused.
    ``view``: a file of ``view``'s, which says what of the file system looks otherwise.
    """

    layers: tuple[Layer, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    transparent: bool = False
    dns: bool = False
    only_ports: tuple[int, ...] = ()
    view: str = ""
    why: bool = False

    def words(self) -> list[str]:
        """Return the wish as command-line words."""
        sockets = [name for name in ("transparent", "dns", "why") if getattr(self, name)]
        layers = ",".join(self.layers)
        words = [
            layers,
            self.host,
            str(self.port),
            ",".join(sockets),
            ",".join(map(str, self.only_ports)),
        ]
        return [*words, self.view]


WORDS = 6


def read_wish(words: Sequence[str]) -> Wish:
    """Read what ``Wish.words`` made; ValueError for anything else."""
    layers, host, port, sockets, only_ports, view = words
    return Wish(
        layers=tuple(Layer(name) for name in layers.split(",") if name),
        host=host,
        port=int(port),
        transparent="transparent" in sockets.split(","),
        dns="dns" in sockets.split(","),
        only_ports=tuple(int(port) for port in only_ports.split(",") if port),
        view=view,
        why="why" in sockets.split(","),
    )
