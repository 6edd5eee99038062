"""Stand in for the sealer: seals (leaves a mark) when its standard input closes.

argv: MODE --state DIR ...
"""

import os
import sys
from pathlib import Path

mode, state = sys.argv[1], Path(sys.argv[3])
starts = state / "sealer.starts"
with starts.open("a") as file:
    file.write("x")
(state / "sealer.pid").write_text(str(os.getpid()))
if mode == "die" or (mode == "die-once" and starts.read_text() == "x"):
    sys.exit(9)
os.write(0, b"\x01")
sys.stdin.buffer.read()
(state / "sealed").write_text("")
