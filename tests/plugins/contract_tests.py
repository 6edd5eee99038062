"""Import a file of unit tests from elsewhere, so that its tests hold for other stores too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

UNIT = Path(__file__).parents[1] / "unit"


def unit_module(place: str) -> ModuleType:
    """Import ``tests/unit/PLACE.py``, once."""
    name = f"contract_{place.replace('/', '_')}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, UNIT / f"{place}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
