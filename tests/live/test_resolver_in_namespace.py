"""The C library's own resolver, in a network where every address leads to ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ENTER = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
PLUGINS = Path(__file__).parent.parent / "plugins"
INSIDE = """
import os, socket, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
directory, server = Path(sys.argv[2]), sys.argv[3]
for words in ("link set lo up", "route add local default dev lo",
              "-6 route add local default dev lo"):
    subprocess.run(["ip", *words.split()], check=True)
conf = directory / "resolv.conf"
conf.write_text(f"nameserver {server}\\n")
subprocess.run(["mount", "--bind", str(conf), "/etc/resolv.conf"], check=True)
from dns_lab import DnsLab, PUBLIC
lab = DnsLab(directory)
lab.upstream.say("allowed.test", "A", [f"allowed.test. 60 IN A {PUBLIC}"])
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((address, 53))
    lab.call(lambda sock=sock: lab.listeners.serve_udp(sock))
print(socket.getaddrinfo("allowed.test", 443, type=socket.SOCK_STREAM)[0][4][0])
try:
    print(socket.getaddrinfo("evil.example", 443))
except socket.gaierror as error:
    print(error.errno == socket.EAI_NONAME)
print(sorted(lab.upstream.names()))
lab.stop()
"""


def entered() -> str:
    """Why no namespace can be made here; empty where one can."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return "needs unshare and ip"
    tried = subprocess.run([*ENTER, "true"], capture_output=True, text=True, check=False)
    return f"no user namespace here: {tried.stderr.strip()}" if tried.returncode else ""


@pytest.mark.parametrize("server", ["8.8.8.8", "127.0.0.53", "2001:4860:4860::8888"])
def test_getaddrinfo_gets_allowed_names_and_fails_at_once_for_others(tmp_path, server):
    why = entered()
    if why:
        pytest.skip(why)
    ran = subprocess.run(
        [*ENTER, sys.executable, "-c", INSIDE, str(PLUGINS), str(tmp_path), server],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["93.184.215.14", "True", "['allowed.test']"]
