"""Compile the inner loops of the search for secrets, where this machine can.

Without a C compiler or the headers of Python the package is built without them, and searches by
numpy and Hyperscan: the same answers, more slowly. The limited API makes one binary serve
Python 3.12 and all later ones.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = "src/aesp_proxy/decide/secrets"
MODULES = ("_marks", "_runs")
SUFFIX = ".abi3.so"
FLAGS = [
    *("-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-fstack-protector-strong"),
    *("-Wall", "-Wextra", "-Wl,-z,relro,-z,now"),
]
TRY = """\
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.ExtensionFileLoader(*sys.argv[1:])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader(sys.argv[1], loader))
loader.exec_module(module)
"""


class CompiledLoops(BuildHookInterface):  # type: ignore[misc]
    """Put the compiled modules into the wheel, or beside their sources when used in place."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files of a wheel are collected."""
        self._kept = tempfile.TemporaryDirectory()
        for module in MODULES:
            self._build(module, build_data, is_editable=version == "editable")

    def _build(self, module: str, build_data: dict[str, Any], *, is_editable: bool) -> None:
        place = Path(self.root) / HERE
        built = (place if is_editable else Path(self._kept.name)) / f"{module}{SUFFIX}"
        reason = compiled(place / f"{module}.c", built)
        if reason:
            self.app.display_warning(f"built without {built.name}: {reason}")
            return
        if is_editable:
            return
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"cp312-abi3-{platform}"
        build_data["force_include"][str(built)] = f"{HERE.removeprefix('src/')}/{built.name}"


def compiled(source: Path, target: Path) -> str:
    """Compile ``source`` to ``target``; return why that could not be, empty when it could."""
    target.unlink(missing_ok=True)  # never one of another source
    headers = sysconfig.get_path("include")
    if not sys.platform.startswith("linux"):
        return "only built on Linux"
    if not (Path(headers) / "Python.h").is_file():
        return "no headers of Python"
    compiler = shlex.split(os.environ.get("CC") or "cc")
    made = target.with_name(f".{os.getpid()}{target.name}")
    try:
        ran = subprocess.run(
            [*compiler, *FLAGS, f"-I{headers}", "-o", str(made), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            return f"{compiler[0]} failed: {(ran.stderr.strip().splitlines() or [''])[-1]}"
        tried = subprocess.run(
            [sys.executable, "-I", "-c", TRY, source.stem, str(made)],
            capture_output=True,
            check=False,
        )
        if tried.returncode:
            return "what was compiled cannot be loaded"
        made.replace(target)
    except OSError:
        return f"no C compiler ({compiler[0]})"
    finally:
        made.unlink(missing_ok=True)
    return ""
