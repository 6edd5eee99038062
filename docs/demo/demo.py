"""The main job, end to end, on one machine in less than a minute (``make demo``).

A small TLS internet on loopback, an agent under ``aesp-proxy run``, what was
refused and why, the record, an aggregator, both copies verified, and one byte
broken to show that it is found. Nothing leaves the machine, nothing needs root,
nothing is left behind. Every line with a tick was checked when it was shown; the
exit code is 1 when one did not hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from agent import LEAKED, key_offset  # noqa: E402 -- beside this file, not in a package
from internet import EVENT_EVERY_S, EVIL, FILES, HOSTS, WORDS, Internet  # noqa: E402
from story import Story, aesp_proxy  # noqa: E402

STOP_S_MAX = 15.0
INDEX_S_MAX = 10.0
KEY = "host.pub"
COLUMNS = 132
INTERRUPTED = 130
STREAMED_BYTES_MIN = 1_000_000
POLICY = """\
version: "1.2.0"
name: demo
guards:
  egress_allowlist:
    allow: [api.example-llm.test, files.example.test, git.example.test]
    default_action: block
  secret_leak:
    enabled: true
"""


def lay_out(story: Story, internet: Internet) -> None:
    """Step 1: the internet, a policy, a configuration."""
    story.step("A small internet on loopback, and a policy")
    has_git = internet.make_repository()
    internet.start()
    story.say(f"TLS on {internet.address} answers for {', '.join(HOSTS)}.")
    story.say("Paths are shown from the demo's own folder, which is gone at the end.")
    if not has_git:
        story.say("git is not installed here: the clone is left out.")
    (story.folder / "policy.yaml").write_text(POLICY)
    settings = {
        "upstream": {
            "resolve": dict.fromkeys(HOSTS, internet.address),
            "ca_file": str(internet.ca_file),
        },
        "agent": {"id": "demo-agent", "principal_id": "demo"},
    }
    (story.folder / "config.yaml").write_text(json.dumps(settings, indent=2))
    story.command("cat", "policy.yaml")
    story.show(POLICY)


def run_agent(story: Story) -> dict[str, dict]:
    """Step 2: the agent under enforcement; return what it saw, task by task."""
    story.step("An agent under enforcement")
    notes = story.folder / "agent.jsonl"
    options = ("run", "--policy", "policy.yaml", "--config", "config.yaml", "--state", "state")
    code = story.follow(
        *options,
        "--",
        sys.executable,
        str(HERE / "agent.py"),
        str(notes),
        shown=(*options, "--", "python", "agent.py"),
    )
    story.promise("the agent's own exit code came back: 0", code == 0)
    seen: dict[str, dict] = defaultdict(dict)
    if notes.exists():
        seen |= {row["task"]: row for row in map(json.loads, notes.read_text().splitlines())}
    return seen


def check_agent(story: Story, internet: Internet, seen: dict[str, dict]) -> None:
    """Step 3: hold what the agent saw against what arrived."""
    story.step("What arrived, and what did not")
    story.promise("the allowed call was answered", seen["ask"].get("status") == 200)
    check_stream(story, seen["stream"].get("times_ms") or [0])
    for task, tool in (("curl", "curl"), ("clone", "git")):
        if seen[task].get("skipped"):
            story.say(f"{tool} is not installed here: not checked")
        else:
            story.promise(f"{tool} worked as it is installed", seen[task].get("exit_code") == 0)
    refused = seen["refused_host"]
    story.promise(
        f"{EVIL} was refused ({reason(refused)}), and nothing reached it",
        refused.get("status") == 403
        and reason(refused) == "host_not_allowed"
        and not internet.reached(EVIL),
    )
    for task, place in (("leak_in_header", "header"), ("leak_in_body", "JSON body")):
        story.promise(
            f"the key in a {place} was refused ({reason(seen[task])})",
            seen[task].get("status") == 403 and reason(seen[task]) == "secret_found",
        )
    check_upload(story, internet, seen["leak_in_upload"])
    story.promise(
        "the key is in nothing that arrived anywhere, whole or begun",
        internet.arrivals and not any(row.holds(LEAKED[:12]) for row in internet.arrivals),
    )


def check_stream(story: Story, times_ms: list[int]) -> None:
    """Say whether the events came as they were sent, not all at the end."""
    sent_ms = (len(WORDS) - 1) * EVENT_EVERY_S * 1000
    spread_ms = times_ms[-1] - times_ms[0]
    story.promise(
        f"{len(times_ms)} events came one by one, over {spread_ms} ms as they were sent",
        len(times_ms) == len(WORDS) and spread_ms > 0.8 * sent_ms,
    )


def check_upload(story: Story, internet: Internet, seen: dict) -> None:
    """Say where the upload was stopped."""
    arrived = sum(len(row.body) for row in internet.reached(FILES, "/leak-upload"))
    how = f"answered {seen['status']}, {reason(seen)}" if seen.get("status") else "cut"
    story.promise(
        f"the 20 MB upload flowed and was stopped ({how}): the key begins at byte "
        f"{key_offset():,}, and {arrived:,} bytes arrived",
        STREAMED_BYTES_MIN < arrived <= key_offset() and seen.get("status") in (0, 403),
    )


def reason(seen: dict) -> str:
    """Return the reason word of a refusal, empty without one."""
    return str((seen.get("problem") or {}).get("reason", ""))


def show_record(story: Story) -> None:
    """Step 4: the record on this host."""
    story.step("The record: decided, written, then acted on")
    story.run("audit", "tail", "--state", "state", "-n", "4" if story.brief else "14")
    text = story.run("audit", "tail", "--state", "state", "-n", "1000", "--json", show=False)
    story.promise(
        "the record holds the refusals with their reasons",
        "host_not_allowed" in text and text.count("secret_found") >= 3,
    )
    story.promise("and the key nowhere, only masked", text and LEAKED[:16] not in text)


@contextlib.contextmanager
def aggregator(story: Story) -> Iterator[None]:
    """Serve an aggregator on a free loopback port until the end of the block."""
    shown = ("aggregator", "serve", "--data", "region", "--listen", "127.0.0.1:0")
    story.command("aesp-proxy", *shown, "&")
    read_fd, write_fd = os.pipe()
    with (story.folder / "aggregator.log").open("wb") as log:
        process = subprocess.Popen(
            [aesp_proxy(), *shown, "--ready-fd", str(write_fd)],
            cwd=story.folder,
            pass_fds=(write_fd,),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    os.close(write_fd)
    try:
        with os.fdopen(read_fd) as ready:
            said = ready.readline().strip()
        story.promise(f"it accepts: {said}", said)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.returncode:
            story.show((story.folder / "aggregator.log").read_text())
        story.promise("the aggregator stopped cleanly when it was told to", process.returncode == 0)


def ship(story: Story) -> None:
    """Step 5: forward the batches to a region and ask it."""
    story.step("The region: an aggregator takes the signed batches")
    with aggregator(story):
        story.run("aggregator", "enroll", "--data", "region", "--state", "state")
        story.run("audit", "ship", "--state", "state")
        query = ("aggregator", "query", "--data", "region", "--verdict", "deny")
        await_index(story, query)
        answer = story.run(*query, "--kind", "decision")
        story.promise(
            "the region names the refusals of this host",
            "host_not_allowed" in answer and answer.count("secret_found") == 3,
        )


def await_index(story: Story, query: tuple[str, ...]) -> None:
    """Wait until the region has indexed what it has accepted; that is a moment later."""
    deadline = time.monotonic() + INDEX_S_MAX
    while time.monotonic() < deadline:
        if "secret_found" in story.run(*query, show=False, quiet=True):
            return
        time.sleep(0.1)


def verify(story: Story) -> Path | None:
    """Step 6: verify both copies; return the region's copy."""
    story.step("Both copies are verified, off line")
    keys = list(story.folder.glob("state/audit/keys/*.pub"))
    story.promise(
        "the host has one public key, which an auditor knows from elsewhere", len(keys) == 1
    )
    if not keys:
        return None
    story.command("cp", "state/audit/keys/*.pub", KEY)
    shutil.copy(keys[0], story.folder / KEY)
    story.run("audit", "verify", "state", "--key", KEY, promise="the host's copy verifies")
    copies = [path for path in story.folder.glob("region/batches/*") if path.is_dir()]
    story.promise("the region keeps one copy, of this host", len(copies) == 1)
    if not copies:
        return None
    place = str(copies[0].relative_to(story.folder))
    story.run("audit", "verify", place, "--key", KEY, promise="the region's copy verifies")
    return copies[0]


def break_one_byte(story: Story, original: Path | None) -> None:
    """Step 7: change one byte of a copy and see it found."""
    story.step("One byte of a copy is changed")
    if original is None:
        story.promise("there is a copy to break", held=False)
        return
    broken = story.folder / "broken"
    shutil.copytree(original, broken)
    batch = max(broken.glob("*.batch"), key=lambda path: path.stat().st_size)
    data = bytearray(batch.read_bytes())
    place = len(data) * 2 // 3
    data[place] ^= 0x01
    batch.write_bytes(data)
    story.say(f"byte {place} of {batch.name}, one bit of it")
    text = story.run(
        "audit", "verify", "broken", "--key", KEY, exit_code=1, promise="it no longer verifies"
    )
    story.promise("and the batch is named", batch.stem.lstrip("0") in text)
    story.run(
        "audit",
        "verify",
        str(original.relative_to(story.folder)),
        "--key",
        KEY,
        show=False,
        promise="the original still verifies",
    )


def play(console: Console, *, brief: bool = False) -> int:
    """Play the whole demo on this console and return the exit code."""
    began = time.monotonic()
    console.print("[bold]AESP Proxy: an agent runs under enforcement and its record is proved[/]")
    with tempfile.TemporaryDirectory(prefix="aesp-demo-") as name:
        story = Story(console, Path(name), brief=brief)
        internet = Internet(story.folder)
        try:
            lay_out(story, internet)
            seen = run_agent(story)
            check_agent(story, internet, seen)
            show_record(story)
            ship(story)
            break_one_byte(story, verify(story))
        finally:
            internet.stop()
    return story.close(time.monotonic() - began)


def main() -> int:
    """Play it on this terminal; colour only where there is one."""
    # Where a machine does not allow isolation, the agent is told so and played all the same.
    os.environ.setdefault("AESP_ISOLATION_MODE", "degraded")
    width = None if sys.stdout.isatty() else COLUMNS
    try:
        return play(Console(highlight=False, width=width))
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
