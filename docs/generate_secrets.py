"""The page of every kind of secret, from the packs under ``policies/secrets``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import parse_rules
from aesp_proxy.decide.secrets.validators import VALIDATORS

PACKS = Path(__file__).resolve().parents[1] / "policies/secrets"

INTRO = """\
From the packs under `policies/secrets`. *Checks* are what a match must also be; where a kind has a
severity in brackets, a match whose check does not hold is told with that one. *Hosts* are where
its issuer takes it: what `credentials` of a policy can name.
"""


def page(note: str) -> str:
    """Return the page."""
    parts = ["# Kinds of secret\n", note, INTRO]
    for path in sorted(PACKS.glob("*.toml")):
        parts += _pack(path, path.stem)
    for path in sorted(PACKS.glob("optional/*.toml")):
        parts += _pack(path, f"{path.stem} (where a policy names it in `packs`)")
    parts += ["## Checks\n", "\n".join(_checks()) + "\n"]
    return "\n".join(parts)


def _pack(path: Path, title: str) -> tuple[str, str, str]:
    text = path.read_text("utf-8")
    rules = parse_rules(text, path.name, each_compiled=False)
    told = text.partition("\n")[0].lstrip("# ")
    return f"## {title}\n", f"{told} {len(rules)} kinds.\n", _table(rules)


def _table(rules: tuple[Rule, ...]) -> str:
    rows = ["| kind | what | severity | checks | hosts |", "|---|---|---|---|---|"]
    for rule in rules:
        severity = rule.severity.word
        if rule.invalid is not None:
            severity += f" ({rule.invalid.word})"
        checks = [f"`{name}`" for name in rule.validate]
        checks += [f"entropy over {rule.entropy:g}"] if rule.entropy else []
        hosts = " ".join(f"`{host}`" for host in rule.hosts)
        rows.append(
            f"| [`{rule.id}`]({rule.issuer}) | {rule.description} | {severity} "
            f"| {', '.join(checks)} | {hosts} |"
        )
    return "\n".join(rows) + "\n"


def _checks() -> Iterator[str]:
    yield "| name | what must hold |"
    yield "|---|---|"
    for name, check in VALIDATORS.items():
        told = (check.__doc__ or "").partition("\n")[0].replace("``", "`")
        yield f"| `{name}` | {told} |"
