"""What a worker logs and records of failures and refusals quotes no secret."""

from __future__ import annotations

import io
import logging
import resource
import subprocess
import sys
from dataclasses import replace

import pytest
from scan_lab import token

from aesp_proxy.daemon import worker_log
from aesp_proxy.daemon.pack_files import read_packs
from aesp_proxy.daemon.process import environment_of
from aesp_proxy.daemon.scrub import masked, scrubbed
from aesp_proxy.daemon.secret_registry import Registry
from aesp_proxy.daemon.secret_sources import Value
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.registered import Hasher, entry
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.model.record import Outcome, Record, RecordKind

KEY = b"a key of the tests of what is quoted"
VALUE = "q9Zt4LmX0vKc7RbYw2NsD5hJ8gFp3TaUe6WiQo1"
TOKEN = token(1)
RECORD = Record(
    kind=RecordKind.DECISION, time_ns=1, event_type="policy_violation", action="tcp.connect",
    outcome=Outcome.DENIED, verdict="deny", reason="host_not_allowed", guard="g", severity="error",
    message="", resource="",
)  # fmt: skip


@pytest.fixture(scope="module")
def scanner() -> SecretScanner:
    index = ExactIndex(KEY)
    index.add([entry("V", "t", VALUE.encode(), hasher=Hasher(KEY), fingerprint_key=KEY)])
    return SecretScanner(read_packs()[:400], KEY, exact=index)


def formatted(name: str, text: str, error: BaseException | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(worker_log.PlacesOnly())
    record = logging.LogRecord(name, logging.ERROR, "x.py", 7, text, (), None)
    if error is not None:
        record.exc_info = (type(error), error, error.__traceback__)
    handler.emit(record)
    return stream.getvalue()


def raised() -> BaseException:
    try:
        {}[VALUE]
    except KeyError as cause:
        try:
            int(VALUE)
        except ValueError as error:
            error.__cause__ = cause
            return error
    raise AssertionError


def test_an_exception_is_told_by_types_and_places_without_its_text():
    said = formatted("aesp_proxy.intercept.x", "it failed", raised())
    assert VALUE not in said
    assert "it failed: ValueError at test_nothing_quotes.py:" in said
    assert "after KeyError at" in said


def test_a_message_of_a_foreign_library_is_told_by_its_place():
    assert formatted("mitmproxy.proxy", f"bad header {VALUE}") == (
        "aesp-proxy worker: error of mitmproxy.proxy, line 7\n"
    )


def test_what_an_event_loop_cannot_give_to_anybody_is_told_without_its_text(capsys):
    script = (
        "import asyncio, sys, threading\n"
        "from aesp_proxy.daemon import worker_log\n"
        "worker_log.install()\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    loop.set_exception_handler(worker_log.loop_failed)\n"
        "    loop.call_soon(lambda v: int(v), sys.argv[1])\n"
        "    threading.Thread(target=int, args=(sys.argv[1],)).start()\n"
        "    await asyncio.sleep(0)\n"
        "asyncio.run(main())\n"
        "raise ValueError(sys.argv[1])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, VALUE], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert VALUE not in ran.stderr
    assert ran.stderr.count("ValueError at") == 3


@pytest.mark.parametrize("secret", [VALUE, TOKEN, VALUE.lower()])
def test_a_record_of_a_refusal_is_masked_wherever_it_quotes(scanner, secret):
    record = replace(
        RECORD,
        message=f"bad line 'GET {secret}'",
        resource=f"https://{secret}.evil.test:443/a/{secret}",
        target_host=f"{secret}.evil.test",
        target_path=f"/a/{secret}/b",
        user_agent=f"x {secret}",
        metadata=(("why", secret),),
    )
    masked = scrubbed(record, scanner)
    assert secret not in repr(masked)
    assert secret[4:20] not in repr(masked)
    assert masked.target_host.endswith(".evil.test")
    assert masked.target_path.endswith("/b")


def test_an_honest_record_stays_what_it_is(scanner):
    record = replace(RECORD, message="no entry allows it", resource="https://a.example:443/x")
    assert scrubbed(record, scanner) is record


def test_a_helper_process_leaves_no_core():
    code = (
        "import resource, aesp_proxy.daemon.spawned as s; s.leave_no_core();"
        "print(resource.getrlimit(resource.RLIMIT_CORE))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "(1, 1)\n"
    assert resource.getrlimit(resource.RLIMIT_CORE) != (1, 1)


def test_a_helper_process_that_ends_by_a_fault_of_ours_says_where_and_quotes_nothing(tmp_path):
    (tmp_path / "faulty.py").write_text(f"int({VALUE!r})\n")
    code = (
        "import os, sys; from aesp_proxy.daemon import spawned;"
        f"sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['', str(os.getppid()), '9', 'faulty'];"
        "spawned.main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert VALUE not in ran.stderr
    assert "a fault of ours ended it: ValueError at faulty.py:1" in ran.stderr


def test_a_helper_process_is_given_no_variable_that_a_library_does_not_need():
    given = {
        "PATH": "/bin", "HOME": "/root", "LC_ALL": "C", "SSL_CERT_FILE": "/roots.pem",
        "API_TOKEN": VALUE, "HTTPS_PROXY": f"http://u:{VALUE}@proxy.example",
        "AESP_UPSTREAM_PROXY": f"http://u:{VALUE}@proxy.example", "SSLKEYLOGFILE": "/keys",
        "MITMPROXY_SSLKEYLOGFILE": "/keys", "PYTHONASYNCIODEBUG": "1", "PYTHONPATH": "/agents",
    }  # fmt: skip
    assert sorted(environment_of(given)) == ["HOME", "LC_ALL", "PATH", "SSL_CERT_FILE"]


def test_a_command_line_that_is_kept_shows_no_registered_value_though_no_rule_knows_it():
    registry = Registry(b"k" * 32)
    registry.add([Value(name="V", source="t", value=VALUE.encode())])
    shown = masked(f"curl -H 'X-Key: {VALUE}' https://a.example", None, registry.index())
    assert shown == f"curl -H 'X-Key: {'*' * len(VALUE)}' https://a.example"
