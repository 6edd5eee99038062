"""The import contracts of ``pyproject.toml`` hold: run here too, so that tests alone tell."""

from __future__ import annotations

import ast
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/aesp_proxy"

# A library that is not everybody's has one home; the path is of a file or a folder.
HOMES = {
    "mitmproxy": ("intercept/egress", "act/egress.py", "act/egress"),
    "hyperscan": ("decide/secrets/hyperscan.py", "decide/secrets/hyperscan_gates.py"),
    "re2": ("decide", "normalize"),
    "cryptography": ("record", "keys.py", "launch/trust.py", "aggregator", "forward"),
    "trio": (
        "daemon/supervisor.py",
        "daemon/ending.py",
        "daemon/guarding.py",
        "daemon/questions.py",
        "daemon/why_door.py",
        "daemon/secret_reading.py",
        "daemon/service",
        "launch",
        "cli/run.py",
        "cli/daemon.py",
    ),
    "inotify_simple": (
        "daemon/service/watch.py",
        "intercept/capture/watch.py",
        "intercept/fuse/watch.py",
        "intercept/notify/closing.py",
        "intercept/observe/watches.py",
    ),
    "click": ("cli",),
    "rich": ("cli",),
    "starlette": ("aggregator",),
    "uvicorn": ("aggregator",),
    "sqlite3": ("aggregator/store",),
    "httpx": ("forward", "aggregator", "cli/aggregator.py", "daemon/vault.py"),
    "numpy": ("decide/secrets/grams.py", "decide/secrets/gram_marks.py"),
    "ctypes": (
        "launch",
        "daemon/spawned.py",
        "intercept/fuse/operations",
        "intercept/notify/kernel.py",
        "intercept/fanotify/handles.py",
        "intercept/fanotify/kernel.py",
        "intercept/stage/publish.py",  # syncfs
        "daemon/freed.py",  # malloc_trim
    ),
    "pathspec": ("cli/scan/targets.py",),
    "pyarrow": ("aggregator/extract.py",),
    "prometheus_client": (
        "aggregator/metrics.py",
        "daemon/service/metrics.py",
        "daemon/service/file_metrics.py",
    ),
    "confluent_kafka": ("aggregator/export/sinks/kafka.py",),
}


def imported(path: Path) -> set[str]:
    """The top names of all modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


def is_under(path: Path, homes: tuple[str, ...]) -> bool:
    place = path.relative_to(SOURCE).as_posix()
    return any(place == home or place.startswith(f"{home}/") for home in homes)


def test_the_import_contracts_hold(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(cache_dir=None, no_cache=True) == EXIT_STATUS_SUCCESS


def test_each_library_stays_in_its_home():
    strays = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        for name in sorted(imported(path) & HOMES.keys())
        if not is_under(path, HOMES[name])
    ]
    assert strays == []


def test_no_home_stands_empty():
    used = {
        name
        for path in SOURCE.rglob("*.py")
        for name in imported(path) & HOMES.keys()
        if is_under(path, HOMES[name])
    }
    assert HOMES.keys() - used <= {"rich", "httpx"}  # they come with later parts
