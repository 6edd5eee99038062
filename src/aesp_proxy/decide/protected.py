"""What no agent may write, whatever the policy allows: what others run without asking.

Git hooks and the parts of git configuration that name programs, the settings of agents
and editors that start programs, start-up files of shells, keys and what this program
itself lives on (threat row 29). A policy cannot lift this; the operator can by the
setting ``files.unprotect``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aesp_proxy.decide.policy.globs import PathGlobs
from aesp_proxy.decide.policy.sourced import Sourced

PROTECTED: Final = (
    "**/.git/hooks/**",
    "**/.git/modules/**/hooks/**",
    "**/.git/info/attributes",
    "**/.git/objects/info/alternates",
    "**/.gitconfig",
    "**/.config/git/**",
    "**/.claude/settings*.json",
    "**/.claude/hooks/**",
    "**/.mcp.json",
    "**/.cursor/mcp.json",
    "**/.cursor/hooks*",
    "**/.gemini/settings.json",
    "**/.codex/config.toml",
    "**/.vscode/{tasks,settings,launch}.json",
    "**/.idea/workspace.xml",
    "**/.{bashrc,bash_profile,bash_login,bash_logout,profile,zshrc,zshenv,zprofile,zlogin,zlogout}",
    "**/.config/{fish,autostart,systemd,environment.d}/**",
    "**/.{pam_environment,xprofile,xinitrc,xsession}",
    "**/.ssh/**",
    "**/.gnupg/**",
    "**/.local/bin/**",
    "**/.{npmrc,netrc,pypirc}",
    "/etc/**",
    "/etc/aesp-proxy/**",
    "**/aesp-proxy/{audit,ca,keys}/**",
)
_GIT_CONFIG: Final = ("**/.git/config", "**/.git/config.worktree", "**/.git/modules/**/config")
_SAMPLE: Final = ".sample"
# Keys whose value git runs, or by which it finds what to run: git-config(1).
_RUNS: Final = frozenset(
    {
        "askpass", "attributesfile", "cmd", "command", "clean", "driver", "editor", "external",
        "fsmonitor", "helper", "hookspath", "path", "pager", "process", "program", "proxycommand",
        "receivepack", "sequenceeditor", "smudge", "sshcommand", "textconv", "uploadpack",
        "gitproxy", "browser", "worktree", "recursesubmodules", "packobjectshook", "sendpack",
    }
)  # fmt: skip
_RUNNING_SECTIONS: Final = frozenset({"alias", "include", "includeif", "pager", "filter", "hook"})


def protects(path: str, before: bytes, after: bytes) -> str:
    """Say why a path may not be written, empty when it may.

    ``path`` is absolute and normalised; ``before`` and ``after`` are the content, which
    matters for git's configuration: what names no program in it may change.
    """
    if path.endswith(_SAMPLE) and "/hooks/" in path:
        # Git puts samples there itself, and runs none of them.
        return ""
    found = _ALL.find(path)
    if found is not None:
        return f"others run or trust {found.value}: no agent writes it"
    if _CONFIG.find(path) is not None and _programs(after) - _programs(before):
        return "the change to git's configuration names a program to run"
    return ""


def _programs(text: bytes) -> frozenset[bytes]:
    """Return the lines of a git configuration that can name a program.

    A line that is continued, or no plain ``key = value``, counts as one: what git may
    read otherwise than this does is a doubt.
    """
    section, found, continued = b"", set(), False
    for raw in text.splitlines():
        line = raw.strip()
        doubtful = continued
        continued = line.endswith(b"\\")
        if line.startswith(b"["):
            head, _, rest = line[1:].partition(b"]")
            section = head.split()[0].partition(b".")[0].lower() if head.split() else b""
            if section.decode("latin-1") in _RUNNING_SECTIONS or rest.strip():
                found.add(line)
            continue
        if not line or line[:1] in b"#;":
            continue
        key = line.partition(b"=")[0].strip().lower().decode("latin-1")
        if doubtful or continued or key in _RUNS or section.decode("latin-1") in _RUNNING_SECTIONS:
            found.add(section + b" " + line)
    return frozenset(found)


def _globs(patterns: Iterable[str]) -> PathGlobs:
    return PathGlobs(
        (Sourced(value=each, source="built in", column=1, style="") for each in patterns),
        fold=True,
    )


_ALL: Final = _globs(PROTECTED)
_CONFIG: Final = _globs(_GIT_CONFIG)
