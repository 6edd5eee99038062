"""An exception: a signed request for deviation, and the grants that it is when approved.

Only an approved one has an effect, only what it names, only in its scope, never in what
is locked, and only until it ends. The signature is checked by the caller, over the bytes
of the file, before any of this is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aesp_proxy.decide.policy.document import Mapping, Scalar, at, parse_document
from aesp_proxy.decide.policy.entries import check_entries
from aesp_proxy.decide.policy.schema_hierarchy import EXCEPTION
from aesp_proxy.decide.policy.scope import Scope
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.decide.policy.table import Table
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.grant import Grant, GrantKind

_KINDS: Final = {
    "allow_egress": (GrantKind.EGRESS, ("guards.egress_allowlist",)),
    "allow_paths": (GrantKind.PATH, ("guards.forbidden_path", "guards.path_allowlist")),
    "allow_commands": (GrantKind.TOOL, ("guards.mcp_tool",)),
}
_FOR_EVER_NS: Final = 2**63 - 1
_ANY: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionFile:
    """One exception as its file says. ``status`` is in lower case without underscores."""

    where: str
    exception_id: Sourced[str]
    status: str
    frameworks: frozenset[str]
    places: tuple[tuple[str, str], ...]
    grants: tuple[Grant, ...]
    from_ns: int
    until_ns: int

    @property
    def is_approved(self) -> bool:
        """Whether its status gives it an effect."""
        return self.status == "approved"

    def covers(self, scope: Scope) -> bool:
        """Tell whether it holds in a scope: everything the scope is must be in it."""
        for key, name in self.places:
            if name != _ANY and scope.names(key) != (name,):
                return False
        return _ANY in self.frameworks or set(scope.frameworks) <= self.frameworks


def read_exception(text: str, where: str) -> ExceptionFile:
    """Read one exception; ``ConfigError`` with the place, also for what is not supported."""
    document = parse_document(text, where)
    top = Table(document, EXCEPTION, path="")
    for name in ("requested_changes", "duration"):
        table = top.table(name)
        if table is not None:
            table.refuse_what_is_not_enforced()
    check_entries(document, EXCEPTION)
    exception_id = _text(top, "id")
    start_ns, until_ns = _duration(top)
    status = _text(top, "status").value.replace("_", "").lower()
    if status == "approved":
        _check_approvals(top)
    scope = document.table("scope")
    return ExceptionFile(
        where=where,
        exception_id=exception_id,
        status=status,
        frameworks=_names(scope, "compliance_frameworks"),
        places=tuple(
            (key, "" if scope is None else scope.word(name))
            for key, name in (("region", "region"), ("unit", "business_unit"), ("team", "team"))
        ),
        grants=_grants(top, exception_id.value, start_ns, until_ns),
        from_ns=start_ns,
        until_ns=until_ns,
    )


def check_exception_locks(exception: ExceptionFile, tree: Mapping) -> None:
    """Refuse an exception that would lift what is locked; ``ConfigError`` with both places."""
    for lock in tree.texts("locked"):
        for grant in exception.grants:
            sections = next(places for kind, places in _KINDS.values() if kind is grant.kind)
            for section in sections:
                inside = lock.text == "guards" or lock.text.split(".")[:2] == section.split(".")
                if inside:
                    raise ConfigError(
                        f"the exception {exception.exception_id.value[:80]!a} lifts"
                        f" {grant.pattern[:80]!a} in {section}, which {at(lock)} locks",
                        where=grant.source,
                        remedy="what is locked has no exceptions",
                    )


def time_ns(item: Sourced[str]) -> int:
    """Read a time of RFC 3339 with a zone as UTC nanoseconds; ``ConfigError`` else."""
    try:
        time = datetime.fromisoformat(item.value)
    except (ValueError, OverflowError):
        time = None
    if time is None or time.tzinfo is None or "T" not in item.value.upper().replace(" ", "T"):
        raise ConfigError(
            f"not a time with a zone: {item.value[:40]!a}",
            where=item.where,
            remedy="write it as 2026-01-31T12:00:00Z",
        )
    return int(time.timestamp()) * 1_000_000_000 + time.microsecond * 1_000


def _duration(top: Table) -> tuple[int, int]:
    table = top.table("duration")
    kind = _text(top, "exception_type").value.replace("_", "").lower()
    if table is None:  # the schema requires it
        raise ConfigError("duration is missing", where=top.where("duration"))
    start = time_ns(_text(table, "start"))
    end = table.text("end")
    if end is None:
        if kind != "permanentexception":
            raise ConfigError(
                "duration.end is missing", where=top.where("duration"), remedy="say when it ends"
            )
        return start, _FOR_EVER_NS
    until = time_ns(end)
    if until <= start:
        raise ConfigError("duration ends before it starts", where=end.where)
    return start, until


def _check_approvals(top: Table) -> None:
    requestor = _text(top, "requestor").value
    said = [
        (_text(table, "approver").value, _text(table, "decision").value.upper())
        for table in top.tables("approvals")
    ]
    if not any(word == "APPROVED" and who != requestor for who, word in said):
        raise ConfigError(
            "status is Approved, and nobody but the requestor has approved it",
            where=top.where("status"),
        )


def _grants(top: Table, exception_id: str, start_ns: int, until_ns: int) -> tuple[Grant, ...]:
    changes = top.table("requested_changes")
    grants: list[Grant] = []
    for name, (kind, _) in _KINDS.items():
        items = changes.texts(name) if changes is not None else None
        grants.extend(
            Grant(
                grant_id=exception_id,
                kind=kind,
                pattern=item.value,
                from_ns=start_ns,
                until_ns=until_ns,
                source=item.source,
            )
            for item in items or ()
        )
    return tuple(grants)


def _names(table: Mapping | None, name: str) -> frozenset[str]:
    items = () if table is None else table.items(name)
    return frozenset(item.text for item in items if isinstance(item, Scalar))


def _text(table: Table, name: str) -> Sourced[str]:
    text = table.text(name)
    if text is None or not text.value:
        raise ConfigError(
            f"{table.path}{'.' * bool(table.path)}{name} is missing or empty",
            where=table.where(name),
        )
    return text
