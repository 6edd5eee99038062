"""Where a process that decides takes its policies from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aesp_proxy.daemon.fingerprint import load_fingerprint_key
from aesp_proxy.daemon.pack_files import packs_of
from aesp_proxy.daemon.policy_files import read_policy, snapshot_of
from aesp_proxy.daemon.policy_kept import read_kept
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.snapshot import Snapshot, check_secrets
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
        return self.snapshot(self.read(frame), frame)

    def read(self, frame: dict[str, object]) -> Policy:
        """Read the policy that a frame names, and check all that is quickly checked.

        ``ConfigError`` for what the operator must mend. What is left for ``snapshot`` is to
        compile, which may take seconds.
        """
        kept = frame.get("kept", "")
        if not isinstance(kept, str):
            raise InputError("the supervisor named no policy")
        policy = read_kept(Path(kept)).policy() if kept else read_policy(self.path)
        if policy.secrets.enabled:
            check_secrets(policy, packs_of(policy))
        return policy

    def snapshot(self, policy: Policy, frame: dict[str, object]) -> Snapshot:
        """Compile what ``read`` has returned for the same frame."""
        serial = frame.get("serial", 1)
        if not isinstance(serial, int):
            raise InputError("the supervisor named no policy")
        return snapshot_of(
            policy,
            fingerprint_key=load_fingerprint_key(self.state_dir),
            serial=serial,
            cache_dir=self.cache_dir,
            exact=self.exact,
        )
