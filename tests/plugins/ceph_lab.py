"""Ceph's object gateway as Debian installs it: a monitor, one OSD in memory, S3 on loopback.

It needs no root, no manager and no disk, and is there in about two seconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aesp_proxy import keys
from aesp_proxy.aggregator.store.s3_settings import S3Settings

PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool")
START_S_MAX = 60.0
ACCESS_KEY, SECRET_KEY = "LABACCESSKEY", "lab-secret-9f1c"
OTHER_KEY, OTHER_SECRET = "OTHERACCESSKEY", "other-secret-77aa"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

_CONFIGURATION = """\
[global]
fsid = {fsid}
keyring = {root}/keyring
mon host = v2:127.0.0.1:{mon_port}/0
mon initial members = a
mon data = {root}/mon
mon data avail crit = 0
mon data avail warn = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon osd min up ratio = 0
paxos propose interval = 0.02
paxos min wait = 0.01
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
osd data = {root}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
osd class load list = *
osd class default list = *
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
run dir = {root}
admin socket =
pid file = {root}/$name.pid
log file = {root}/$name.log
[client.rgw.a]
rgw data = {root}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port} ssl_endpoint=127.0.0.1:{tls_port} \
ssl_certificate={root}/tls.pem ssl_private_key={root}/tls.key
rgw enable usage log = false
"""


def absent() -> str:
    """Say what is missing to run it; empty when all is there."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(missing)} not installed (radosgw ceph-mon ceph-osd)" if missing else ""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


class Ceph:
    """A running cluster; ``port`` speaks HTTP, ``tls_port`` HTTPS."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ca_file = root / "ca.pem"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        mon_port, self.port, self.tls_port = free_ports(3)
        root.mkdir()
        (root / "mon").mkdir()
        (root / "osd").mkdir()
        (root / "ceph.conf").write_text(
            _CONFIGURATION.format(
                fsid=uuid.uuid4(),
                root=root,
                mon_port=mon_port,
                port=self.port,
                tls_port=self.tls_port,
            )
        )
        self._mon_port = mon_port
        self.began_s = 0.0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, bucket: str, **changes: Any) -> S3Settings:
        return S3Settings(**{"endpoint": self.endpoint, "bucket": bucket} | changes)

    def start(self) -> None:
        begun_s = time.monotonic()
        self._make_certificate()
        self._make_keys()
        osd_id = str(uuid.uuid4())
        self._run(
            "monmaptool",
            "--create",
            "--addv",
            "a",
            f"[v2:127.0.0.1:{self._mon_port}]",
            self.root / "monmap",
        )
        self._ceph(
            "ceph-mon",
            "-i",
            "a",
            "--mkfs",
            "--monmap",
            self.root / "monmap",
            "--keyring",
            self.root / "keyring",
        )
        self._spawn("mon", "ceph-mon", "-i", "a", "-f")
        self._ceph("ceph", "osd", "new", osd_id)
        self._ceph("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_id)
        self._spawn("osd", "ceph-osd", "-i", "0", "-f")
        self.start_gateway()
        self._make_user("lab", ACCESS_KEY, SECRET_KEY)
        self._make_user("other", OTHER_KEY, OTHER_SECRET)
        self.began_s = time.monotonic() - begun_s

    def stop(self) -> None:
        for process in reversed(self._processes.values()):
            process.kill()
            process.wait()

    def start_gateway(self) -> None:
        self._spawn("gateway", "radosgw", "-n", "client.rgw.a", "-f")
        end_s = time.monotonic() + START_S_MAX
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert self._processes["gateway"].poll() is None, self.logged()
            assert time.monotonic() < end_s, self.logged()
            select.select([], [], [], 0.02)

    def kill_gateway(self) -> None:
        """End it as ``kill -9`` does."""
        self._processes["gateway"].kill()
        self._processes["gateway"].wait()

    def pause_gateway(self, *, on: bool) -> None:
        """Let it take connections and answer nothing, or let it go on."""
        os.kill(self._processes["gateway"].pid, 19 if on else 18)

    def make_bucket(self, name: str, *, lock: bool = False) -> None:
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)

    def client(self) -> Any:
        from aesp_proxy.aggregator.store.s3_client import make_client

        return make_client(self.settings("any"), ENVIRONMENT)

    def logged(self) -> str:
        return "\n".join(
            path.read_text("utf-8", "replace")[-2000:] for path in self.root.glob("*.out")
        )

    def _make_certificate(self) -> None:
        now = datetime.now(UTC)
        cert_pem, key_pem = keys.make_ca("lab", now=now)
        self.ca_file.write_bytes(cert_pem)
        ca_key = self.root / "ca.key"
        keys.write_atomic(ca_key, key_pem)
        pair = keys.load_pair(self.ca_file, ca_key, now=now, is_ca=True)
        leaf, leaf_key = keys.issue_leaf(
            pair, ("127.0.0.1",), purpose=keys.Purpose.SERVER, now=now, days=1
        )
        (self.root / "tls.pem").write_bytes(leaf)
        keys.write_atomic(self.root / "tls.key", leaf_key)

    def _make_keys(self) -> None:
        everything = [part for of in ("mon", "osd", "mgr") for part in ("--cap", of, "allow *")]
        ring = self.root / "keyring"
        self._run(
            "ceph-authtool",
            ring,
            "--create-keyring",
            "--gen-key",
            "-n",
            "mon.",
            "--cap",
            "mon",
            "allow *",
        )
        for name in ("client.admin", "client.rgw.a", "osd.0"):
            self._run("ceph-authtool", ring, "--gen-key", "-n", name, *everything)

    def _make_user(self, name: str, access_key: str, secret_key: str) -> None:
        self._ceph(
            "radosgw-admin",
            "user",
            "create",
            f"--uid={name}",
            f"--display-name={name}",
            f"--access-key={access_key}",
            f"--secret-key={secret_key}",
        )

    def _ceph(self, program: str, *arguments: object) -> None:
        self._run(program, "-c", self.root / "ceph.conf", *arguments)

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [program, *map(str, arguments)], capture_output=True, timeout=START_S_MAX, check=False
        )
        assert done.returncode == 0, f"{program}: {done.stderr.decode(errors='replace')}"

    def _spawn(self, name: str, program: str, *arguments: str) -> None:
        with (self.root / f"{name}.out").open("ab") as out:
            # It ends with us, however we end.
            self._processes[name] = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    program,
                    "-c",
                    self.root / "ceph.conf",
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )


@contextmanager
def running(folder: Path) -> Iterator[Ceph]:
    """Run a cluster in ``folder``; skip the test where Debian's packages are not."""
    missing = absent()
    if missing:
        pytest.skip(missing)
    ceph = Ceph(folder / "ceph")
    try:
        ceph.start()
        yield ceph
    finally:
        ceph.stop()
