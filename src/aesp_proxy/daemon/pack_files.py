"""What comes along with the package: the folder of policies and packs, and the packs.

The built-in files are data of the package (``_policies``) when installed, and the
repository's ``policies/`` when not.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aesp_proxy.daemon.text_file import read_text_file
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import join_rules, parse_rules
from aesp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from aesp_proxy.decide.policy.policy import Policy

_PACK_BYTES_MAX: Final = 4 << 20


def packs_of(policy: Policy) -> tuple[Rule, ...]:
    """Read the secret rules for a policy: those of every policy, and the packs it names.

    None when it looks for no secrets; ``ConfigError`` for a pack that there is not.
    """
    if not policy.secrets.enabled:
        return ()
    chosen = {pack.value: pack for pack in policy.secrets.packs}
    return join_rules(
        read_packs(), *(_optional_pack(name, chosen[name].where) for name in sorted(chosen))
    )


@lru_cache(maxsize=1)
def read_packs() -> tuple[Rule, ...]:
    """Read the secret rules of every policy; they do not change while the program runs."""
    folder = built_in_dir() / "secrets"
    packs = sorted(folder.glob("*.toml"))
    if not packs:
        raise ConfigError("no rule packs found", where=str(folder), remedy="reinstall the package")
    return join_rules(*map(_pack, packs))


def _optional_pack(name: str, where: str) -> tuple[Rule, ...]:
    """Read a pack that a policy names at ``where``."""
    folder = built_in_dir() / "secrets" / "optional"
    known = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if name not in known:
        raise ConfigError(
            f"no pack is named {name[:80]!a}",
            where=where,
            remedy=f"name one of {', '.join(known)}",
        )
    return _pack(known[name])


@lru_cache(maxsize=32)
def _pack(path: Path) -> tuple[Rule, ...]:
    return parse_rules(read_text_file(path, _PACK_BYTES_MAX), str(path), each_compiled=False)


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
