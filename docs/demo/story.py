"""How the demo talks: numbered steps, commands, promises that are checked as they are shown."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from rich.console import Console
from rich.markup import escape

COMMAND_S_MAX = 60.0
LINES_MAX = 24
BRIEF_LINES_MAX = 6
BRIEF_LEFT_OUT = ("    do ", "    record ", "    message ", "  exit code ")


class Story:
    """Says what happens, and counts the promises that held and those that did not."""

    def __init__(self, console: Console, folder: Path, *, brief: bool = False) -> None:
        self.console = console
        self.brief = brief
        self.folder = folder
        self.step_number = 0
        self.held = 0
        self.broken: list[str] = []

    def step(self, title: str) -> None:
        """Open the next numbered step."""
        self.step_number += 1
        self.console.print(f"\n[bold cyan]{self.step_number}[/]  [bold]{escape(title)}[/]")

    def say(self, text: str) -> None:
        """Explain, in plain words."""
        for row in textwrap.wrap(text, self.console.width - 3):
            self.console.print(f"   {escape(row)}", highlight=False)

    def show(self, text: str, *, style: str = "dim") -> None:
        """Show a text as it is, indented."""
        for line in text.splitlines():
            self.line(line, style=style)

    def line(self, text: str, *, style: str = "dim") -> None:
        """Show one line of output as it is, folded under its own indent, in short paths."""
        text = text.replace(f"{self.folder}/", "")
        indent = " " * (len(text) - len(text.lstrip(" ")) + 2)
        for row in self._folded(text, indent):
            self.console.print(f"   [{style}]│[/] {escape(row.rstrip())}", highlight=False)

    def _folded(self, text: str, indent: str) -> list[str]:
        return textwrap.wrap(
            text,
            self.console.width - 5,
            subsequent_indent=indent,
            break_on_hyphens=False,
            drop_whitespace=False,
        ) or [""]

    def promise(self, text: str, held: object) -> None:
        """Check one promise and show it."""
        if held:
            self.held += 1
        else:
            self.broken.append(f"step {self.step_number}: {text}")
        mark = "[green]✓[/]" if held else "[bold red]✗[/]"
        first, *rest = textwrap.wrap(text, self.console.width - 5)
        self.console.print(f"   {mark} {escape(first)}", highlight=False)
        for row in rest:
            self.console.print(f"     {escape(row)}", highlight=False)

    def command(self, *arguments: str) -> None:
        """Show a command as a user types it."""
        self.console.print(f"   [bold]$[/] {escape(' '.join(arguments))}", highlight=False)

    def run(
        self,
        *arguments: str,
        exit_code: int = 0,
        lines_max: int = LINES_MAX,
        show: bool = True,
        quiet: bool = False,
        promise: str = "",
    ) -> str:
        """Run ``aesp-proxy`` with these arguments, show what it says, return its output.

        The exit code is part of what is promised, said or not; ``quiet`` leaves
        out the command, too.
        """
        if not quiet:
            self.command("aesp-proxy", *arguments)
        done = subprocess.run(
            [aesp_proxy(), *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_S_MAX,
        )
        lines = (done.stdout + done.stderr).splitlines()
        lines_max = min(lines_max, BRIEF_LINES_MAX) if self.brief else lines_max
        if show:
            self.show("\n".join(lines[:lines_max]))
            if len(lines) > lines_max:
                self.line(f"… {len(lines) - lines_max} more lines")
        if promise or done.returncode != exit_code:
            text = f"{promise or 'it ends as it should'} (exit code {done.returncode})"
            self.promise(text, done.returncode == exit_code)
        return done.stdout

    def follow(
        self,
        *arguments: str,
        shown: tuple[str, ...],
    ) -> int:
        """Run ``aesp-proxy``, show its output as it comes, return its exit code."""
        self.command("aesp-proxy", *shown)
        with subprocess.Popen(
            [aesp_proxy(), *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                for line in process.stdout or ():
                    if not (self.brief and line.startswith(BRIEF_LEFT_OUT)):
                        self.line(line.rstrip("\n"))
            finally:
                if process.poll() is None:
                    process.terminate()
        return process.returncode

    def close(self, took_s: float) -> int:
        """Say how it ended and return the exit code."""
        if self.broken:
            self.console.print(f"\n[bold red]{len(self.broken)} promises were not kept:[/]")
            for text in self.broken:
                self.console.print(f"   [red]✗ {escape(text)}[/]", highlight=False)
            return 1
        self.console.print(
            f"\n[bold green]All {self.held} promises held.[/] {took_s:.0f} s", highlight=False
        )
        return 0


def aesp_proxy() -> str:
    """Return the console script of this environment."""
    return str(Path(sys.executable).with_name("aesp-proxy"))
