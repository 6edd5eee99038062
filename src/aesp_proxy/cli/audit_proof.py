"""``aesp-proxy audit verify --proof``: one event, proved by its host's key and the log's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aesp_proxy.cli.exits import ExitCode
from aesp_proxy.cli.output import line, printable
from aesp_proxy.errors import ConfigError, InputError, TrustError

if TYPE_CHECKING:
    from aesp_proxy.aggregator.proof_check import ProvedEvent
    from aesp_proxy.record.tlog.note import NoteKey
    from aesp_proxy.record.tlog.policy import LogPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWords:
    """Whom to believe about the log, as the command line says it."""

    log_keys: tuple[str, ...] = ()
    witness_keys: tuple[str, ...] = ()
    need: int | None = None
    policy: Path | None = None


def verify_proof_file(file: Path, *, key: bytes | None, words: LogWords, as_json: bool) -> int:
    """Check one proof and say what it proves; exit code 0 or 1."""
    from aesp_proxy.aggregator.proof_check import read_event_proof, verify_event_proof

    policy = _policy(words)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(file)) from error
    try:
        proved = verify_event_proof(read_event_proof(content), public_key=key, policy=policy)
    except (InputError, TrustError) as error:
        _show_wrong(file, str(error), as_json=as_json)
        return ExitCode.FINDINGS
    _show(proved, key_is_pinned=key is not None, as_json=as_json)
    return ExitCode.DONE


def _policy(words: LogWords) -> LogPolicy | None:
    from aesp_proxy.keys import read_bounded
    from aesp_proxy.record.tlog.policy import parse_policy, policy_of

    if words.policy is not None:
        if words.log_keys or words.witness_keys:
            raise click.UsageError("give --log-policy, or --log-key and --witness-key")
        policy = parse_policy(read_bounded(words.policy), where=str(words.policy))
        if not policy.logs:
            raise ConfigError("names no log", where=str(words.policy), remedy="add a log line")
        return policy
    if not words.log_keys:
        if words.witness_keys or words.need is not None:
            raise click.UsageError("--witness-key needs --log-key")
        return None
    logs, witnesses = _keys(words.log_keys), _keys(words.witness_keys)
    if words.need is not None and not 1 <= words.need <= len(witnesses):
        raise click.UsageError(f"--witnesses {words.need} of {len(witnesses)} cannot be")
    return policy_of(logs, witnesses, need=words.need or 0)


def _keys(texts: tuple[str, ...]) -> list[NoteKey]:
    """Read verifier keys; what is a file is read, a key a line."""
    from aesp_proxy.keys import read_bounded
    from aesp_proxy.record.tlog.note import parse_key

    found: list[NoteKey] = []
    for text in texts:
        path = Path(text)
        if "+" in text and not path.exists():
            found.append(parse_key(text, where="the key given"))
            continue
        try:
            lines = read_bounded(path).decode().split()
        except UnicodeDecodeError as error:
            raise ConfigError("holds no keys", where=text) from error
        found += [parse_key(one, where=text) for one in lines]
    return found


def _show_wrong(file: Path, message: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"ok": False, "problem": message}))
    else:
        click.echo(printable(f"WRONG {file}: {message}"))


def _show(proved: ProvedEvent, *, key_is_pinned: bool, as_json: bool) -> None:
    from aesp_proxy.cli.audit import record_dict, time_text

    log = proved.log
    if as_json:
        shown = {
            "ok": True,
            "key_id": proved.key_id,
            "key_is_pinned": key_is_pinned,
            "batch": proved.batch_no,
            "log": {
                "origin": log.checkpoint.origin,
                "index": proved.log_index,
                "size": log.checkpoint.size,
                "witnesses": log.witnesses,
            }
            if log
            else None,
            "record": record_dict(proved.record_id, proved.record),
        }
        click.echo(json.dumps(shown))
        return
    record = proved.record
    told = f"{time_text(record.time_ns)} {record.verdict or record.kind.value} {record.resource}"
    click.echo(printable(f"holds: {proved.record_id} in batch {proved.batch_no}: {told}"))
    click.echo(f"signed by {proved.key_id}")
    if log is not None:
        cosigned = f", cosigned by {', '.join(log.witnesses)}" if log.witnesses else ""
        entry = f"entry {proved.log_index} of {log.checkpoint.size}"
        click.echo(printable(f"logged as {entry} of {log.checkpoint.origin}{cosigned}"))
    else:
        line("the log was not asked; to prove that all see this history, give --log-key")
    if not key_is_pinned:
        line("the host's key came from the proof itself; give the key you know with --key")
