"""What a decision costs: hosts by index, beside the ways one would write it by hand.

Ours is the whole ``decide``: every guard asked, the answer with reason, line and policy.
The peers answer less, only "allow, block or neither" for a host, over the same lists:
a loop of ``fnmatch``, a loop of RE2 programs, and one alternation of ``re``. The time is
of one call, in one process, the variants interleaved.
"""

from __future__ import annotations

import fnmatch
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import re2

from aesp_proxy.daemon.pack_files import read_packs
from aesp_proxy.decide.engine import decide
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.snapshot import Snapshot, build_snapshot
from aesp_proxy.model.event import EgressRequest, FileAccess, FileOperation
from aesp_proxy.model.host import parse_host
from aesp_proxy.model.principal import Principal
from benchmarks.harness import (
    Budget,
    Figures,
    Options,
    Result,
    options,
    quantile,
    ratio,
    rounds_of,
    show,
)

SIZES = (20, 200, 2_000)
_WHO = Principal(principal_id="p", agent_id="a", agent_type="t", session_id="s")
_HEADERS = (
    (b"host", b"api.example.com"),
    (b"user-agent", b"agent/1.0 (linux; x86_64)"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"content-type", b"application/json"),
    (b"content-length", b"1834"),
    (b"x-request-id", b"7c1f3a52-6f0e-4a36-9a3e-0b7c1c3b9d10"),
    (b"connection", b"keep-alive"),
)


@dataclass(frozen=True, slots=True)
class Lists:
    """Half exact names, half wildcards; the same number to allow and to block."""

    allow: tuple[str, ...]
    block: tuple[str, ...]
    asked: tuple[str, ...]


def lists_of(size: int) -> Lists:
    """Make lists of ``size`` entries each, and hosts to ask for: hits, sub-domains, misses."""
    half = size // 2
    allow = [f"api{n}.allowed.example" for n in range(half)]
    block = [f"bad{n}.blocked.example" for n in range(half)]
    allow += [f"*.team{n}.example" for n in range(half)]
    block += [f"*.drop{n}.example" for n in range(half)]
    step = max(1, half // 10)
    asked = []
    for n in range(0, half, step):
        asked += [
            f"api{n}.allowed.example",
            f"bad{n}.blocked.example",
            f"a.b.team{n}.example",
            f"x.drop{n}.example",
            f"nobody{n}.elsewhere.example",
        ]
    return Lists(tuple(allow), tuple(block), tuple(asked))


def policy_text(lists: Lists, *, scan: bool) -> str:
    """Return a policy with these lists."""
    entries = {name: "".join(f'      - "{text}"\n' for text in getattr(lists, name))
               for name in ("allow", "block")}  # fmt: skip
    return (
        'version: "1.2.0"\nname: bench\nguards:\n'
        f"  secret_leak: {{enabled: {str(scan).lower()}}}\n"
        '  forbidden_path: {exceptions: ["**/.env.example"]}\n'
        f"  egress_allowlist:\n    allow:\n{entries['allow']}    block:\n{entries['block']}"
    )


def snapshot_of(lists: Lists, *, scan: bool) -> Snapshot:
    """Build a snapshot, with the real rule packs where the head is to be scanned."""
    rules = read_packs() if scan else ()
    policy = load_policy(policy_text(lists, scan=scan), "bench.yaml")
    return build_snapshot(policy, rules, fingerprint_key=b"k" * 32, serial=1)


def request(host: str) -> EgressRequest:
    """Make a request as the interceptor would."""
    return EgressRequest(
        event_id="e",
        time_ns=1,
        principal=_WHO,
        scheme="https",
        method="POST",
        host=parse_host(host),
        port=443,
        target="/v1/messages?beta=true",
        path="/v1/messages",
        query="beta=true",
        headers=_HEADERS,
        http_version="1.1",
    )


def by_fnmatch(lists: Lists) -> Callable[[str], str]:
    """Loop over the patterns with ``fnmatch.fnmatchcase`` (translated once, cached by it)."""

    def answer(host: str) -> str:
        if any(fnmatch.fnmatchcase(host, pattern) for pattern in lists.block):
            return "block"
        return "allow" if any(fnmatch.fnmatchcase(host, p) for p in lists.allow) else ""

    return answer


def by_re2_loop(lists: Lists) -> Callable[[str], str]:
    """Loop over one RE2 program a pattern."""
    allow, block = ([re2.compile(_regex(p)) for p in side] for side in (lists.allow, lists.block))

    def answer(host: str) -> str:
        if any(program.fullmatch(host) for program in block):
            return "block"
        return "allow" if any(program.fullmatch(host) for program in allow) else ""

    return answer


def by_re_alternation(lists: Lists) -> Callable[[str], str]:
    """Ask one alternation of Python's ``re`` a list."""
    allow, block = (re.compile("|".join(map(_regex, side))) for side in (lists.allow, lists.block))

    def answer(host: str) -> str:
        if block.fullmatch(host):
            return "block"
        return "allow" if allow.fullmatch(host) else ""

    return answer


def _regex(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*\.", r"(?:[^.]+\.)+")


def timed[T](call: Callable[[T], object], items: Sequence[T], seconds: float) -> Figures:
    """Call over and over for a while; microseconds of one call, p50 and p99."""
    clock = time.perf_counter_ns
    taken: list[int] = []
    end = clock() + int(seconds * 1e9)
    while clock() < end:
        for item in items:
            start = clock()
            call(item)
            taken.append(clock() - start)
    return {"p50_us": quantile(taken, 0.5) / 1e3, "p99_us": quantile(taken, 0.99) / 1e3}


def variants_of(size: int, seconds: float) -> dict[str, Callable[[], Figures]]:
    """Return ours and the peers for one size; they must agree before they are timed."""
    lists = lists_of(size)
    snapshot = snapshot_of(lists, scan=False)
    events = [request(host) for host in lists.asked]
    peers = {
        "fnmatch_loop": by_fnmatch(lists),
        "re2_loop": by_re2_loop(lists),
        "re_alternation": by_re_alternation(lists),
    }
    words = {"allowed": "allow", "host_blocked": "block", "host_not_allowed": ""}
    for event in events:
        expected = words[decide(event, snapshot).reason.value]
        if any(peer(event.host.name) != expected for peer in peers.values()):
            message = f"the peers disagree about {event.host.name}"
            raise RuntimeError(message)
    variants: dict[str, Callable[[], Figures]] = {
        "ours": lambda: timed(lambda event: decide(event, snapshot), events, seconds)
    }
    for name, peer in peers.items():
        variants[name] = partial(timed, peer, lists.asked, seconds)
    return variants


def single_figures(seconds: float) -> Figures:
    """Measure the parts that have no peer here: scan, path, parser, load."""
    lists = lists_of(20)
    scanning = snapshot_of(lists, scan=True)
    hosts = [f"h{n}.sub.example.com" for n in range(50)]
    file = FileAccess(
        event_id="e",
        time_ns=1,
        principal=_WHO,
        operation=FileOperation.OPEN,
        path="/home/user/project/src/package/module.py",
        resolved="/home/user/project/src/package/module.py",
    )
    requests = [request(host) for host in lists.asked]
    scanned = timed(lambda event: decide(event, scanning), requests, seconds)
    path = timed(lambda event: decide(event, scanning), [file] * 50, seconds)
    parsed = timed(parse_host.__wrapped__, hosts, seconds)
    text = policy_text(lists_of(SIZES[-1]), scan=False)
    start = time.process_time()
    load_policy(text, "bench.yaml")
    return {
        "request_with_head_scan_p50_us": scanned["p50_us"],
        "request_with_head_scan_p99_us": scanned["p99_us"],
        "file_p50_us": path["p50_us"],
        "parse_host_uncached_p50_us": parsed["p50_us"],
        f"load_policy_{2 * SIZES[-1]}_hosts_ms": (time.process_time() - start) * 1e3,
    }


def measure(asked: Options) -> Result:
    """Run everything and weigh it against the budgets."""
    result = Result(name="decide", run={"rounds": asked.rounds, "seed": asked.seed})
    order = random.Random(asked.seed)
    for size in SIZES:
        taken = rounds_of(variants_of(size, asked.seconds), rounds=asked.rounds, order=order)
        for name, figures in taken.items():
            row = result.figures.setdefault(name, {})
            row |= {f"hosts_{size}_{figure}": value for figure, value in figures.items()}
        for peer in ("fnmatch_loop", "re2_loop", "re_alternation"):
            value = ratio(taken, "p50_us", peer, "ours")
            if value is not None:
                result.ratios[f"hosts_{size}_{peer}_to_ours_p50"] = value
    result.figures["ours"] |= single_figures(asked.seconds)
    ours = result.figures["ours"]
    result.budgets = [
        Budget(name="decide p50, 2,000 hosts (us)", value=ours["hosts_2000_p50_us"], limit=15),
        Budget(name="decide p99, 2,000 hosts (us)", value=ours["hosts_2000_p99_us"], limit=50),
        Budget(
            name="fnmatch loop to ours, 2,000 hosts",
            value=result.ratios.get("hosts_2000_fnmatch_loop_to_ours_p50"),
            limit=20,
            at_least=True,
        ),
        Budget(
            name="re alternation to ours, 2,000 hosts",
            value=result.ratios.get("hosts_2000_re_alternation_to_ours_p50"),
            limit=5,
            at_least=True,
        ),
    ]
    result.notes = [
        "ours: the whole decision of a request beyond the head scan; the peers match hosts only",
        "CEL rules beside cel-python, cel-expr-python and cedarpy: benchmarks.policy",
    ]
    return result


def main(arguments: Sequence[str]) -> int:
    """Measure and show; return the exit code."""
    asked = options("decide", rounds=3, seconds=0.3, arguments=arguments)
    return show(measure(asked), as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
