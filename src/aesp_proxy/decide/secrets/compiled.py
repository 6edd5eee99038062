"""Say which inner loops were compiled, and hold them.

``_marks`` searches for registered values, ``_runs`` for what views may be opened for.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

EDITION: Final = 2
"""Of what its functions take: what was compiled of another is not used."""
RUNS_EDITION: Final = 2


def _marks_compiled() -> ModuleType | None:
    try:
        from aesp_proxy.decide.secrets import _marks  # noqa: PLC0415 - it may not be there
    except ImportError:
        return None  # there was no compiler, or no headers of Python
    return _marks if _marks.EDITION == EDITION else None


def _runs_compiled() -> ModuleType | None:
    try:
        from aesp_proxy.decide.secrets import _runs  # noqa: PLC0415
    except ImportError:
        return None
    return _runs if _runs.EDITION == RUNS_EDITION else None


MARKS: Final = _marks_compiled()
"""The module, None where ``gram_marks`` does its work."""
RUNS: Final = _runs_compiled()
"""The module, None where ``views.run_spans`` does its work."""
