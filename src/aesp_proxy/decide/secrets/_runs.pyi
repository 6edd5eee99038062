from typing import Final

EDITION: Final[int]
RUN_BYTES_MIN: Final[int]

def spans(text: bytes, at: int, /) -> list[tuple[int, int]]: ...
def end(text: bytes, at: int, /) -> int: ...
