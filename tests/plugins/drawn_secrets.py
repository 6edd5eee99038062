"""Values that were never anybody's, drawn anew in each run."""

from __future__ import annotations

import secrets
import string

LETTERS = string.ascii_letters + string.digits


def drawn(size: int) -> str:
    """Return letters and digits by chance, some of each."""
    return "".join(secrets.choice(LETTERS) for _ in range(size - 2)) + "7q"
