"""What the benchmarks promise of themselves: fair rounds, honest budgets, true counters."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from benchmarks import egress, harness, load, machine, report  # noqa: E402
from benchmarks.certificates import write_authority, write_leaf  # noqa: E402
from benchmarks.harness import BenchError, Budget, Result  # noqa: E402


def test_every_variant_is_measured_in_every_round_and_the_order_changes() -> None:
    seen: list[str] = []

    def probe(name: str) -> harness.Measure:
        def once() -> harness.Figures:
            seen.append(name)
            return {"value": float(len(seen))}

        return once

    variants = {name: probe(name) for name in "abc"}
    harness.rounds_of(variants, rounds=20, order=random.Random(1))
    rounds = [tuple(seen[at : at + 3]) for at in range(0, 60, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len(set(rounds)) > 2


def test_the_figure_is_the_median_of_the_rounds_that_have_it() -> None:
    samples = [{"x": 1.0, "y": 1.0}, {"x": 50.0}, {"x": 2.0, "y": 3.0}]
    assert harness.median_of(samples) == {"x": 2.0, "y": 2.0}
    assert harness.least_of(samples) == {"x": 1.0, "y": 1.0}


def test_a_budget_is_met_on_its_own_side_of_the_limit() -> None:
    assert Budget(name="at most", value=1.0, limit=1.0).ok
    assert not Budget(name="at most", value=1.1, limit=1.0).ok
    assert Budget(name="at least", value=1.1, limit=1.0, at_least=True).ok
    assert not Budget(name="at least", value=0.9, limit=1.0, at_least=True).ok


def test_a_budget_that_was_not_measured_is_missed_and_the_exit_code_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = Result(name="x", budgets=[Budget(name="b", value=None, limit=1.0)])
    assert harness.show(result, as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["budgets"][0]["ok"] is False


def test_no_budget_of_egress_is_met_by_a_proxy_that_was_not_measured() -> None:
    result = Result(name="egress", figures={"direct": {"event_p50_us": 1.0}, "squid": {}})
    egress.judge(result, 1)
    assert len(result.budgets) == 12
    assert not any(budget.ok for budget in result.budgets)


def test_the_report_names_what_was_missed_and_what_did_not_run(tmp_path: Path) -> None:
    budgets = [Budget(name="speed", value=2.0, limit=1.0).as_json()]
    parts = [
        report.Part(name="egress", result={"figures": {"a": {"us": 1.0}}, "budgets": budgets}),
        report.Part(name="scan", result=None, reason="not in this version"),
    ]
    text = report.write(tmp_path, parts, {"cores": 2}).read_text()
    assert "| egress | speed | 2.0 | <= 1.0 | **missed** |" in text
    assert "| scan | | | | not in this version |" in text


def test_cpu_of_a_process_tree_counts_children_and_grows_with_work() -> None:
    work = "import sys, time; end = time.process_time() + .2"
    child = work + "\nwhile time.process_time() < end: pass\nsys.stdin.read()"
    parent = f"import subprocess,sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 10
            used_ns = 0
            while used_ns < 200_000_000 and time.monotonic() < deadline:
                used_ns = machine.cpu_ns(machine.tree(process.pid)[1:])
            assert used_ns >= 200_000_000
        finally:
            process.stdin.close()  # the child reads it to its end, and both end
            process.wait(10)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[load.Target]:
    folder = tmp_path_factory.mktemp("origin")
    ca_file, _ = write_authority(folder, "test CA")
    leaf = write_leaf(folder, ("localhost",))
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.origin", "--certificate", str(leaf)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout
            port = int(process.stdout.readline())
            context = load.trusting(ca_file)
            yield load.Target(proxy=None, host="localhost", port=port, context=context)
        finally:
            process.kill()


def test_the_client_counts_what_the_origin_sends(site: load.Target) -> None:
    with load.Stream(site) as stream:
        assert stream.get(1000) == 1000
        assert stream.get(300_000) == 300_000


def test_the_origin_confirms_every_byte_of_an_upload(site: load.Target) -> None:
    assert load.upload(site, 3_000_001) > 0


def test_events_carry_the_time_they_were_sent(site: load.Target) -> None:
    assert load.events(site, number=5, every_ms=1)["event_p50_us"] > 0


def test_frames_come_back_as_they_were(site: load.Target) -> None:
    assert load.frames(site, number=3)["websocket_p50_us"] > 0


def test_an_answer_that_was_not_asked_for_is_an_error_and_not_a_fast_one(site: load.Target) -> None:
    with load.Stream(site) as stream:
        stream.sock.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(BenchError):
            stream.drain(1024)


def test_a_certificate_of_another_authority_is_refused(site: load.Target, tmp_path: Path) -> None:
    other, _ = write_authority(tmp_path, "another CA")
    target = load.Target(proxy=None, host="localhost", port=site.port, context=load.trusting(other))
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        load.Stream(target)
