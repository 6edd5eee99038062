"""What a hostile agent tries under ``run``, and what an honest one does: answers as JSON.

Run as ``isolation_agent.py ASKED TOLD``: ASKED holds ports, paths and process ids of what
waits outside; TOLD gets, for every attempt, the name of the error it met or what it saw.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aesp_proxy.intercept.netlink import ask
from aesp_proxy.launch.isolation import netlink, seccomp

LIBC = ctypes.CDLL(None, use_errno=True)
FAR4, FAR6 = "198.51.100.7", "2001:db8::7"
PORTS = (21, 22, 81, 443, 6667, 65000)
_COLUMN = seccomp.ARCHITECTURES[os.uname().machine].column
_PTRACE_ATTACH, _PTRACE_SEIZE = 16, 0x4206
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    # Kept under another name for the honest.
    os.environ["KEPT_" + _name] = os.environ.pop(_name)


def call(name: str, *arguments: int) -> str:
    """Make a system call of the filter's tables; return its error."""
    tables = seccomp.REFUSED | seccomp.ABSENT | seccomp.REFUSED_AMONG_OTHERS
    number = tables[name][_COLUMN]
    if number is None:
        return "none"
    return direct(number, *arguments)


def direct(number: int, *arguments: int) -> str:
    result = LIBC.syscall(number, *(ctypes.c_long(each) for each in (*arguments, *[0] * 6)[:6]))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "done"


def opened(family: int, kind: int, protocol: int = 0) -> str:
    with socket.socket(family, kind, protocol):
        return "opened"


def connected(family: int, address: Any) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect(address)
        return f"connected: {sock.recv(100)!r}"


def asked_http(family: int, address: Any) -> str:
    """Speak HTTP to an address; return the status line and who answered."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(address)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: refused.example\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := sock.recv(65536):
            answer += data
    head = answer.partition(b"\r\n\r\n")[0].decode().lower()
    return f"{head.split()[1]} {'aesp-reason' in head}"


def answered_udp(family: int, address: Any) -> str:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect(address)
        sock.send(b"hello?")
        return f"answered: {sock.recv(100)!r}"


def pair_of(kind: int) -> str:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        return "paired"


def pair_led_elsewhere(path: str) -> str:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        ours.connect(path)
        return "connected"


def taken_route() -> str:
    body = netlink.route_everything(socket.AF_INET, 1)
    ask(socket.NETLINK_ROUTE, body, acknowledged=1)
    return "changed"


def injected() -> str:
    fcntl.ioctl(0, 0x5412, array.array("B", b"x"))
    return "typed"


def namespaces_by_clone() -> str:
    number = seccomp._CLONE[_COLUMN]
    return direct(number or 0, 0x10000000 | signal.SIGCHLD)


def attached(pid: int) -> str:
    LIBC.ptrace.restype = ctypes.c_long
    if LIBC.ptrace(_PTRACE_SEIZE, pid, None, None) < 0:
        return errno.errorcode[ctypes.get_errno()]
    return "attached"


def vm_read(pid: int) -> str:
    number = seccomp.REFUSED_AMONG_OTHERS["process_vm_readv"][_COLUMN]
    data = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(data), 8)
    at = ctypes.addressof(vector)
    return direct(number or 0, pid, at, 1, at, 1, 0)


def lines_of_processes() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip())
    return found


def listed(path: str) -> list[str]:
    return [each.name for each in Path(path).iterdir()]


def status_of_self() -> dict[str, str]:
    rows = (row.partition(":") for row in Path("/proc/self/status").read_text().splitlines())
    return {key: value.strip() for key, _, value in rows}


def ran(*words: str, **more: Any) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
        **more,
    )  # fmt: skip
    return f"{done.returncode} {done.stdout.strip()} {done.stderr.strip()[-300:]}".strip()


def square(number: int) -> int:
    return number * number


def pooled() -> list[int]:
    results: list[int] = []
    with multiprocessing.get_context("fork").Pool(2) as pool:
        thread = threading.Thread(target=lambda: results.extend(pool.map(square, [1, 2, 3])))
        thread.start()
        thread.join()
    return results


def served_to_itself(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, port), family=family)
    with server, socket.create_connection((host, port), 5) as client:
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"mine")
            return client.recv(10).decode()


def versioned() -> str:
    folder = Path("repository")
    folder.mkdir()
    own = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "HOME": str(folder.absolute())}
    ran("git", "init", "-q", cwd=folder, env=own)
    (folder / "file").write_text("x")
    ran("git", "add", "file", cwd=folder, env=own)
    name = ("-c", "user.name=n", "-c", "user.email=e@example.com")
    ran("git", *name, "commit", "-qm", "m", cwd=folder, env=own)
    return ran("git", "log", "--format=%s", cwd=folder, env=own)


def packed() -> str:
    Path("packed").write_text("content")
    ran("tar", "czf", "packed.tgz", "packed")
    Path("packed").unlink()
    ran("tar", "xzf", "packed.tgz")
    return Path("packed").read_text()


def made() -> str:
    Path("Makefile").write_text("a: b\n\t@cat b >a; cat a\nb:\n\t@echo built >b\n")
    return ran("make", "-s", "-j2")


def by_proxy(name: str, *words: str) -> str:
    kept = {n.removeprefix("KEPT_"): v for n, v in os.environ.items() if n.startswith("KEPT_")}
    if shutil.which(name) is None:
        return "absent"
    return ran(name, *words, env={**os.environ, **kept})


NODE = (
    "const os=require('os'),cp=require('child_process');"
    "console.log(Object.keys(os.networkInterfaces()).join(),"
    "cp.execSync('echo child').toString().trim());"
    "new (require('worker_threads').Worker)('', {eval: true}).on('exit', c => console.log(c))"
)


def attempts(asked: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    inet, inet6 = socket.AF_INET, socket.AF_INET6
    outside, path = asked["process"], asked["path"]
    tried: dict[str, Callable[[], Any]] = {
        "host loopback": lambda: connected(inet, ("127.0.0.1", asked["tcp"])),
        "host loopback v6": lambda: connected(inet6, ("::1", asked["tcp6"])),
        "host address": lambda: connected(inet, (asked["address"], asked["tcp"])),
        "host datagrams": lambda: answered_udp(inet, ("127.0.0.1", asked["udp"])),
        "quic": lambda: answered_udp(inet, (FAR4, 443)),
        "quic v6": lambda: answered_udp(inet6, (FAR6, 443)),
        "raw": lambda: opened(inet, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "ping": lambda: opened(inet, datagram, socket.IPPROTO_ICMP),
        "raw v6": lambda: opened(inet6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
        "packet": lambda: opened(17, socket.SOCK_RAW, 0x300),
        "old packet": lambda: opened(inet, 10, 0x300),
        "vsock": lambda: opened(40, stream),
        "crypto": lambda: opened(38, socket.SOCK_SEQPACKET),
        "multipath": lambda: opened(inet, stream, 262),
        "sctp": lambda: opened(inet, stream, 132),
        "netlink diag": lambda: opened(socket.AF_NETLINK, socket.SOCK_RAW, 4),
        "netlink audit": lambda: opened(socket.AF_NETLINK, socket.SOCK_RAW, 9),
        "netfilter": lambda: opened(socket.AF_NETLINK, socket.SOCK_RAW, 12),
        "routes": taken_route,
        "docker.sock": lambda: connected(socket.AF_UNIX, path),
        "abstract": lambda: connected(socket.AF_UNIX, asked["abstract"]),
        "unix datagrams": lambda: opened(socket.AF_UNIX, datagram),
        "unix packets": lambda: opened(socket.AF_UNIX, socket.SOCK_SEQPACKET),
        "pair": lambda: pair_of(stream),
        "pair of packets": lambda: pair_of(socket.SOCK_SEQPACKET),
        "pair of datagrams": lambda: pair_of(datagram),
        "pair elsewhere": lambda: pair_led_elsewhere(path),
        "ssh-agent": lambda: by_proxy("ssh-add", "-l"),
        "signal outside": lambda: os.kill(outside, 0),
        "directory of outside": lambda: list(Path(f"/proc/{outside}").iterdir()),
        "trace outside": lambda: attached(outside),
        "read outside": lambda: vm_read(outside),
        "trace init": lambda: attached(1),
        "read init": lambda: vm_read(1),
        "memory of init": lambda: Path("/proc/1/mem").read_bytes(),
        "environment of init": lambda: Path("/proc/1/environ").read_bytes(),
        "descriptors of init": lambda: str(Path("/proc/1/fd/0").readlink()),
        "processes": lines_of_processes,
        "status": status_of_self,
        "descriptors": lambda: sorted(int(each.name) for each in Path("/proc/self/fd").iterdir())[
            :-1
        ],
        "typed": injected,
        "clone": namespaces_by_clone,
        "x32": lambda: direct(0x40000000 | 39),
        "set-user-id": lambda: ran(asked["setuid"], "-u"),
        "user": os.getuid,
        "kernel setting": lambda: Path("/proc/sys/kernel/core_pattern").write_text("|/bin/sh"),
        "resolver": lambda: Path("/etc/resolv.conf").read_text().splitlines()[0],
        "resolver written": lambda: Path("/etc/resolv.conf").write_text("nameserver 1.1.1.1\n"),
        "git": versioned,
        "tar": packed,
        "make": made,
        "multiprocessing": pooled,
        "own server": lambda: served_to_itself("127.0.0.1", 8080),
        "own server v6": lambda: served_to_itself("::1", 3000),
        "interfaces": lambda: [name for _, name in socket.if_nameindex()],
        "localhost": lambda: socket.gethostbyname("localhost"),
        "curl": lambda: by_proxy("curl", "-sS", "http://origin.example/"),
        "curl unasked": lambda: ran("curl", "-sS", "-m", "20", "http://origin.example/"),
        "name refused": lambda: socket.gethostbyname("refused.example"),
        "node": lambda: by_proxy("node", "-e", NODE),
        "npm": lambda: by_proxy("npm", "--version"),
    }
    for name in (*seccomp.REFUSED, *seccomp.ABSENT):
        tried[f"call {name}"] = lambda name=name: call(name)
    for port in PORTS:
        tried[f"port {port}"] = lambda port=port: asked_http(inet, (FAR4, port))
        tried[f"port {port} v6"] = lambda port=port: asked_http(inet6, (FAR6, port))
    return tried


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text())
    told = {}
    for name, attempt in attempts(asked).items():
        try:
            told[name] = attempt()
        except OSError as error:
            told[name] = errno.errorcode.get(error.errno or 0, repr(error))
        except Exception as error:  # noqa: BLE001 - told as it is
            told[name] = repr(error)
    Path(sys.argv[2]).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
