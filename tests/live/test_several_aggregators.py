"""Three aggregators on one PostgreSQL and one bucket: any may die, and nothing is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from click.testing import CliRunner
from region_lab import WAIT_S, Aggregator, Host, Region, loading, region_of, until

from aesp_proxy.aggregator.client import ask_events
from aesp_proxy.aggregator.fetch import fetch_batches
from aesp_proxy.aggregator.ports import BatchPlace
from aesp_proxy.aggregator.stores import open_control, open_ledger_reader, open_objects
from aesp_proxy.cli.aggregator import aggregator as cli
from aesp_proxy.forward.transport import HttpsTransport, load_destination, urls
from aesp_proxy.record.verify import Pins, verify_place

GO_ON_S = 30.0
"""The promise: after a kill every host goes on within so long."""


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    with region_of(3) as region:
        yield region


def all_go_on(hosts: list[Host], chance: str) -> float:
    """Wait until each host has a newer receipt than now; return what the slowest took."""
    before = {host: host.covered() for host in hosts}
    return until(
        lambda: all(host.covered() > number for host, number in before.items()),
        seconds=GO_ON_S,
        what=lambda: f"{chance}: {[(h.origin, n, h.covered()) for h, n in before.items()]}",
    )


def drain(hosts: list[Host]) -> None:
    """Let everything come to rest; each wait is for progress, so a slow machine is no fault."""
    for host in hosts:
        host.end_load()
    left = dict.fromkeys(hosts, 0)
    while left := {host: host.covered() for host in left if host.covered() < host.spool.newest()}:
        until(
            lambda left=left: all(
                host.covered() > number or host.covered() == host.spool.newest()
                for host, number in left.items()
            ),
            seconds=GO_ON_S,
            what=lambda left=left: str([(host.origin, n) for host, n in left.items()]),
        )


def stored(region: Region) -> list[BatchPlace]:
    with ExitStack() as stack:
        objects = stack.enter_context(closing(open_objects(region.data)))
        ledger = stack.enter_context(closing(open_ledger_reader(region.data, objects)))
        return ledger.after(0, limit=1_000_000)


def everything_holds(region: Region, hosts: list[Host]) -> None:
    """Look at all that was promised, from every side."""
    places = stored(region)
    assert [place.position for place in places] == list(range(1, len(places) + 1))
    for number, host in enumerate(hosts):
        data = region.aggregators[number % len(region.aggregators)].data
        copy = region.folder / f"copy-of-{host.origin}"
        fetched = fetch_batches(data, host.origin, copy)
        assert fetched.batches == host.covered()
        for batch_no in range(1, host.covered() + 1):
            assert (copy / f"{batch_no:010d}.batch").read_bytes() == host.spool.read(batch_no)
        for directory in (copy, host.folder):
            report = verify_place(directory, Pins(key=host.key.public_key))
            assert (report.problems, report.records) == ([], host.records)
        with closing(open_control(data)) as control:
            origin = control.origin(host.origin)
            assert origin is not None
            assert (origin.quarantined_ns, control.evidence(host.origin)) == (None, [])


def events_of(region: Region, aggregator: Aggregator, host: Host) -> list[Any]:
    """Ask one of them, over HTTPS, for all events of a host, once its index is up."""
    found: list[Any] = []
    asked = {"origin": host.origin, "limit": "1000"}
    until(
        lambda: not ask_events((aggregator.url,), region.reader, asked)["batches_not_indexed"],
        every_s=0.4,  # each asking makes a TLS context of its own
    )
    more: dict[str, str] = {}
    while True:
        page = ask_events((aggregator.url,), region.reader, asked | more)
        found += page["events"]
        if not page["cursor"]:
            return found
        more = {"cursor": page["cursor"]}


def all_answer_the_same(region: Region, hosts: list[Host]) -> None:
    for host in hosts:
        answers = [events_of(region, aggregator, host) for aggregator in region.aggregators]
        assert len(answers[0]) == host.records
        assert answers[1:] == answers[:1] * (len(answers) - 1)


def play(region: Region, hosts: list[Host], *, seed: int, rounds: int) -> list[float]:
    """Kill and start again, at random; return how long it took until all hosts went on."""
    chance = random.Random(seed)
    took = [all_go_on(hosts, "begin")]
    for turn in range(rounds):
        victims = chance.sample(region.aggregators, chance.choice((1, 1, 2)))
        # In the middle of something: after a receipt of any host, and a moment more.
        watched = chance.choice(hosts)
        seen = watched.covered()
        until(lambda watched=watched, seen=seen: watched.covered() > seen, seconds=GO_ON_S)
        end_s = time.monotonic() + chance.random() * 0.2
        until(lambda end_s=end_s: time.monotonic() > end_s)
        for victim in victims:
            victim.kill()
        took.append(all_go_on(hosts, f"seed {seed}, turn {turn}"))
        for victim in victims:
            victim.start(region.urls)
        for victim in victims:
            victim.wait()
    return took


def test_a_host_is_told_at_enrolment_where_all_are(region: Region) -> None:
    host = region.new_host()
    assert set(urls(host.folder / "forward")) == set(region.urls)


@pytest.mark.timeout(300)
def test_killed_at_random_under_load_nothing_acknowledged_is_lost_and_all_hosts_go_on(
    region: Region, record_property: Any
) -> None:
    with loading(region, 2) as hosts:
        took = play(region, hosts, seed=7, rounds=2)
        drain(hosts)
        record_property("went on within (s)", [round(seconds, 2) for seconds in took])
        everything_holds(region, hosts)
        all_answer_the_same(region, hosts)


@pytest.mark.parametrize(
    "server", ["gateway", pytest.param("database", marks=pytest.mark.long, id="database")]
)
def test_while_a_store_is_down_hosts_are_told_to_wait_and_drain_when_it_is_back(
    region: Region, server: str
) -> None:
    with loading(region, 2) as hosts:
        all_go_on(hosts, "begin")
        down, up = {
            "gateway": (region.ceph.kill_gateway, region.ceph.start_gateway),
            "database": (region.cluster.kill, region.cluster.restart),
        }[server]
        down()
        try:
            sealed = {host: host.spool.newest() for host in hosts}
            told_to_wait(hosts[0])
            until(lambda: all(host.spool.newest() > n + 3 for host, n in sealed.items()))
            held = {host: host.covered() for host in hosts}
            assert all(host.covered() == number for host, number in held.items())
        finally:
            up()
        all_go_on(hosts, server)
        drain(hosts)
        everything_holds(region, hosts)


def told_to_wait(host: Host) -> None:
    """Send the batch that comes next, as the host does, until all have answered 503."""
    transport = HttpsTransport(load_destination(host.folder / "forward"))
    refused: set[int] = set()

    def refuses() -> bool:
        following = host.covered() + 1
        if not host.spool.has(following):
            return False
        turn = transport.turn
        answer = transport.post(host.spool.read(following))
        if answer.status == 503:
            assert transport.asked_s > 0
            refused.add(turn)
        return len(refused) == transport.addresses

    try:
        until(refuses, what=lambda: str(refused))
    finally:
        transport.close()


def test_the_stores_are_found_good(region: Region) -> None:
    told = CliRunner().invoke(cli, ["check", "--data", str(region.aggregators[1].root)])
    assert told.exit_code == 0, told.output
    assert "PostgreSQL keeps what it commits" in told.output
    assert "locked for 1 days (COMPLIANCE)" in told.output


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_again_and_again_with_more_hosts(region: Region, seed: int) -> None:
    with loading(region, 8) as hosts:
        took = play(region, hosts, seed=seed, rounds=20)
        drain(hosts)
        print(f"seed {seed}: all hosts went on within {max(took):.1f} s at most")
        everything_holds(region, hosts)
        all_answer_the_same(region, hosts)
    assert max(took) < GO_ON_S < WAIT_S
