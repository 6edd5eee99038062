"""What a worker's session has done so far, and who acts in it: the context of rules.

Counted by the worker itself, from its own decisions: a rule on ``session.denials`` sees
every refusal before it. Labels are known where a file guard tells them (``session_labels``);
risk and spend are not known to this version. A rule that reads what is not known errs, and
refuses if it restricts.
"""

from __future__ import annotations

from collections.abc import Callable

from aesp_proxy.daemon.config import ClaimSettings
from aesp_proxy.model.context import Claims, Context, Level, Session


class SessionCounter:
    """Counts requests let out, body bytes sent and refusals since ``started_ns`` (UTC).

    ``labels`` says what is known of what was read.
    """

    __slots__ = ("_bytes_out", "_claims", "_denials", "_egress", "_labels", "_started_ns")

    def __init__(
        self,
        *,
        started_ns: int,
        claims: Claims,
        labels: Callable[[], tuple[str, ...] | None] = lambda: None,
    ) -> None:
        self._started_ns = started_ns
        self._labels = labels
        self._claims = claims
        self._egress = 0
        self._bytes_out = 0
        self._denials = 0

    def context(self) -> Context:
        """Return what rules may know now."""
        session = Session(
            labels=self._labels(),
            started_ns=self._started_ns,
            egress_count=self._egress,
            bytes_out=self._bytes_out,
            denials=self._denials,
        )
        return Context(claims=self._claims, session=session)

    @property
    def egress_count(self) -> int:
        """Requests let out."""
        return self._egress

    @property
    def denials(self) -> int:
        """Refusals."""
        return self._denials

    def let_out(self) -> None:
        """Count a request that was let out."""
        self._egress += 1

    def refused(self) -> None:
        """Count a refusal."""
        self._denials += 1

    def sent(self, count: int) -> None:
        """Count body bytes that were sent."""
        self._bytes_out += count


def claims_of(settings: ClaimSettings) -> Claims:
    """Return the claims that the operator has set; what is empty is unknown."""
    return Claims(
        roles=_words(settings.roles),
        groups=_words(settings.groups),
        team=settings.team or None,
        business_unit=settings.business_unit or None,
        cost_center=settings.cost_center or None,
        region=settings.region or None,
        organization_id=settings.organization_id or None,
        security_clearance=(
            Level[settings.security_clearance.upper()]
            if settings.security_clearance != "unknown"
            else None
        ),
    )


def _words(text: str) -> tuple[str, ...] | None:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    return words or None
