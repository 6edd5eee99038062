"""A process that reads and checks a policy whole, and keeps its texts for the workers.

``python -m aesp_proxy.daemon.policy_check --state DIR --answer FILE --keep FILE
[--policy FILE]``: a process of its own, as a policy may be costly, and what it costs is
to be given back. It compiles all that a worker will (so the compiled secret rules are
in the cache). The answer is JSON: ``error`` (empty: the policy is good), ``files`` that
were read, also when it is not, and of a good one ``name``, ``hash``, ``stamp``,
``warnings``. Exit codes: 0 answered, 4 not.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from pathlib import Path

from aesp_proxy.daemon.fingerprint import load_fingerprint_key
from aesp_proxy.daemon.policy_files import snapshot_of
from aesp_proxy.daemon.policy_kept import KeptPolicy, PolicyReader, write_kept
from aesp_proxy.decide.policy.policy import Policy
from aesp_proxy.errors import AespError, ConfigError


def main() -> int:
    """Check one policy and write the answer."""
    parser = ArgumentParser(prog="aesp_proxy.daemon.policy_check")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--answer", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--policy", type=Path)
    arguments = parser.parse_args()
    reader = PolicyReader(arguments.policy)
    answer: dict[str, object] = {"error": ""}
    try:
        kept, policy = reader.read()
        _try(kept, policy, arguments.state, arguments.cache)
        write_kept(arguments.keep, kept)
    except (AespError, OSError) as error:
        answer["error"] = str(error)
    else:
        answer |= {"name": policy.name, "hash": policy.hash, "stamp": policy.stamp}
        answer["warnings"] = list(policy.warnings)
    answer["files"] = [str(file) for file in reader.files]
    arguments.answer.write_text(json.dumps(answer))
    return 0


def _try(kept: KeptPolicy, policy: Policy, state_dir: Path, cache: Path) -> None:
    """Do what a worker will do with it; ConfigError where it could not."""
    key = load_fingerprint_key(state_dir)
    if kept.policy().hash != policy.hash:
        raise ConfigError("the files changed while they were read; try again", where=kept.where)
    snapshot_of(policy, fingerprint_key=key, serial=0, cache_dir=cache)


if __name__ == "__main__":
    sys.exit(main())
