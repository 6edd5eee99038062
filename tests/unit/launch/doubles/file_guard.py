"""Stand in for the file guard: speaks the control protocol and then does what it is told to.

argv: MODE STATE --backend NAME --control-fd N
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

from aesp_proxy.daemon.control import (
    Counts,
    FrameDecoder,
    counts_frame,
    encode_frame,
    failed_frame,
    ready_frame,
)

mode, marks, control_fd = sys.argv[1], Path(sys.argv[2]), int(sys.argv[6])
control = socket.socket(fileno=control_fd)
decoder = FrameDecoder()


def frames():
    while data := control.recv(65536):
        yield from decoder.feed(data)


incoming = frames()
assert next(incoming)["type"] == "config"
match mode:
    case "fail":
        control.sendall(failed_frame(exit_code=3, message="no such file system"))
        sys.exit(3)
    case "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    case "nonsense":
        control.sendall(encode_frame({"type": "stop"}))
        next(incoming, None)
        sys.exit(0)
(marks / "guard.pid").write_text(str(os.getpid()))
control.sendall(ready_frame(port=1, epoch=9))
if mode in ("die", "stuck", "leave"):
    # Once the command runs, it makes this file.
    while not (marks / "child-runs").exists():
        time.sleep(0.01)
if mode == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "leave":
    sys.exit(0)
if mode == "stuck":
    time.sleep(60)
for frame in incoming:
    if frame["type"] == "stop":
        (marks / "guard.stopped").write_text("")
        sys.exit(0)
    if frame["type"] == "count":
        control.sendall(counts_frame(Counts(connections=0, allowed=0, refused=0)))
