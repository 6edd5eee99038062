"""Gitleaks itself tells of the same files what the table of its features says.

Any build of gitleaks 8 from 8.28 in ``PATH`` serves: this program does not bring it along.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from gitleaks_features import FEATURES, Feature

GITLEAKS = shutil.which("gitleaks")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(GITLEAKS is None, reason="gitleaks is not installed"),
]


def _told(feature: Feature, folder: Path) -> set[str]:
    (folder / "rules.toml").write_text(feature.text(used=True))
    for name, text in {**feature.more, **feature.files}.items():
        (folder / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "files" / name).write_text(text)
    done = subprocess.run(
        [str(GITLEAKS), "dir", ".", "--config", "../rules.toml", "--no-banner", "--exit-code", "0",
         "--max-decode-depth", "0", "--report-format", "json", "--report-path", "-"],
        cwd=folder / "files", capture_output=True, check=True,
    )  # fmt: skip
    return {f"{one['File']}:{one['RuleID']}:{one['StartLine']}" for one in json.loads(done.stdout)}


@pytest.mark.parametrize("name", FEATURES)
def test_gitleaks_tells_the_same(name: str, tmp_path: Path) -> None:
    assert _told(FEATURES[name], tmp_path) == FEATURES[name].told
