"""Attack the installation from inside a real ``run``, with canaries outside."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import ssl
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from aesp_proxy import keys
from aesp_proxy.cli.doctor_target import (
    DENIED,
    Hosts,
    hosts_of,
    static_addresses,
    write_config,
    write_policy,
)
from aesp_proxy.daemon.config import Settings
from aesp_proxy.errors import ConfigError, InputError, UnavailableError
from aesp_proxy.launch.attack import agent
from aesp_proxy.launch.attack.canary import HERE, LOW_HOST, Canaries, held_connection
from aesp_proxy.launch.attack.catalogue import CATALOGUE, Attack
from aesp_proxy.launch.attack.judge import Outcome, Said, Sighting, Told, judge, seen_by
from aesp_proxy.launch.attack.plan import Plan
from aesp_proxy.launch.attack.victims import victims
from aesp_proxy.launch.isolation.layers import Layer, remedy
from aesp_proxy.launch.isolation.listeners import EXPLICIT_PORT
from aesp_proxy.launch.probe.isolation import try_isolation

_RUN_S_MAX: Final = 240
_VICTIMS: Final[tuple[str, ...]] = (
    "proc-environ",
    "signal",
    "ptrace",
    "stolen-descriptor",
    "other-network",
)
_ENDED: Final = frozenset({"signal", "ptrace"})
_NEEDS_DENIED: Final = frozenset({
    "fronting-host", "fronting-sni", "two-authorities", "no-sni", "look-alikes", "forbidden-host",
    "two-parsers", "user-information", "absolute-form", "relayed-connect", "socks",
    "dns-refused-name", "dns-refused-type", "metadata-name",
})  # fmt: skip
_ALPHABET: Final = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: what is attacked, with what, and the place of its files.

    ``skipped`` says of attacks why they are not made from here.
    """

    directory: Path
    settings: Settings
    hosts: Hosts
    attacks: tuple[Attack, ...]
    tokens: dict[str, str]
    own_network: bool
    skipped: Mapping[str, str] = field(default_factory=dict)


def attack_installation(settings: Settings, rows: frozenset[int]) -> list[Told]:
    """Make all attacks, or those of some rows; nothing of it leaves this machine.

    ConfigError where ``run`` would refuse to start, InputError for rows without attacks,
    UnavailableError when the attacker could not be run.
    """
    attacks = chosen(CATALOGUE, rows)
    own_network = _isolates(settings)
    with tempfile.TemporaryDirectory(prefix="aesp-doctor-") as place:
        play = Round(
            directory=Path(place),
            settings=settings,
            hosts=hosts_of(settings),
            attacks=attacks,
            tokens={each.id: token_for(each) for each in attacks},
            own_network=own_network,
        )
        return play_round(play, partial(_run, play), tls=origin(play))


def chosen(catalogue: tuple[Attack, ...], rows: frozenset[int]) -> tuple[Attack, ...]:
    """Return the attacks of some rows, all for none; InputError for rows without attacks."""
    attacks = tuple(each for each in catalogue if not rows or each.row in rows or each.passes)
    if missing := rows - {each.row for each in attacks}:
        raise InputError(
            f"no attack of row {', '.join(map(str, sorted(missing)))} can be made from here",
            remedy="docs/bypass-resistance.md says how the others are tested",
        )
    return attacks


def _isolates(settings: Settings) -> bool:
    report = try_isolation()
    if report.missing() and settings.isolation.mode != "degraded":
        raise ConfigError(
            "`run` would refuse to start here, so there is nothing to attack",
            remedy=remedy(report, is_root=os.geteuid() == 0),
        )
    return report.stands(Layer.NETWORK)


def token_for(attack: Attack) -> str:
    """Make what the canary of an attack is to see: a key of a code host, or a label."""
    if attack.is_secret:
        return "ghp_" + "".join(secrets.choice(_ALPHABET) for _ in range(36))
    return f"aesp{secrets.token_hex(8)}"


def play_round(
    play: Round,
    run: Callable[[Canaries, dict[str, int], socket.socket], dict[str, Said]],
    *,
    tls: ssl.SSLContext,
    inside: Callable[[], AbstractContextManager[object]] = nullcontext,
    others: Callable[[], list[Sighting]] = list,
) -> list[Told]:
    """Open the canaries, have the attacker ``run`` past them, and judge by what they saw.

    ``inside`` enters the network that the canaries are in; ``others`` gives what canaries
    elsewhere saw.
    """
    with ExitStack() as stack:
        with inside():
            canaries = stack.enter_context(Canaries(play.directory, tls, canary_name()))
            held = stack.enter_context(held_connection(canaries.tcp_ports[0]))
        proof = secrets.token_hex(16)
        marks = {each: f"{play.tokens[each]}-{proof}" for each in _VICTIMS if each in play.tokens}
        processes = stack.enter_context(victims(marks, held=held.fileno()))
        write_policy(play.settings, play.directory / "policy.json")
        _share_cache(play)
        pids = {each: process.pid for each, process in processes.items()}
        said = run(canaries, pids, held) if _tried(play) else {}
        canaries.settle()
        proofs = {
            "proc-environ": proof,
            "netlink": f" {canaries.hidden_port} ",
            "read-ca-key": _digest(play.directory / "state/ca/mitmproxy-ca.pem"),
        }
        gone = [each for each in _ENDED if each in processes and processes[each].poll() is not None]
        seen = [*canaries.sightings(), *others(), *_marks(play, gone)]
        return _judged(play, said, seen, proofs)


def canary_name() -> str:
    """Make a name for what has no path, that nobody knows."""
    return f"aesp-doctor-{secrets.token_hex(8)}"


def _share_cache(play: Round) -> None:
    """Bring the compiled rules along, where there are some: they take half a second to make."""
    cache, state = play.settings.rule_cache_dir, play.directory / "state"
    state.mkdir(mode=0o700)
    if cache.is_dir():
        shutil.copytree(cache, state / "cache")


def _marks(play: Round, gone: Iterable[str]) -> list[Sighting]:
    """Return what was seen without a socket: who ended, and what was written."""
    found = [
        Sighting(place="the process that it ended", data=play.tokens[each].encode())
        for each in gone
    ]
    policy = (play.directory / "policy.json").read_bytes()
    return [*found, Sighting(place="the policy file", data=policy)]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "there is no key"


def origin(play: Round) -> ssl.SSLContext:
    """Make the authority and the certificate of the canary that stands for all hosts."""
    now = datetime.now(UTC)
    certificate, key = keys.make_ca("AESP Proxy doctor", now=now, days=2)
    names = [each for each in (play.hosts.allowed, DENIED) if each]
    leaf, leaf_key = keys.issue_leaf(
        keys.KeyPair(cert_pem=certificate, key_pem=key),
        names,
        purpose=keys.Purpose.SERVER,
        now=now,
        days=2,
    )
    (play.directory / "roots.pem").write_bytes(certificate)
    combined = play.directory / "origin.pem"
    combined.write_bytes(leaf + leaf_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(combined)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _run(
    play: Round, canaries: Canaries, pids: dict[str, int], held: socket.socket
) -> dict[str, Said]:
    """Run the attacker as the agent of a real ``run``; return what it says of each attack."""
    config, plan = play.directory / "config.yaml", play.directory / "plan.json"
    port = EXPLICIT_PORT if play.own_network else _free_port()
    write_config(
        play.settings,
        config,
        {
            "state_dir": str(play.directory / "state"),
            "policy": str(play.directory / "policy.json"),
            "listen.host": HERE,
            "listen.port": port,
            "upstream.resolve": static_addresses(play.hosts, canaries),
            "upstream.ca_file": str(play.directory / "roots.pem"),
            "resolver.upstreams": f"{HERE}:{canaries.dns_port}",
        },
    )
    plan.write_text(json.dumps(plan_of(play, canaries, pids, held, port)._asdict()), "utf-8")
    program = "from aesp_proxy.cli import main; main()"
    words = ["run", "--config", str(config), "--quiet", "--"]
    attacker = [sys.executable, "-I", "-S", str(agent.__file__), str(plan)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AESP_")}
    try:
        ran = subprocess.run(
            [sys.executable, "-I", "-c", program, *words, *attacker],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            pass_fds=(held.fileno(),),
            timeout=_RUN_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"the attack did not end within {_RUN_S_MAX} s") from error
    return said_by(ran)


def said_by(ran: subprocess.CompletedProcess[str]) -> dict[str, Said]:
    """Read what the attacker says of each attack; UnavailableError when it says nothing."""
    found = {}
    for row in ran.stdout.splitlines():
        told = json.loads(row)
        found[told["id"]] = Said(state=told["state"], text=told["said"])
    if not found:
        last = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
        raise UnavailableError(f"the attacker was not started: {last}")
    return found


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HERE, 0))
        return int(sock.getsockname()[1])


def plan_of(
    play: Round, canaries: Canaries, pids: dict[str, int], held: socket.socket, port: int
) -> Plan:
    """Tell the attacker where canaries and victims are, and the proxy on ``port``."""
    return Plan(
        tokens={name: play.tokens[name] for name in _tried(play)},
        proxy=(HERE, port),
        own_network=play.own_network,
        tcp_ports=canaries.tcp_ports,
        tcp6_port=canaries.tcp6_port,
        udp_port=canaries.udp_port,
        low_host=LOW_HOST,
        low=canaries.low,
        unix_path=canaries.unix_path,
        abstract=canaries.abstract,
        vsock_port=canaries.vsock_port,
        victims=pids,
        held=held.fileno(),
        allowed=play.hosts.allowed,
        second=play.hosts.second,
        denied=DENIED,
        plain_port=canaries.plain_port,
        tls_port=canaries.tls_port,
        policy=str(play.directory / "policy.json"),
        ca_key=str(play.directory / "state/ca/mitmproxy-ca.pem"),
    )


def _why_not(play: Round, attack: Attack) -> str:
    """Say why an attack says nothing under this policy, or nothing."""
    if attack.id in play.skipped:
        return play.skipped[attack.id]
    if attack.is_proxied and not play.hosts.allowed:
        return "the policy allows no host on ports 80 and 443, so a refusal says nothing"
    if attack.id in _NEEDS_DENIED and not play.hosts.denied:
        return "the policy allows every host"
    return ""


def _tried(play: Round) -> list[str]:
    return [each.id for each in play.attacks if not _why_not(play, each)]


def _judged(
    play: Round, said: dict[str, Said], seen: list[Sighting], proofs: dict[str, str]
) -> list[Told]:
    told = []
    for attack in play.attacks:
        if why := _why_not(play, attack):
            told.append(Told(attack=attack, outcome=Outcome.NOT_TRIED, detail=why))
            continue
        place = seen_by(seen, play.tokens[attack.id])
        told.append(judge(attack, said.get(attack.id), place=place, proofs=proofs))
    if any(each.outcome is Outcome.PASSED for each in told):
        return told
    # Nothing passes at all: then that an attack does not is no merit of the policy.
    why = "what is allowed does not pass either"
    return [
        replace(each, outcome=Outcome.NOT_TRIED, detail=why)
        if each.attack.is_proxied and each.outcome is Outcome.STOPPED
        else each
        for each in told
    ]
