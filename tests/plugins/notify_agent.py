"""Hand out a listener and become a program whose calls are held: ``notify_agent.py FD PROGRAM``.

As the init of ``run`` does it, without the other walls: they are tried elsewhere. With
``walls`` before PROGRAM the other filter is put in force, too. With ``-1`` for FD nothing
is held, and only capabilities are given up.
"""

from __future__ import annotations

import os
import socket
import sys

from aesp_proxy.launch.isolation import capabilities, holding, seccomp


def main() -> None:
    words = sys.argv[2:]
    capabilities.give_up_all()
    if sys.argv[1] == "-1":
        os.execv(words[0], words)
    link = socket.socket(fileno=int(sys.argv[1]))
    if words[0] == "walls":
        words = words[1:]
        seccomp.enforce(own_network=False, own_processes=False)
    listener = holding.hold()
    socket.send_fds(link, [b"listener"], [listener])
    os.close(listener)
    link.recv(1)
    link.close()
    os.execv(words[0], words)


if __name__ == "__main__":
    main()
