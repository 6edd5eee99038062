"""What is compiled reads and writes nothing but what it is given: gcc's sanitizers look on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src/aesp_proxy/decide/secrets"
SANITIZED = "-std=c11 -g -O1 -fPIC -shared -fsanitize=address,undefined -fno-sanitize-recover=all"
LOAD = """
import array, importlib.machinery, importlib.util, random, sys
loader = importlib.machinery.ExtensionFileLoader(*sys.argv[1:])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader(sys.argv[1], loader))
loader.exec_module(module)
chance = random.Random(7)
found = 0
"""
MARKS = """
for _ in range(5_000):
    each = (0, 2**64 - 1, chance.getrandbits(64))
    filters = tuple(
        array.array("Q", chance.choices(each, k=1 << chance.choice((1, 2, 6))))
        if chance.random() < 0.7 else b"" for _ in range(5)
    )
    held = sum(1 << number for number, words in enumerate(filters) if len(words))
    masks = bytes([held & 7] + [chance.choice((0, held & 24)) for _ in range(255)])
    if chance.random() < 0.3:
        masks = bytes([held & 7, *[0] * 254, held & 24])
    width, stride = chance.choice(((8, 16), (5, 4), (8, 16), (5, 4), (8, 1), (8, 4), (3, 2)))
    if (width, stride) == (8, 1):
        masks = b"" if held & 1 else masks
    factor = chance.getrandbits(64) | 1
    letters = chance.choice((b"ab \\x00\\xff", b"abcA7-", b"aaaaaaaaaaaaaaaaaa! "))
    size = chance.choice((0, 1, 7, 8, 30, 200, 2_000, 9_000))
    data = bytes(chance.choices(letters, k=size))
    before = bytes(chance.choices(b"ab ", k=chance.randrange(40)))
    grams = [data[at : at + width] for at in range(0, max(0, len(data) - width), 7)][:20]
    keys = sorted(
        int.from_bytes(gram, "little") * factor % 2**64 >> 24 << 24
        | chance.randrange(5) << 20 | chance.randrange(1 << 20)
        for gram in grams
    )
    cut = chance.randint(0, len(keys))
    known = tuple(array.array("Q", part) for part in (keys[:cut], keys[cut:]))
    # Copies of the exact size: a byte more that is read is one that the sanitizer knows of.
    given = bytearray(data)
    found += len(module.marks(width, stride, factor, filters, masks, known, before, given))
print(found)
"""


RUNS = """
for _ in range(5_000):
    data = b"".join(
        bytes(chance.choices(b"aZ9+/-_", k=chance.choice((0, 1, 15, 47, 48, 63, 64, 65, 200))))
        + chance.choice((b"", b" ", b"\\xff", b"\\x00", b"=" * 40))
        for _ in range(chance.randrange(6))
    )
    given = bytearray(data)
    at = chance.randrange(len(data) + 3)
    found += len(module.spans(given, at, 0, chance.choice((0, 10_000)))) + module.may_hold(given)
    found += len(module.high(given, chance.randrange(4))) + (module.end(given, at) > at)
print(found)
"""


@pytest.mark.long
@pytest.mark.parametrize(("name", "play"), [("_marks", MARKS), ("_runs", RUNS)])
@pytest.mark.parametrize(
    "more", ["", "-DNARROW", "-U__SSE2__"], ids=["as it fits", "sse2", "portable"]
)
def test_nothing_is_read_that_was_not_given(tmp_path: Path, more: str, name: str, play: str):
    headers = Path(sysconfig.get_path("include"))
    if shutil.which("gcc") is None or not (headers / "Python.h").is_file():
        pytest.skip("gcc or the headers of Python are not here")
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(library).is_file():
        pytest.skip("gcc has no sanitizers here")
    source = SOURCES / f"{name}.c"
    built = tmp_path / f"{name}.abi3.so"
    subprocess.run(
        ["gcc", *SANITIZED.split(), *more.split(), f"-I{headers}", "-o", built, source], check=True
    )
    played = subprocess.run(
        [sys.executable, "-c", LOAD + play, name, built],
        check=False,
        env=os.environ
        | {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert played.returncode == 0, played.stderr[-2_000:]
    assert int(played.stdout) > 300
