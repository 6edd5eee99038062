"""A policy kept as it was read: the texts of its files, so that it can be read again the same.

The daemon checks a policy once and hands it to workers at other times: to one that is
started again while the file on disk is broken, say. What they read is these texts, never
the files, which may have changed since.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.policy_files import located, lone_parents, read_text
from aesp_proxy.decide.policy.compiled_json import BYTES_MAX, from_json, is_compiled
from aesp_proxy.decide.policy.load import load_policy
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError
from aesp_proxy.record.files import OS_FILES, write_durable

_FORM: Final = "aesp-kept-policy/1"
_DAMAGED: Final = "this kept policy is damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPolicy:
    """The texts of a policy: its own, and for each ``extends`` of a file what was found.

    ``parents`` maps what is extended and by which file to the parent's name and text.
    """

    where: str
    text: str
    parents: dict[tuple[str, str], tuple[str, str]]

    def policy(self) -> Policy:
        """Read the policy again; ``ConfigError`` as when it is read from its files."""
        if is_compiled(self.text):
            return from_json(self.text, self.where)
        return load_policy(self.text, self.where, self._parent)

    def _parent(self, named: Sourced[str], child: str) -> tuple[str, str]:
        found = self.parents.get((named.value, child))
        if found is None:
            raise ConfigError(_DAMAGED, where=named.where)
        return found


class PolicyReader:
    """Reads a policy to keep it. ``files`` are those read so far, also when it fails."""

    def __init__(self, policy_path: Path | None) -> None:
        self._path, self._where = located(policy_path)
        self._parents = lone_parents(self._path, self._where)
        self._kept: dict[tuple[str, str], tuple[str, str]] = {}

    @property
    def files(self) -> tuple[Path, ...]:
        """The file and what it extends."""
        return self._parents.paths

    def read(self) -> tuple[KeptPolicy, Policy]:
        """Return the texts and what they mean; ``ConfigError`` for a wrong policy."""
        text = read_text(self._path, compiled_bytes_max=BYTES_MAX)
        if is_compiled(text):
            policy = from_json(text, self._where)
        else:
            policy = load_policy(text, self._where, self._parent)
        return KeptPolicy(where=self._where, text=text, parents=self._kept), policy

    def _parent(self, named: Sourced[str], child: str) -> tuple[str, str]:
        found = self._parents(named, child)
        self._kept[named.value, child] = found
        return found


def write_kept(path: Path, kept: KeptPolicy) -> None:
    """Write the texts to a file, whole or not at all; OSError when the disk does not let us."""
    form = {
        "format": _FORM,
        "where": kept.where,
        "text": kept.text,
        "parents": [[*asked, *found] for asked, found in kept.parents.items()],
    }
    write_durable(OS_FILES, path, json.dumps(form).encode())


def read_kept(path: Path) -> KeptPolicy:
    """Read what ``write_kept`` wrote; ``ConfigError`` for anything else."""
    try:
        form = json.loads(path.read_bytes())
        if form["format"] != _FORM:
            raise ConfigError(_DAMAGED, where=str(path))
        parents = {(name, child): (where, text) for name, child, where, text in form["parents"]}
        return KeptPolicy(where=form["where"], text=form["text"], parents=parents)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(_DAMAGED, where=str(path)) from error
