"""The egress data plane beside its peers: straight, and four other intercepting proxies.

Every variant answers the same client from the same TLS origin on loopback, TLS
on both sides. What is compared is the CPU of the proxy's whole process tree;
requests a second on cores that client, origin and proxy share are told, not
compared. Ours runs as a user runs it: enforcing, scanning for secrets, recording.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import harness, http2, load, machine
from benchmarks.certificates import write_authority, write_leaf
from benchmarks.harness import BenchError, Budget, Figures, Options, Result
from benchmarks.peers import (
    AbsentError,
    Running,
    Site,
    direct,
    mitmdump,
    ours,
    proxy_py,
    sandbox_runtime,
    squid,
)

BODY_BYTES = 100_000_000
BODIES_MIN = 2
BODIES_FAILED_MAX = 10
SMALL_BYTES = 1024
IDLE_CONNECTIONS = 1000
MIB = 1 << 20
STARTS: dict[str, Callable[[Site], Running]] = {
    "direct": direct.start,
    "mitmdump": mitmdump.start,
    "squid": squid.start,
    "sandbox-runtime": sandbox_runtime.start,
    "proxy.py": proxy_py.start,
    "ours": ours.start,
}
PASSING: dict[str, Callable[[Site], Running]] = {
    "mitmdump": partial(mitmdump.start, passing=True),
    "ours": partial(ours.start, passing=True),
}
HTTP2_STREAMS = 16
RUN_NOTE = (
    "run_true_wall_ms starts a whole proxy each time; the 150 ms budget is for a launcher "
    "beside a running daemon, which is not in this version: told, not judged"
)
BUSY_LOAD = 1.0
BUSY_NOTE = "times, the start above all, are longer than on an idle one; ratios hold"

type Probe = Callable[[Running], Figures]


@contextlib.contextmanager
def origin_site(options: Options) -> Iterator[Site]:
    """Run the origin and give its place; everything is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="aesp-bench-") as name:
        folder = Path(name)
        ca_file, _ = write_authority(folder, "benchmark origin CA")
        leaf = write_leaf(folder, ("localhost", ours.HOST, "127.0.0.1"))
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.origin", "--certificate", str(leaf)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        with process:
            try:
                assert process.stdout
                port = int(process.stdout.readline())
                yield Site(port=port, ca_file=ca_file, folder=folder, install=options.install)
            finally:
                process.kill()


class Bench:
    """One run: the variants that could be started, and what is known of them so far."""

    def __init__(self, site: Site, options: Options) -> None:
        self.site = site
        self.options = options
        self.order = random.Random(options.seed)
        self.result = Result(name="egress", run={"seed": options.seed, "rounds": options.rounds})
        self.running: dict[str, Running] = {}
        self.failures: Counter[str] = Counter()

    def say(self, text: str) -> None:
        """Tell on standard error how far it is."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[Kegress: {text}")
            sys.stderr.flush()

    def start_all(self) -> None:
        """Start every variant; note those that cannot run."""
        for name, start in STARTS.items():
            self.say(f"starting {name}")
            try:
                variant = start(self.site)
            except (AbsentError, BenchError, OSError) as error:
                self.fail(name, f"is not measured: {error}")
                continue
            self.running[name] = variant

    def stop_all(self) -> None:
        """Stop what runs and verify our record."""
        for variant in self.running.values():
            variant.stop()
        if "ours" in self.running:
            wrong = ours.record_fault(self.site)
            if wrong:
                self.fail("ours", wrong)
        self.running.clear()

    def measure(self, what: str, probe: Probe, *, more_rounds: int = 0) -> None:
        """Measure one group of figures of every running variant, interleaved."""
        able = {
            name: variant for name, variant in self.running.items() if what not in variant.without
        }
        for name in self.running.keys() - able.keys():
            self.result.notes.append(f"{name}, {what}: {self.running[name].without[what]}")
        variants = {
            name: partial(self._once, what, probe, variant) for name, variant in able.items()
        }
        taken = harness.rounds_of(
            variants,
            rounds=self.options.rounds + more_rounds,
            order=self.order,
            progress=lambda text: self.say(f"{what}: {text}"),
        )
        for name, figures in taken.items():
            self.result.figures.setdefault(name, {}).update(figures)

    def _once(self, what: str, probe: Probe, variant: Running) -> Figures:
        try:
            return probe(variant)
        except (BenchError, OSError) as error:
            self.fail(variant.name, f"failed at {what}: {error}")
            return {}

    def fail(self, name: str, why: str) -> None:
        """Note that a variant did not come through a measurement."""
        self.failures[name] += 1
        self.result.notes.append(f"{name} {why}")


def keep_alive(connections: int, seconds: float, variant: Running) -> Figures:
    """Measure small requests on connections that stay open."""
    figures = load.keep_alive(
        variant.target,
        connections=connections,
        seconds=seconds,
        count=SMALL_BYTES,
        cpu_ns=partial(_cpu_ns, variant),
    )
    return _named(variant, {f"{key}_c{connections}": value for key, value in figures.items()})


def new_connections(seconds: float, variant: Running) -> Figures:
    """Measure connections that are opened, used once and closed."""
    return _named(
        variant,
        load.new_connections(
            variant.target, clients=2, seconds=seconds, cpu_ns=partial(_cpu_ns, variant)
        ),
    )


def multiplexed(seconds: float, variant: Running) -> Figures:
    """Measure small requests that share one HTTP/2 connection."""
    return _named(
        variant,
        http2.multiplexed(
            variant.target,
            streams=HTTP2_STREAMS,
            seconds=seconds,
            count=SMALL_BYTES,
            cpu_ns=partial(_cpu_ns, variant),
        ),
    )


def tunnel(seconds: float, variant: Running) -> Figures:
    """Measure small requests through a tunnel whose TLS is not taken off."""
    figures = keep_alive(16, seconds, variant)
    return {"passthrough_cpu_us_per_request_c16": figures["cpu_us_per_request_c16"]}


def streams(variant: Running) -> Figures:
    """Measure server-sent events."""
    return load.events(variant.target, number=40, every_ms=15)


def frames(variant: Running) -> Figures:
    """Measure WebSocket echoes."""
    return load.frames(variant.target, number=300)


def bodies(idle_bytes: dict[str, int], seconds: float, variant: Running) -> Figures:
    """Measure large bodies each way, and the memory they took above idle."""
    pids = variant.pids()
    for pid in pids:
        machine.forget_peak(pid)
    figures = {
        **_moved("download", load.download, seconds, variant),
        **_moved("upload", load.upload, seconds, variant),
    }
    if variant.pid is not None:
        peak = sum(machine.peak_rss_bytes(pid) for pid in pids)
        figures["peak_above_idle_mib"] = max(0, peak - idle_bytes[variant.name]) / MIB
    return _named(variant, figures)


def _moved(
    way: str, move: Callable[[load.Target, int], float], seconds: float, variant: Running
) -> Figures:
    """Move bodies for some seconds, two at least: the best rate, and the CPU of each."""
    rates: list[float] = []
    failed = 0
    before, began = _cpu_ns(variant), time.perf_counter()
    while len(rates) < BODIES_MIN or time.perf_counter() < began + seconds:
        try:
            rates.append(move(variant.target, BODY_BYTES))
        except TimeoutError:  # it stands still, and would again
            raise
        except OSError:  # squid cuts some uploads, for reasons of its own
            failed += 1
            if variant.name == "ours" or failed > BODIES_FAILED_MAX:
                raise
    return {
        f"{way}_mb_per_s": max(rates),
        f"{way}s_failed": failed,
        f"cpu_ms_per_100mb_{way}": (_cpu_ns(variant) - before) / 1e6 / len(rates),
    }


def fresh(variant: Running) -> Figures:
    """Tell of a variant that has just started: time to the first answer, idle memory."""
    return {
        "start_to_first_answer_ms": variant.start_ms,
        "start_cpu_ms": _cpu_ns(variant) / 1e6,
        "idle_mib": machine.rss_bytes(variant.largest()) / MIB,
        "idle_all_processes_mib": sum(map(machine.rss_bytes, variant.pids())) / MIB,
    }


def crowd(variant: Running) -> Figures:
    """Measure the memory that connections take which only stay open."""
    opened = load.idle(variant.target, number=IDLE_CONNECTIONS)
    try:
        return {"idle_1000_connections_mib": machine.rss_bytes(variant.largest()) / MIB}
    finally:
        load.close_all(opened)


def measure_fresh(bench: Bench) -> None:
    """Measure what needs a fresh process, proxy by proxy, interleaved."""

    def once(
        probe: Probe, name: str, starts: dict[str, Callable[[Site], Running]] = STARTS
    ) -> Figures:
        folder = Path(tempfile.mkdtemp(dir=bench.site.folder))
        folder.chmod(0o711)  # squid gives up root and must still find its files
        try:
            variant = starts[name](replace(bench.site, folder=folder))
            try:
                return probe(variant)
            finally:
                variant.stop()
        except (BenchError, OSError, AbsentError) as error:
            bench.fail(name, f"failed when started anew: {error}")
            return {}

    def measure(
        probe: Probe,
        names: list[str],
        rounds: int,
        starts: dict[str, Callable[[Site], Running]] = STARTS,
    ) -> None:
        taken = harness.rounds_of(
            {name: partial(once, probe, name, starts) for name in names},
            rounds=rounds,
            order=bench.order,
            progress=lambda text: bench.say(f"start: {text}"),
            summary=harness.least_of,
        )
        for name, figures in taken.items():
            bench.result.figures[name].update(figures)

    proxies = [name for name in bench.result.figures if name != "direct"]
    passing = [name for name in proxies if name in PASSING]
    measure(partial(tunnel, bench.options.seconds), passing, bench.options.rounds, PASSING)
    measure(fresh, proxies, bench.options.rounds + 1)
    measure(crowd, [name for name in proxies if name == "ours" or not bench.options.quick], 1)
    if "ours" in proxies:
        measure_nothing(bench)


def measure_nothing(bench: Bench) -> None:
    """Measure ``run -- /bin/true``, the second time and later: the first makes the CA."""
    try:
        walls = [ours.run_nothing(bench.site) for _ in range(max(4, bench.options.rounds))][1:]
    except BenchError as error:
        bench.fail("ours", str(error))
    else:
        bench.result.figures["ours"]["run_true_wall_ms"] = statistics.median(walls)


def judge(result: Result, failures: int) -> None:
    """Work out the ratios and hold the budgets of ``design.md`` against them."""
    for figures in result.figures.values():
        _per_cpu_second(figures)
    ours_figures = result.figures.get("ours", {})
    straight = result.figures.get("direct", {})
    for figure, peer in (
        ("cpu_us_per_request_c16", "mitmdump"),
        ("cpu_us_per_request_c1", "mitmdump"),
        ("cpu_us_per_request_c16", "squid"),
        ("cpu_us_per_request_c16", "sandbox-runtime"),
        ("cpu_us_per_request_c16", "proxy.py"),
        ("cpu_us_per_request_http2", "mitmdump"),
        ("passthrough_cpu_us_per_request_c16", "mitmdump"),
        ("connections_per_s", "squid"),
        ("connections_per_s", "mitmdump"),
        ("connections_per_cpu_s", "squid"),
        ("download_mb_per_s", "squid"),
        ("upload_mb_per_s", "squid"),
        ("start_to_first_answer_ms", "mitmdump"),
        ("start_cpu_ms", "mitmdump"),
    ):
        value = harness.ratio(result.figures, figure, "ours", peer)
        if value is not None:
            result.ratios[f"{figure}_to_{peer}"] = value
    added = None
    if "event_p50_us" in ours_figures and "event_p50_us" in straight:
        added = (ours_figures["event_p50_us"] - straight["event_p50_us"]) / 1000
        ours_figures["event_added_p50_ms"] = added
    upper: list[tuple[str, float | None, float]] = [
        ("failures of ours, its record verified", failures, 0),
        (
            "CPU a request c16, to mitmdump",
            result.ratios.get("cpu_us_per_request_c16_to_mitmdump"),
            0.25,
        ),
        (
            "CPU a request of a passed tunnel, to mitmdump's",
            result.ratios.get("passthrough_cpu_us_per_request_c16_to_mitmdump"),
            1.3,
        ),
        ("SSE added delay p50, ms", added, 0.5),
        ("SSE first event, ms", ours_figures.get("first_event_ms"), 10),
        ("peak memory above idle, MiB", ours_figures.get("peak_above_idle_mib"), 64),
        ("start to first answer, ms", ours_figures.get("start_to_first_answer_ms"), 1300),
        ("idle memory of the worker, MiB", ours_figures.get("idle_mib"), 100),
        ("1,000 idle connections, MiB", ours_figures.get("idle_1000_connections_mib"), 250),
    ]
    result.budgets += [Budget(name=name, value=value, limit=limit) for name, value, limit in upper]
    if "sandbox-runtime" in result.figures:
        value = result.ratios.get("cpu_us_per_request_c16_to_sandbox-runtime")
        result.budgets.append(
            Budget(name="CPU a request c16, to sandbox-runtime", value=value, limit=1.0)
        )
    if "squid" in result.figures:
        result.budgets += [
            Budget(name=name, value=result.ratios.get(key), limit=limit, at_least=True)
            for name, key, limit in (
                ("new connections a CPU second, to squid", "connections_per_cpu_s_to_squid", 1.0),
                ("100 MB download, to squid", "download_mb_per_s_to_squid", 0.8),
                ("100 MB upload scanned, to squid", "upload_mb_per_s_to_squid", 0.8),
            )
        ]
    result.notes.append(RUN_NOTE)


def measure_all(bench: Bench) -> None:
    """Run every group in turn on variants that stay up."""
    seconds = bench.options.seconds
    try:
        bench.start_all()
        idle_bytes = {
            name: sum(map(machine.rss_bytes, variant.pids()))
            for name, variant in bench.running.items()
        }
        bench.measure("keep-alive, 16", partial(keep_alive, 16, seconds))
        bench.measure("keep-alive, 1", partial(keep_alive, 1, seconds))
        bench.measure("HTTP/2", partial(multiplexed, seconds))
        bench.measure("new connections", partial(new_connections, seconds), more_rounds=2)
        bench.measure("events", streams)
        bench.measure("frames", frames)
        bench.measure("bodies", partial(bodies, idle_bytes, seconds))
    finally:
        bench.stop_all()
    measure_fresh(bench)


def _per_cpu_second(figures: Figures) -> None:
    if "cpu_us_per_connection" in figures:
        figures["connections_per_cpu_s"] = 1e6 / figures["cpu_us_per_connection"]


def _cpu_ns(variant: Running) -> int:
    return machine.cpu_ns(variant.pids())


def _named(variant: Running, figures: Figures) -> Figures:
    """Drop CPU figures where there is no proxy."""
    if variant.pid is not None:
        return figures
    return {key: value for key, value in figures.items() if not key.startswith("cpu_")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, print; 1 when a budget is missed."""
    given = sys.argv[1:] if arguments is None else arguments
    options = harness.options("egress", rounds=3, seconds=2.0, arguments=given)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16384)), hard))
    load_1m = os.getloadavg()[0]
    with origin_site(options) as site:
        bench = Bench(site, options)
        measure_all(bench)
        bench.say("done\n")
    if load_1m > BUSY_LOAD:
        bench.result.notes.append(f"the machine was busy (load {load_1m:.1f}): {BUSY_NOTE}")
    judge(bench.result, bench.failures["ours"])
    return harness.show(bench.result, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
