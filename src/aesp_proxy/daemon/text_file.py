"""Read a text that an operator gave: bounded, UTF-8, and every failure a ``ConfigError``."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aesp_proxy.errors import ConfigError

HEAD_BYTES: Final = 4096

BytesMax = Callable[[bytes], int]
"""Takes how a file begins; gives how long it may be."""


def read_text_file(path: Path, bytes_max: int, more: BytesMax | None = None) -> str:
    """Read a file of at most ``bytes_max`` bytes (a pipe may be one); ``ConfigError`` else.

    ``more`` is asked of a longer one.
    """
    where = str(path)
    data = _read_bytes(path, where, bytes_max, more)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("not UTF-8", where=f"{where}:{line}") from None


def _read_bytes(path: Path, where: str, bytes_max: int, more: BytesMax | None) -> bytes:
    try:
        with path.open("rb") as file:
            if stat.S_ISBLK(os.fstat(file.fileno()).st_mode):
                raise ConfigError("not a file", where=where)
            data = file.read(bytes_max + 1)
            if len(data) > bytes_max and more is not None:
                bytes_max = max(bytes_max, more(data[:HEAD_BYTES]))
                data += file.read(bytes_max + 1 - len(data))
            if len(data) > bytes_max:
                raise ConfigError(f"larger than {bytes_max // 2**20} MiB", where=where)
            return data
    except FileNotFoundError:
        raise ConfigError("no such file", where=where, remedy="check the path") from None
    except IsADirectoryError:
        raise ConfigError("a directory, not a file", where=where, remedy="name the file") from None
    except PermissionError:
        raise ConfigError(
            "may not be read", where=where, remedy="give this user the right to read it"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise ConfigError(f"cannot be read: {reason}", where=where) from None
