"""Which backend decides accesses to files in a run, and the process that it runs in.

Chosen by trying: the strictest that stands around the very process that the command will
be. A policy that says ``require: enforce`` is not run without one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.fuse.roots import outermost

if TYPE_CHECKING:
    from aesp_proxy.cli.walls import Walled
    from aesp_proxy.daemon.config import Settings
    from aesp_proxy.daemon.process import FileGuard
    from aesp_proxy.decide.policy.policy import Policy

_STRICTEST_FIRST: Final = ("fuse", "notify")
# A stage needs no process: nothing of it is decided before its end.
_SERVED: Final = frozenset({"fuse", "notify", "observe"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """What is to be tried, strictest first; ``rows`` are for the list of the view.

    ``settings`` name the guarded directories in full. ``required`` is where the policy
    says that there must be one, empty where it does not. ``observes``: what happens is
    recorded, which stands everywhere and stops nothing.
    """

    settings: Settings
    backends: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    required: str = ""
    observes: bool = False

    def backend_of(self, walled: Walled) -> str:
        """Return the backend that a run has, empty for none."""
        return walled.backend or ("observe" if self.observes else "")

    def guard(self, walled: Walled, view: Path, *, log: Path) -> FileGuard | None:
        """Start the file guard of what stands; ConfigError where one must and none does.

        ``view`` is the list of ``view_for``, which says what is covered.
        """
        if self.required and not walled.backend:
            raise ConfigError(
                "the policy requires that accesses to files are decided, and nothing here can",
                where=self.required,
                remedy="`aesp-proxy doctor` says what this machine lacks",
            )
        backend = self.backend_of(walled)
        if backend not in _SERVED:
            return None
        from aesp_proxy.daemon.process import start_file_guard
        from aesp_proxy.launch.isolation.view import read

        covers = [(row[2], row[1]) for row in read(str(view)) if row[0] == "cover"]
        return start_file_guard(
            backend, walled.descriptors, log=log, covers=covers, reads=backend != "observe"
        )

    def promise(self, backend: str) -> str:
        """Say what it guarantees, and below which directories."""
        from aesp_proxy.intercept.file_port import GUARANTEES

        return f"{GUARANTEES[backend]} ({':'.join(self.settings.files.trees())})"


def files_for(settings: Settings) -> RunFiles:
    """Say what is to be tried for these settings and their policy; ConfigError for a bad one."""
    policy = _policy(settings)
    required = _required(policy)
    wanted = settings.files.backend
    if required and wanted == "none":
        wanted = "auto"
        settings = replace(settings, files=replace(settings.files, backend=wanted))
    backends: tuple[str, ...] = (wanted,)
    if wanted in ("auto", "none"):
        asked = wanted == "auto" and _speaks_of_files(policy)
        backends = _STRICTEST_FIRST if asked else ()
    if not backends:
        return RunFiles(settings=settings, required=required)
    if not _speaks_of_files(policy):
        raise ConfigError(
            "the policy says nothing of files, and so allows none",
            where=policy.where,
            remedy="give it guards.forbidden_path",
        )
    tree = Path(settings.files.tree or Path.cwd()).resolve()
    if not tree.is_dir():
        raise ConfigError("is no directory", where=str(tree), remedy="set files.tree")
    besides = _besides(settings, tree)
    named = replace(settings.files, tree=str(tree), hide=":".join(besides))
    rows = tuple(("fuse", each) for each in outermost((str(tree), *besides)))
    return RunFiles(
        settings=replace(settings, files=named),
        backends=() if wanted == "observe" else backends,
        observes=wanted == "observe",
        rows=rows if "fuse" in backends else (),
        required=required,
    )


def _besides(settings: Settings, tree: Path) -> tuple[str, ...]:
    named = settings.files.hide.split(":") if settings.files.hide else [os.path.expanduser("~")]  # noqa: PTH111
    found = (Path(name).resolve() for name in named)
    return tuple(str(each) for each in found if each.is_dir() and not each.is_relative_to(tree))


def _policy(settings: Settings) -> Policy:
    from aesp_proxy.daemon.policy_files import read_policy

    return read_policy(settings.policy)


def _speaks_of_files(policy: Policy) -> bool:
    return policy.paths is not None or policy.path_allow is not None


def _required(policy: Policy) -> str:
    """Return where the policy requires enforcement, empty where it does not."""
    paths = policy.paths
    return paths.source if paths is not None and paths.requires else ""
