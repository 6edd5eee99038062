"""Fuzz targets by name: ``tests/fuzz`` holds them, and tests run them for a short while."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1] / "fuzz"


def load_target(name: str) -> ModuleType:
    """Load ``tests/fuzz/NAME.py``; its ``fuzz_one`` takes bytes."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
