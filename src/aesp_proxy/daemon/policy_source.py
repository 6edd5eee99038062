"""Where a process that decides takes its policies from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aesp_proxy.daemon.fingerprint import load_fingerprint_key
from aesp_proxy.daemon.policy_files import load_snapshot, snapshot_of
from aesp_proxy.daemon.policy_kept import read_kept
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.snapshot import Snapshot
from aesp_proxy.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """Where policies come from: what the supervisor kept, else the operator's file.

    ``exact`` are the registered values, which outlive a policy.
    """

    state_dir: Path
    cache_dir: Path
    path: Path | None
    exact: ExactIndex | None = None

    def load(self, frame: dict[str, object]) -> Snapshot:
        """Make the snapshot that a frame names; ``ConfigError`` where that is not possible."""
        kept, serial = frame.get("kept", ""), frame.get("serial", 1)
        if not isinstance(kept, str) or not isinstance(serial, int):
            raise InputError("the supervisor named no policy")
        key, cache = load_fingerprint_key(self.state_dir), self.cache_dir
        if not kept:
            return load_snapshot(
                self.path, fingerprint_key=key, serial=serial, cache_dir=cache, exact=self.exact
            )
        policy = read_kept(Path(kept)).policy()
        return snapshot_of(
            policy, fingerprint_key=key, serial=serial, cache_dir=cache, exact=self.exact
        )
