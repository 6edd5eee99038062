"""A real witness that is killed at random while two histories of each log are offered to it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from witness_lab import note, request

from aesp_proxy.aggregator.witness.state import WitnessDir, make_witness, open_state, trust_log
from aesp_proxy.record.tlog.checkpoint import parse_checkpoint
from aesp_proxy.record.tlog.note import (
    KeyType,
    Note,
    SigningNoteKey,
    parse_signatures,
    signing_key,
    verify_note,
)

FORK = 3
"""The size up to which both histories of a log are the same."""
HISTORIES = (None, FORK)
STEP_MAX = 3
OFFERS_MAX = 400
ANSWERS_MAX = 16
COMMAND = "from aesp_proxy.cli import main; main()"


@dataclass
class KilledWitness:
    """A witness on disk, and every cosignature that ever left it, by log and size."""

    root: Path
    chance: random.Random
    logs: list[SigningNoteKey] = field(default_factory=list)
    given: dict[tuple[str, int], set[bytes]] = field(default_factory=dict)
    cut_off: int = 0
    """Requests that the death of the witness left without an answer."""

    def make(self, logs: int) -> None:
        """Make its key, and have it know so many logs."""
        self.key = make_witness(self.root, "witness.example/w1")
        for number in range(logs):
            seed = number.to_bytes(32, "big")
            self.logs.append(signing_key(f"agg{number}.example/log", KeyType.ED25519, seed))
            trust_log(WitnessDir(self.root), str(self.logs[-1].public))

    def live_and_die(self, life: int) -> None:
        """Start it, offer both histories of a new log and of the last life's, kill it meanwhile."""
        readable, writable = os.pipe()
        serve = ["witness", "serve", "--dir", str(self.root), "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *serve, "--ready-fd", str(writable)],
            pass_fds=[writable],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(writable)
        try:
            with os.fdopen(readable) as ready:
                line = ready.readline()
            assert line, "it does not start with what it left"
            url = json.loads(line)["url"]
            logs = self.logs[max(0, life - 1) : life + 1]
            self._offer_and_kill(url, logs, process.kill)
        finally:
            process.kill()
            process.wait()

    def assert_true(self) -> None:
        """Of each log one history only was ever cosigned, and the last of it is kept."""
        state = open_state(self.root)  # RecordError for anything torn
        for log in self.logs:
            origin = log.public.name
            given = {size: roots for (of, size), roots in self.given.items() if of == origin}
            held = state.known(origin).checkpoint
            assert (held.size if held else 0) >= max(given, default=0), "what it cosigned is lost"
            if held is not None:
                told = {**given, held.size: given.get(held.size, set()) | {held.root}}
                assert any(
                    all(roots == {_root(log, size, fork)} for size, roots in told.items())
                    for fork in HISTORIES
                ), "two histories of one log"

    def _offer_and_kill(
        self, url: str, logs: list[SigningNoteKey], kill: Callable[[], None]
    ) -> None:
        """Kill it after so many answers as chance says: requests are under way then."""
        answers, over = threading.Semaphore(0), threading.Event()
        sides = [
            threading.Thread(
                target=self._offer,
                args=(url, log, fork, random.Random(self.chance.random()), answers, over),
            )
            for log in logs
            for fork in HISTORIES
        ]
        for side in sides:
            side.start()
        try:
            for _ in range(self.chance.randrange(1, ANSWERS_MAX)):
                assert answers.acquire(timeout=30), "it does not answer"
        finally:
            kill()
            over.set()
            for side in sides:
                side.join()

    def _offer(
        self,
        url: str,
        log: SigningNoteKey,
        fork: int | None,
        chance: random.Random,
        answers: threading.Semaphore,
        over: threading.Event,
    ) -> None:
        """Offer one history, growing, from the size that the witness says it knows."""
        known = 0
        with httpx.Client(base_url=url, timeout=10) as client:
            for _ in range(OFFERS_MAX):
                size = known + chance.randrange(STEP_MAX)
                body = request(known, size, fork=fork, key=log)
                try:
                    answer = client.post("/add-checkpoint", content=body)
                except httpx.TransportError:
                    self.cut_off += 1
                    return
                if answer.status_code == 200:
                    self._note(log, size, fork, answer.text)
                    known = size
                elif answer.status_code == 409:
                    known = int(answer.text)
                answers.release()
                if over.is_set():
                    return

    def _note(self, log: SigningNoteKey, size: int, fork: int | None, line: str) -> None:
        """Keep a cosignature that left it."""
        signed = note(size, fork=fork, key=log)
        if verify_note(Note(text=signed.text, signatures=parse_signatures(line)), [self.key]):
            roots = self.given.setdefault((log.public.name, size), set())
            roots.add(parse_checkpoint(signed.text).root)


def _root(log: SigningNoteKey, size: int, fork: int | None) -> bytes:
    return parse_checkpoint(note(size, fork=fork, key=log).text).root
