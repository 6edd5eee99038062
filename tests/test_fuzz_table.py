"""Every parser has a fuzz target: what reads bytes that another wrote stands here, with its own.

A parser is a module with a public function or method that is called parse, read, decode,
recognise, feed, split, load or receive. Who wrote what it reads decides: a peer, the agent, the
kernel or another process of ours, then there is a target; or only the operator or this process.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/aesp_proxy"
FOLDERS = ("normalize", "intercept", "decide", "record", "launch")
VERBS = {"parse", "read", "decode", "recognise", "feed", "split", "load", "receive"}

TARGETS = {
    "fuzz_answer": ["normalize/http_relay.py"],
    "fuzz_batch": ["record/batch.py", "record/chain.py", "record/header.py", "record/receipt.py"],
    "fuzz_condition": ["decide/policy/cel/parse.py"],
    "fuzz_dns": ["normalize/dns.py", "normalize/dns_answer.py"],
    "fuzz_fanotify": ["intercept/fanotify/kernel.py", "intercept/fanotify/who.py"],
    "fuzz_first_bytes": [
        "normalize/first_bytes.py", "normalize/socks.py", "normalize/tls_hello.py",
    ],
    "fuzz_frames": ["intercept/egress/stock_upstream.py"],
    "fuzz_fuse": ["intercept/fuse/operations/content.py"],
    "fuzz_git_pack": ["decide/secrets/git_pack.py"],
    "fuzz_grpc": ["normalize/grpc.py"],
    "fuzz_host": ["normalize/announced.py"],
    "fuzz_http": ["normalize/http_body.py", "normalize/http_head.py"],
    "fuzz_inflate": ["decide/secrets/inflate.py"],
    "fuzz_patch": ["decide/patch_lines.py"],
    "fuzz_policy": [
        "decide/policy/compiled_tree.py", "decide/policy/document.py", "decide/policy/hosts.py",
        "decide/policy/load.py", "decide/policy/scope.py", "decide/policy/selectors.py",
        "decide/policy/stated.py", "normalize/json_text.py",
    ],
    "fuzz_record": ["record/canonical.py", "record/frames.py", "record/head.py"],
    "fuzz_secret_rules": [
        "decide/secrets/gitleaks.py", "decide/secrets/gitleaks_tables.py",
        "decide/secrets/pattern.py", "decide/secrets/rule_table.py", "decide/secrets/rules.py",
    ],
    "fuzz_secret_stream": [
        "decide/secrets/body.py", "decide/secrets/inflated.py", "decide/secrets/masking.py",
        "decide/secrets/unpacked.py",
    ],
    "fuzz_tlog": [
        "record/tlog/checkpoint.py", "record/tlog/note.py", "record/tlog/policy.py",
        "record/tlog/proof.py", "record/tlog/tile.py", "record/tlog/witness.py",
    ],
    "fuzz_views": ["decide/secrets/views/packed.py"],
    "fuzz_words": [
        "intercept/capture/wish.py", "intercept/notify/kernel.py", "launch/files.py",
        "launch/isolation/layers.py", "launch/isolation/wish.py", "record/enrolment.py",
    ],
}  # fmt: skip
"""Targets, and the parsers that they run. Others (``fuzz_corporate``) have no such name."""

WITHOUT = {
    "decide/policy/exception.py": "the operator's exceptions, read as ``stated`` reads a policy",
    "decide/policy/hierarchy.py": "the operator's folders, each file by ``load``",
    "decide/policy/layout/read.py": "comments and order of the operator's file, for ``fmt``",
    "decide/policy/lint/atoms.py": "terms that ``cel/parse`` has read",
    "decide/policy/lint/finding.py": "a place that ``lint`` itself has written",
    "decide/policy/suite.py": "the operator's tests of a policy, by ``document``",
    "decide/policy/witness_values.py": "terms that ``cel/parse`` has read",
    "decide/secrets/hyperscan.py": "a database that this user has compiled, checked by its hash",
    "decide/secrets/hyperscan_gates.py": "the same",
    "intercept/egress/corporate_line.py": "counts bytes out for ``corporate_speech``",
    "intercept/egress/tls.py": "OpenSSL's records; what is in them has targets of its own",
    "intercept/egress/tls_settings.py": "the operator's list of ciphers, read by OpenSSL",
    "intercept/fanotify/listener.py": "bytes of the kernel for ``fanotify/kernel``",
    "intercept/observe/watches.py": "inotify's events, read by inotify-simple",
    "intercept/resolver/upstream.py": "the operator's servers and search domains",
    "intercept/stage/stage.py": "files of the state directory, JSON, refused whole when odd",
    "launch/attack/kernel_calls.py": "tries to read what it must not",
    "launch/isolation/link.py": "hands on what ``isolation/wish`` and ``layers`` read",
    "launch/isolation/view.py": "rows that ``run`` itself has written for its child",
    "record/journal_tail.py": "finds segments for ``frames``; tests/faults cuts and damages them",
    "record/losses.py": "the counter of this state, under a sum; tests/faults tears and damages it",
    "record/keys.py": "keys of the state directory, by OpenSSL",
    "record/reader.py": "finds files for ``batch`` and ``frames``; tests/faults damages them",
    "record/sealer_process.py": "reads clocks",
    "record/tlog/key_list.py": "a note by ``tlog/note``, refused unless the pinned key signed it",
    "record/tlog/tree.py": "tiles by ``tlog/tile``",
    "record/state.py": "small files of the state directory for ``head``; tests/faults damages them",
}


def parsers() -> Iterator[str]:
    """Name the modules that read, by the names of what they offer."""
    for folder in FOLDERS:
        for path in sorted((SOURCE / folder).rglob("*.py")):
            names = (
                node.name
                for node in ast.walk(ast.parse(path.read_bytes()))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            )
            if any(name.split("_")[0] in VERBS for name in names):
                yield path.relative_to(SOURCE).as_posix()


def test_every_parser_has_a_fuzz_target_or_a_reason_why_not() -> None:
    placed = {module for modules in TARGETS.values() for module in modules}
    assert placed & set(WITHOUT) == set()
    assert set(parsers()) - placed - set(WITHOUT) == set(), "name their target, or why not"
    assert (placed | set(WITHOUT)) - set(parsers()) == set(), "no longer there"


@pytest.mark.parametrize(
    "target", sorted(path.stem for path in (ROOT / "tests/fuzz").glob("f*.py"))
)
def test_every_fuzz_target_is_run_by_a_test(target: str) -> None:
    users = [
        path.name
        for path in (ROOT / "tests/unit").rglob("test_*.py")
        if f'"{target}"' in path.read_text("utf-8")
    ]
    assert users != []


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_target_imports_what_it_runs(target: str) -> None:
    """Directly, or by the module that calls it; one that it never loads would be a promise."""
    text = (ROOT / f"tests/fuzz/{target}.py").read_text("utf-8")
    packages = {
        node.module.replace("aesp_proxy.", "").split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module and "aesp_proxy" in node.module
    }
    assert {module.split("/")[0] for module in TARGETS[target]} <= packages
