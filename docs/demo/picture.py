"""Draw ``demo.svg``, the picture in the README, from a real run of the demo.

``python docs/demo/picture.py`` plays the demo, and writes the picture only when
every promise held.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import demo  # noqa: E402 -- beside this file, not in a package

COLUMNS = 138
THEME = TerminalTheme(
    (24, 27, 34),
    (220, 223, 228),
    [
        (60, 64, 72),
        (224, 108, 117),
        (126, 196, 125),
        (229, 192, 123),
        (97, 175, 239),
        (198, 120, 221),
        (86, 182, 194),
        (220, 223, 228),
    ],
)


def main() -> int:
    """Play and draw."""
    console = Console(
        record=True, width=COLUMNS, force_terminal=True, color_system="truecolor", highlight=False
    )
    code = demo.play(console, brief=True)
    if code == 0:
        svg = console.export_svg(title="make demo", theme=THEME, unique_id="demo")
        # Fonts are the reader's own: the picture loads nothing.
        svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
        (HERE / "demo.svg").write_text(svg)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
