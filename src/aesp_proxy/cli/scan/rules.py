"""The rules of a scan, and what looks for them.

The packs that come along, and files of their form, are looked for as on the wire: by
the proxy's scanner. A file of gitleaks' form means what it means there (names of files,
allowlists, rules that need others), which only a scan of files can ask; what is wrapped
in something is looked for as on the wire there too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aesp_proxy.cli.scan.leak import Source
from aesp_proxy.daemon.pack_files import built_in_dir, read_packs
from aesp_proxy.daemon.rule_cache import compiled, compiled_set, shared_cache_dir
from aesp_proxy.daemon.text_file import read_text_file
from aesp_proxy.decide.secrets.allow import Allows
from aesp_proxy.decide.secrets.files import FileScanner
from aesp_proxy.decide.secrets.gitleaks import Options, parse_gitleaks
from aesp_proxy.decide.secrets.occurrence import Occurrence, occurrence
from aesp_proxy.decide.secrets.rule import Rule, RuleSet
from aesp_proxy.decide.secrets.rule_set import for_the_wire
from aesp_proxy.decide.secrets.rules import join_rules, parse_rules, read_toml
from aesp_proxy.decide.secrets.scanner import SecretScanner

_FOLDER: Final = "aesp-proxy"
_RULES_BYTES_MAX: Final = 4 << 20

Spot = Callable[[bytes, Source], tuple[Sequence[Occurrence], bool]]
"""Takes a block and where it is from; gives what is in it, and whether there was more."""


_See = Callable[[bytes], tuple[Sequence[Occurrence], bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """What is looked for, how, and a line for each rule that could not be taken."""

    rules: tuple[Rule, ...]
    spot: Spot
    warnings: tuple[str, ...] = ()


def looking_for(files: Sequence[Path], key: bytes) -> Looking:
    """Read rule files, or the packs that come along; ConfigError for a bad one.

    ``key`` keys the fingerprints. What is compiled is kept for the next time.
    """
    cache = shared_cache_dir() or _own_cache_dir()
    if not files:
        return _as_on_the_wire(read_packs(), key, cache)
    texts = [(_read(file), str(file)) for file in files]
    if all(_is_pack(text, where) for text, where in texts):
        packs = (parse_rules(text, where, each_compiled=False) for text, where in texts)
        return _as_on_the_wire(join_rules(*packs), key, cache)
    return _as_in_files(texts, key, cache)


def _read(file: Path) -> str:
    return read_text_file(file, _RULES_BYTES_MAX)


def _is_pack(text: str, where: str) -> bool:
    """Tell whether a file has our form: rules and nothing else, each with its severity."""
    document = read_toml(text, where)
    tables = document.get("rules")
    if not isinstance(tables, list) or set(document) - {"rules", "title"}:
        return False
    return all(isinstance(table, dict) and "severity" in table for table in tables)


def _as_on_the_wire(rules: tuple[Rule, ...], key: bytes, cache: Path) -> Looking:
    scanner = SecretScanner(rules, key, compiled(rules, cache))
    return Looking(rules=rules, spot=lambda data, _: scanner.occurrences(data))


def _as_in_files(texts: Sequence[tuple[str, str]], key: bytes, cache: Path) -> Looking:
    options = Options(read=lambda name: _read(Path(name)), default=_own_texts())
    sets = [parse_gitleaks(text, where, options) for text, where in texts]
    joined = RuleSet(
        rules=join_rules(*(each.rules for each in sets)),
        allow=tuple(one for each in sets for one in each.allow),
        warnings=tuple(line for each in sets for line in each.warnings),
    )
    by_name_alone = all(rule.path_only for rule in joined.rules)
    taken, locator = (joined, None) if by_name_alone else compiled_set(joined, cache)
    scanner, allows = FileScanner(taken, locator), Allows(taken.allow)
    wrapped = _wrapped(for_the_wire(taken).rules, key, cache)

    def spot(data: bytes, source: Source) -> tuple[Sequence[Occurrence], bool]:
        path = source.file.encode()
        found = scanner.scan(data, path, source.commit)
        told = [occurrence(one, key) for one in found.found]
        if allows.of_place(path, source.commit):
            return told, found.cut
        through, cut = wrapped(data)
        return [*told, *through], found.cut or cut

    return Looking(rules=taken.rules, spot=spot, warnings=taken.warnings)


def _wrapped(rules: Sequence[Rule], key: bytes, cache: Path) -> _See:
    """Return what finds secrets that stand in a wrapping: names of files say nothing of these."""
    if not rules:
        return lambda _: ((), False)
    scanner = SecretScanner(rules, key, compiled(rules, cache))

    def see(data: bytes) -> tuple[Sequence[Occurrence], bool]:
        found, cut = scanner.occurrences(data)
        return [one for one in found if one.via], cut

    return see


def _own_texts() -> list[tuple[str, str]]:
    """Return what stands for the rules that another program brings along: ours."""
    packs = sorted((built_in_dir() / "secrets").glob("*.toml"))
    return [(_read(pack), str(pack)) for pack in packs]


def _own_cache_dir() -> Path:
    """Return a folder of this user's own (XDG Base Directory Specification)."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if named.startswith("/") else Path.home() / ".cache") / _FOLDER
