"""Stand in for the worker: speaks the control protocol and then does what it is told to.

argv: MODE --control-fd N --listen-fd N
"""

import os
import signal
import socket
import sys
import time

from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.control import (
    FrameDecoder,
    checked_frame,
    encode_frame,
    failed_frame,
    ready_frame,
)

mode, control_fd, listen_fd = sys.argv[1], int(sys.argv[3]), int(sys.argv[5])
control = socket.socket(fileno=control_fd)
listener = socket.socket(fileno=listen_fd)
decoder = FrameDecoder()


def frames():
    while data := control.recv(65536):
        yield from decoder.feed(data)


incoming = frames()
config = next(incoming)
settings = Settings.from_worker(config["settings"])
marks = settings.state_dir
match mode:
    case "fail":
        control.sendall(failed_frame(exit_code=3, message="p.yaml:1:1: no such guard (mend it)"))
        sys.exit(3)
    case "mute":
        next(incoming, None)
        sys.exit(0)
    case "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    case "nonsense":
        control.sendall(encode_frame({"type": "stop"}))
        next(incoming, None)
        sys.exit(0)
port = listener.getsockname()[1]
(marks / "worker.pid").write_text(str(os.getpid()))
if mode in ("slow", "late"):
    control.sendall(checked_frame())
    while mode == "late" or not (marks / "child-runs").exists():
        time.sleep(0.01)
control.sendall(ready_frame(port=port, epoch=7))
if mode == "die":
    # Once the command runs, it makes this file.
    while not (marks / "child-runs").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
for frame in incoming:
    if frame["type"] == "stop":
        (marks / "worker.stopped").write_text(str(frame["grace_s"]))
        if mode == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        sys.exit(0)
(marks / "worker.eof").write_text("")
