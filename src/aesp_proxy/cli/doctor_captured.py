"""Attack from the place of a captured user: a real daemon captures, in networks of their own.

The daemon has these settings and this policy and captures the one user; canaries are on
its machine and in a world beyond. Nothing of the machine's own network, rules or service
is touched, and nothing can leave: the world ends at its canaries.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from aesp_proxy.cli.doctor_attack import (
    Round,
    canary_name,
    chosen,
    origin,
    plan_of,
    play_round,
    said_by,
    token_for,
)
from aesp_proxy.cli.doctor_networks import DEVICE, FOUR, SIX, Networks, enter, inside
from aesp_proxy.cli.doctor_target import hosts_of, static_addresses, write_config
from aesp_proxy.daemon.capturing import captures, wish_of
from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.service.ask import ask_status
from aesp_proxy.daemon.service.run_dir import socket_in
from aesp_proxy.errors import ConfigError, UnavailableError
from aesp_proxy.intercept.capture.who import found
from aesp_proxy.launch.attack import captured_agent
from aesp_proxy.launch.attack.canary import HERE, LOW_TCP, Canaries, Place
from aesp_proxy.launch.attack.catalogue import CAPTURED, CATALOGUE, UNWALLED
from aesp_proxy.launch.attack.judge import Said, Sighting, Told

_PORT: Final = 3128
_START_S_MAX: Final = 60.0
_ATTACK_S_MAX: Final = 240
_END_S_MAX: Final = 20.0
_POLL_S: Final = 0.1
_NO_WALLS: Final = "a captured user has no walls, only packet rules: see docs/egress.md"
_OUTSIDE: Final = Place(
    four=FOUR, six=SIX, low=FOUR, low_tcp=(*LOW_TCP, 53), name="of the world outside"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """Where it is played: the networks, the user, and the canaries of the world."""

    networks: Networks
    user: pwd.struct_passwd
    world: Canaries


def attack_captured(settings: Settings, user: str, rows: frozenset[int]) -> list[Told]:
    """Make all attacks that a captured user can make, or those of some rows.

    ConfigError where that user is not captured by these settings or nobody may look,
    UnavailableError when daemon or attacker could not be run.
    """
    known = _captured(settings, user)
    every = sorted((*CATALOGUE, *CAPTURED), key=lambda each: each.row)
    attacks = chosen(tuple(every), rows)
    with tempfile.TemporaryDirectory(prefix="aesp-doctor-") as place, Networks() as networks:
        play = Round(
            directory=Path(place),
            settings=settings,
            hosts=hosts_of(settings),
            attacks=attacks,
            tokens={each.id: token_for(each) for each in attacks},
            own_network=True,
            skipped=dict.fromkeys(UNWALLED, _NO_WALLS),
        )
        tls = origin(play)
        with _world(play, networks, tls) as world:
            scene = _Scene(networks=networks, user=known, world=world)
            return play_round(
                play,
                partial(_run, play, scene),
                tls=tls,
                inside=partial(inside, networks.host),
                others=partial(_seen, world),
            )


def _seen(world: Canaries) -> list[Sighting]:
    world.settle()
    return world.sightings()


def _captured(settings: Settings, user: str) -> pwd.struct_passwd:
    """Return whom to be; ConfigError unless that is a captured user, and we are root."""
    if os.geteuid() != 0:
        raise ConfigError("becoming another user needs root", where="--user")
    try:
        known = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError as error:
        raise ConfigError("no such user", where=f"--user {user}") from error
    if known.pw_uid == 0:
        raise ConfigError("root is captured by nothing", where="--user")
    if not captures(settings):
        raise ConfigError(
            "these settings capture nobody", where="capture", remedy=f"capture: {{users: {user}}}"
        )
    selection = found(wish_of(settings).named, proxy_uid=0)
    groups = os.getgrouplist(known.pw_name, known.pw_gid)
    is_named = any(low <= known.pw_uid <= high for low, high in selection.uids)
    if not (is_named or set(groups) & set(selection.gids) or selection.cgroups):
        raise ConfigError(
            f"these settings do not capture {user}", where="capture",
            remedy="name the user, a group of its, or a cgroup",
        )  # fmt: skip
    return known


@contextmanager
def _world(play: Round, networks: Networks, tls: ssl.SSLContext) -> Iterator[Canaries]:
    place = play.directory / "world"
    place.mkdir()
    with inside(networks.world):
        canaries = Canaries(place, tls, canary_name(), _OUTSIDE).__enter__()
    try:
        yield canaries
    finally:
        canaries.__exit__()


def _run(
    play: Round, scene: _Scene, canaries: Canaries, pids: dict[str, int], held: socket.socket
) -> dict[str, Said]:
    """Have the daemon capture the user, and be that user; return what the attacker says."""
    plan = plan_of(play, canaries, pids, held, _PORT)._replace(
        outside4=FOUR,
        outside6=SIX,
        outside_tcp=scene.world.tcp_ports[0],
        outside_tcp6=scene.world.tcp6_port,
        outside_udp=scene.world.udp_port,
        outside_udp6=scene.world.udp6_port,
        device=DEVICE,
    )
    uid, gid = scene.user.pw_uid, scene.user.pw_gid
    words = [str(captured_agent.__file__), *map(str, (scene.networks.host, uid, gid))]
    with _daemon(play, scene, canaries):
        try:
            ran = subprocess.run(
                [sys.executable, "-I", "-S", *words],
                input=json.dumps(plan._asdict()),
                capture_output=True,
                text=True,
                env={"PATH": os.defpath},
                cwd="/",
                timeout=_ATTACK_S_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"the attack did not end within {_ATTACK_S_MAX} s") from error
    return said_by(ran)


@contextmanager
def _daemon(play: Round, scene: _Scene, canaries: Canaries) -> Iterator[None]:
    """Run a daemon on the host that captures the user, until the block ends."""
    run_dir, config = play.directory / "run", play.directory / "config.yaml"
    write_config(play.settings, config, _changes(play, scene, canaries))
    program = "from aesp_proxy.cli import main; main()"
    words = [sys.executable, "-I", "-c", program, "daemon", "--config", str(config)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AESP_", "NOTIFY_"))}
    with (play.directory / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            enter(scene.networks.host, words),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd="/",
        )
    try:
        _await(process, run_dir, play.directory / "daemon.log")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _changes(play: Round, scene: _Scene, canaries: Canaries) -> dict[str, object]:
    nobody = {
        f"{group}.{name}": ""
        for group in ("capture", "files.watch")
        for name in ("users", "groups", "cgroups")
    }
    return nobody | {
        "capture.users": str(scene.user.pw_uid),
        "capture.rules": "daemon",
        "daemon.run_dir": str(play.directory / "run"),
        "daemon.workers": 1,
        "state_dir": str(play.directory / "state"),
        "policy": str(play.directory / "policy.json"),
        "listen.host": HERE,
        "listen.port": _PORT,
        "upstream.resolve": static_addresses(play.hosts, canaries),
        "upstream.ca_file": str(play.directory / "roots.pem"),
        "resolver.upstreams": f"{HERE}:{canaries.dns_port}",
    }


def _await(process: subprocess.Popen[bytes], run_dir: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        if (status := ask_status(socket_in(run_dir))) and status.get("state") == "running":
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
    last = (log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]
    raise UnavailableError(f"the daemon did not capture: {last}")
