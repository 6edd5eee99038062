"""What comes along with the package: the folder of policies and packs, and the packs.

The built-in files are data of the package (``_policies``) when installed, and the
repository's ``policies/`` when not.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.text_file import read_text_file
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import join_rules, parse_rules
from aesp_proxy.errors import ConfigError

_PACK_BYTES_MAX: Final = 4 << 20


@lru_cache(maxsize=1)
def read_packs() -> tuple[Rule, ...]:
    """Read the secret rules that come with the package; they do not change while it runs."""
    folder = built_in_dir() / "secrets"
    packs = sorted(folder.glob("*.toml"))
    if not packs:
        raise ConfigError("no rule packs found", where=str(folder), remedy="reinstall the package")
    texts = ((read_text_file(pack, _PACK_BYTES_MAX), str(pack)) for pack in packs)
    return join_rules(*(parse_rules(text, where, each_compiled=False) for text, where in texts))


def built_in_dir() -> Path:
    """Return the folder of policies and packs that come with the package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_policies", package.parents[1] / "policies"):
        if folder.is_dir():
            return folder
    raise ConfigError(
        "the policies of the package are missing",
        where=str(package / "_policies"),
        remedy="reinstall the package",
    )
