"""The agent of the demo: an ordinary program that knows nothing of the proxy.

It uses httpx, and curl and git where they are installed, with their usual
settings; the proxy and its CA reach it through the environment, as they reach
any tool. It tells what it does on standard output, and writes what it saw as
JSON lines into the file it is given, for the demo to check.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

LLM = "https://api.example-llm.test/v1/messages"
FILES = "https://files.example.test"
GIT = "https://git.example.test/demo.git"
EVIL = "evil.example.test"
UPLOAD_BYTES = 20_000_000
COMMAND_S_MAX = 20.0
# A token of GitHub's published format, in parts so that no scanner takes it for a real one.
LEAKED = "gh" + "p_" + "x7Kq2Wm9Zt4Rb6Yn1Vc8Lp3Hd5Js0Fg2Ua4E"  # gitleaks:allow - made up

type Seen = dict[str, object]


def say(text: str) -> None:
    """Tell at once, whoever reads."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def ask(client: httpx.Client) -> Seen:
    """Ask the model."""
    answer = client.post(LLM, json={"prompt": "Do the tests pass?"})
    say(f"POST {LLM}\n  {answer.status_code} {answer.json().get('content')}")
    return {"status": answer.status_code, "content": answer.json().get("content")}


def stream(client: httpx.Client) -> Seen:
    """Ask for a streamed answer and note when each event came."""
    began = time.monotonic()
    times_ms = []
    body = {"prompt": "Do the tests pass?", "stream": True}
    say(f"POST {LLM} (stream)")
    with client.stream("POST", LLM, json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                times_ms.append(round((time.monotonic() - began) * 1000))
                say(f"  {times_ms[-1]:>5} ms  {json.loads(line[6:])['word']}")
    return {"status": answer.status_code, "times_ms": times_ms}


def curl(_: httpx.Client) -> Seen:
    """Fetch with curl."""
    return run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/hello")


def clone(_: httpx.Client) -> Seen:
    """Clone with git."""
    with tempfile.TemporaryDirectory() as folder:
        seen = run("git", "clone", "-q", GIT, f"{folder}/demo")
        seen["cloned"] = (Path(folder) / "demo" / "README").exists()
    return seen


def refused_host(client: httpx.Client) -> Seen:
    """Try a host that the policy does not name."""
    say(f"GET https://{EVIL}/collect")
    try:
        status = client.get(f"https://{EVIL}/collect").status_code
    except httpx.ProxyError as error:
        status = 403 if "403" in str(error) else 0
        say(f"  the tunnel was refused: {error}")
    return {"status": status, "problem": connect_problem(EVIL)}


def leak_in_header(client: httpx.Client) -> Seen:
    """Send a key in a header, to a host that is allowed."""
    say(f"POST {LLM} with a GitHub token in a header")
    headers = {"X-Debug-Token": LEAKED}
    return problem_of(client.post(f"{LLM}/leak-header", json={}, headers=headers))


def leak_in_body(client: httpx.Client) -> Seen:
    """Send a key in a JSON body."""
    say(f"POST {LLM} with a GitHub token in the JSON body")
    body = {"prompt": f"my environment is GITHUB_TOKEN={LEAKED}, what is wrong?"}
    return problem_of(client.post(f"{LLM}/leak-body", json=body))


def leak_in_upload(client: httpx.Client) -> Seen:
    """Send a key in the middle of a large upload."""
    say(f"PUT {FILES}/leak-upload, {UPLOAD_BYTES // 1_000_000} MB, a GitHub token in the middle")
    headers = {"Content-Length": str(UPLOAD_BYTES)}
    try:
        return problem_of(client.put(f"{FILES}/leak-upload", content=upload(), headers=headers))
    except httpx.TransportError as error:
        say(f"  the connection was cut: {type(error).__name__}")
        return {"status": 0, "problem": {}}


def key_offset() -> int:
    """Return how many bytes of the upload come before the token."""
    before = 0
    for piece in upload():
        place = piece.find(LEAKED.encode())
        if place >= 0:
            return before + place
        before += len(piece)
    return before


def upload() -> Iterator[bytes]:
    """Give a log file with a token in the middle, chunk by chunk."""
    line = b"2026-01-01T00:00:00Z INFO worker: request done, nothing to see here\n"
    chunk = line * 1000
    secret = f"GITHUB_TOKEN={LEAKED}\n".encode()
    half = UPLOAD_BYTES // 2
    sent = 0
    while sent < UPLOAD_BYTES:
        piece = chunk
        if sent < half <= sent + len(piece):
            piece = secret + chunk
        piece = piece[: UPLOAD_BYTES - sent]
        sent += len(piece)
        yield piece


TASKS: tuple[Callable[[httpx.Client], Seen], ...] = (
    ask,
    stream,
    curl,
    clone,
    refused_host,
    leak_in_header,
    leak_in_body,
    leak_in_upload,
)


def run(*command: str) -> Seen:
    """Run a tool as it is installed, or say that it is not."""
    if shutil.which(command[0]) is None:
        say(f"{command[0]} is not installed here: skipped")
        return {"skipped": True}
    say(" ".join(part for part in command if part.isalpha() or part.startswith("https:")))
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=COMMAND_S_MAX
    )
    say(f"  exit code {done.returncode} {(done.stdout + done.stderr).strip()}".rstrip())
    return {"exit_code": done.returncode, "output": done.stdout + done.stderr}


def problem_of(answer: httpx.Response) -> Seen:
    """Read a refusal as an agent does."""
    problem = {}
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        problem = answer.json()
    say(f"  {answer.status_code} {problem.get('title', answer.reason_phrase)}")
    tell(problem)
    return {"status": answer.status_code, "problem": problem}


def tell(problem: Seen) -> None:
    """Tell the parts of a refusal that an agent acts on."""
    rows = [("reason", problem.get("reason")), ("message", problem.get("message"))]
    rows += [("found", found) for found in problem.get("security_implications") or []]
    rows += [("do", step) for step in problem.get("remediation_steps") or []]
    rows += [("record", problem.get("correlation_id"))]
    for name, value in rows:
        say(f"    {name:<8} {value}")


def connect_problem(host: str) -> Seen:
    """Read what a refused CONNECT says; most clients show its status only."""
    proxy = urlsplit(os.environ["HTTPS_PROXY"])
    with socket.create_connection((proxy.hostname, proxy.port), 10) as connection:
        connection.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        data = b""
        while part := connection.recv(65536):
            data += part
            head, _, body = data.partition(b"\r\n\r\n")
            length = [
                row for row in head.split(b"\r\n") if row.lower().startswith(b"content-length:")
            ]
            if length and len(body) >= int(length[0].split(b":")[1]):
                break
    problem = json.loads(data.partition(b"\r\n\r\n")[2])
    tell(problem)
    return dict(problem)


def main() -> int:
    """Do every task and note what was seen; a task that fails does not stop the others."""
    with Path(sys.argv[1]).open("w") as notes, httpx.Client(timeout=20) as client:
        for task in TASKS:
            try:
                seen = task(client)
            except Exception as error:  # noqa: BLE001 -- an agent goes on
                say(f"  {type(error).__name__}: {error}")
                seen = {"error": f"{type(error).__name__}: {error}"}
            notes.write(json.dumps({"task": task.__name__, **seen}) + "\n")
            notes.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
