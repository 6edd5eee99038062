"""Stand in for a worker of the service: MODE --control-fd N --listen-fd N."""

import socket
import sys

from aesp_proxy.daemon.control import (
    Counts,
    FrameDecoder,
    Serving,
    counts_frame,
    failed_frame,
    ready_frame,
    serving_frame,
)

mode, control_fd = sys.argv[1], int(sys.argv[3])
control = socket.socket(fileno=control_fd)
decoder = FrameDecoder()


def frames():
    while data := control.recv(65536):
        yield from decoder.feed(data)


def serving(frame):
    control.sendall(serving_frame(Serving(serial=frame["serial"], name="a", hash="b")))


for frame in frames():
    match frame["type"]:
        case "config" if mode == "fail":
            control.sendall(failed_frame(exit_code=3, message="policy.yaml: wrong"))
            sys.exit(3)
        case "config":
            control.sendall(ready_frame(port=1, epoch=7))
            serving(frame)
        case "reload" if mode != "deaf":
            serving(frame)
        case "count" if mode != "stuck":
            control.sendall(counts_frame(Counts(connections=1, allowed=2, refused=3)))
        case "stop":
            sys.exit(0)
