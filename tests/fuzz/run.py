"""Run one target for as long as one likes, led by what it covers (atheris).

``make fuzz FUZZ="fuzz_http -max_total_time=60"``; the options are libFuzzer's. What it finds
is written to ``.cache/fuzz/NAME`` and is worth a case in the tests.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests/plugins"), str(ROOT / "tests/fuzz")]

import atheris  # noqa: E402


def main() -> None:
    """Load the target under atheris's eyes and go on until it is stopped or finds something."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if not (ROOT / f"tests/fuzz/{name}.py").is_file() or name == "run":
        known = sorted(path.stem for path in (ROOT / "tests/fuzz").glob("fuzz_*.py"))
        sys.exit(f"name a target: {' '.join(known)}")
    corpus = ROOT / ".cache/fuzz" / name
    corpus.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["aesp_proxy"]):
        target = __import__(name)
    options = [f"-artifact_prefix={corpus}/", *sys.argv[2:]]
    atheris.Setup([sys.argv[0], str(corpus), *options], target.fuzz_one)
    atheris.Fuzz()


main()
