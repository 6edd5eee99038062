"""Squid with ssl-bump: the C++ proxy whose figures an inspecting proxy is held to.

It is taken from the path when it is installed with TLS, else fetched as Debian
packages and unpacked under ``.cache/``: nothing is installed, no service starts,
no privilege is needed. Where that does not work the variant says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.certificates import write_authority
from benchmarks.peers import AbsentError, Running, Site, await_answer, end_group, free_port, spawn

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bench" / "squid"
LIBRARIES = "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib"
FETCH_S_MAX = 120.0
CONFIGURATION = """\
http_port 127.0.0.1:{port} ssl-bump tls-cert={folder}/both.pem generate-host-certificates=on \
dynamic_cert_mem_cache_size=16MB
sslcrtd_program {certgen} -s {folder}/certificates -M 16MB
sslcrtd_children 2
acl begin at_step SslBump1
ssl_bump peek begin
ssl_bump bump all
http_upgrade_request_protocols OTHER allow all
tls_outgoing_options cafile={ca_file}
http_access allow localhost
http_access deny all
cache deny all
cache_mem 0
access_log none
cache_store_log none
cache_log {folder}/cache.log
pid_filename none
coredump_dir {folder}
mime_table {share}/mime.conf
icon_directory {share}/icons
error_directory {errors}
err_page_stylesheet none
unlinkd_program {unlinkd}
pinger_enable off
netdb_filename none
shutdown_lifetime 0 seconds
client_idle_pconn_timeout 10 minutes
max_filedescriptors 8192
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Squid:
    """Where a squid with TLS lies: ``root`` is ``/`` or the folder it was unpacked in."""

    root: Path

    @property
    def program(self) -> Path:
        """The daemon."""
        return self.root / "usr/sbin/squid"

    @property
    def certgen(self) -> Path:
        """The helper that mints certificates; only the TLS build has it."""
        return self.root / "usr/lib/squid/security_file_certgen"

    @property
    def environment(self) -> dict[str, str]:
        """What it needs to find its own libraries."""
        if self.root == Path("/"):
            return {}
        return {"LD_LIBRARY_PATH": ":".join(str(self.root / folder) for folder in LIBRARIES)}


def start(site: Site) -> Running:
    """Start it and wait for the first answer."""
    squid = _find() or _fetch(install=site.install)
    folder = site.folder / "squid"
    folder.mkdir()
    certificate, key = write_authority(folder, "squid benchmark CA")
    (folder / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    environment = squid.environment
    made = subprocess.run(
        [squid.certgen, "-c", "-s", folder / "certificates", "-M", "16MB"],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    if made.returncode:
        message = f"its certificate helper failed: {made.stderr.decode()[-500:]}"
        raise AbsentError(message)
    port = free_port()
    (folder / "squid.conf").write_text(_configuration(squid, site, folder, port))
    _hand_over(folder)
    log = folder / "squid.log"
    began = time.monotonic()
    process = spawn(
        [str(squid.program), "-N", "-f", str(folder / "squid.conf")], log=log, env=environment
    )
    target = await_answer(
        process,
        log=log,
        port=port,
        host="localhost",
        origin_port=site.port,
        trust=lambda: (certificate,),
    )
    took_ms = (time.monotonic() - began) * 1000
    return Running(
        name="squid",
        target=target,
        pid=process.pid,
        start_ms=took_ms,
        stop=lambda: end_group(process),
        without={"HTTP/2": "it does not offer it"},
    )


def _configuration(squid: Squid, site: Site, folder: Path, port: int) -> str:
    text = CONFIGURATION.format(
        port=port,
        folder=folder,
        certgen=squid.certgen,
        ca_file=site.ca_file,
        share=squid.root / "usr/share/squid",
        unlinkd=squid.root / "usr/lib/squid/unlinkd",
        errors=squid.root / "usr/share/squid/errors/en",
    )
    return text + ("cache_effective_user proxy\n" if os.geteuid() == 0 else "")


def _hand_over(folder: Path) -> None:
    """Started by root, squid becomes ``proxy`` and needs its folder and the way to it."""
    if os.geteuid() != 0:
        return
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "proxy")
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)


def _find() -> Squid | None:
    for root in (Path("/"), CACHE):
        squid = Squid(root=root)
        if squid.program.exists() and squid.certgen.exists():
            return squid
    return None


def _fetch(*, install: bool) -> Squid:
    """Unpack Debian's package and what it needs into the cache."""
    if not install:
        message = "it is not here and fetching was not allowed"
        raise AbsentError(message)
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        message = "it is not here, and neither are apt-get and dpkg-deb to fetch it with"
        raise AbsentError(message)
    CACHE.mkdir(parents=True, exist_ok=True)
    if not _download():
        if os.geteuid() == 0:
            _run(["apt-get", "-q", "update"])
        if not _download():
            message = "apt-get does not offer squid-openssl here"
            raise AbsentError(message)
    for package in CACHE.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(CACHE)])
    if squid := _find():
        return squid
    message = "the unpacked package has no squid with TLS in it"
    raise AbsentError(message)


def _download() -> bool:
    simulated = ["apt-get", "install", "-s", "-qq", "--no-install-recommends", "squid-openssl"]
    rows = [line.split() for line in _run(simulated).splitlines()]
    names = [row[1] for row in rows if row[0] == "Inst" and row[2].startswith("(")]
    return bool(names) and _run(["apt-get", "-q", "download", *names]) != ""


def _run(command: list[str]) -> str:
    """Return the output of a command, empty when it failed."""
    try:
        done = subprocess.run(
            command, cwd=CACHE, capture_output=True, text=True, check=False, timeout=FETCH_S_MAX
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or " ") if done.returncode == 0 else ""
