from collections.abc import Buffer

EDITION: int

def marks(
    before: bytes,
    data: bytes,
    width: int,
    stride: int,
    factor: int,
    words: Buffer,
    known: tuple[Buffer, ...],
    separator: bytes,
    /,
) -> list[tuple[int, int, int]]: ...
