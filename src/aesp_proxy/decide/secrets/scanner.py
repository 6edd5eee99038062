"""Scan for secrets: one object for all rules, for blocks, request heads and streams.

Rules:

- Clean bytes cost one Hyperscan scan. RE2, masks and fingerprints are only paid
  for where something was located.
- What is found is bounded. Over a bound the scan is cut and a finding of the
  synthetic rule ``too-many-findings`` (critical) says so: closed, not silent.
- A secret found twice in one scan (same rule, place and fingerprint) is told once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from aesp_proxy.decide.secrets.allow import accept_on_the_wire
from aesp_proxy.decide.secrets.anchors import literals_of
from aesp_proxy.decide.secrets.body import BodyScan, StreamPolicy, open_body
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.findings import Findings
from aesp_proxy.decide.secrets.head import Head, lay_out
from aesp_proxy.decide.secrets.hyperscan import Locator, compile_locator
from aesp_proxy.decide.secrets.hyperscan_gates import compile_gates
from aesp_proxy.decide.secrets.occurrence import Occurrence, occurrence
from aesp_proxy.decide.secrets.pieces import Joined
from aesp_proxy.decide.secrets.redact import check_key
from aesp_proxy.decide.secrets.reference import Candidate, Confirmer
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.views.forms import gates_for, gates_of_rules
from aesp_proxy.decide.secrets.views.place import looks_drawn
from aesp_proxy.decide.secrets.watch import Sight
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Finding, Severity

FINDINGS_MAX = 64


class SecretScanner:
    """Find secrets by ``rules``; immutable, safe to share between threads.

    ``fingerprint_key`` is 16 to 64 secret bytes. ``locator`` may be one that was
    loaded from a dump of the same rules; else it is compiled here. ``exact`` are
    registered values, looked for beside the rules. ConfigError when rules or key cannot
    be used.
    """

    __slots__ = ("_key", "_locator", "_sight", "exact", "rules")

    def __init__(
        self,
        rules: Sequence[Rule],
        fingerprint_key: bytes,
        locator: Locator | None = None,
        exact: ExactIndex | None = None,
    ) -> None:
        self.rules = tuple(rules)
        self.exact = exact
        self._key = check_key(fingerprint_key)
        unfit = [rule.id for rule in rules if rule.path_only or rule.required or rule.path]
        if unfit:
            raise ConfigError(f"rule {unfit[0]!r} is not for bytes that flow")
        expressions = tuple(rule.expression for rule in rules)
        if locator is None:
            locator = compile_locator(expressions, gates_of_rules(rules))
        elif locator.expressions != expressions:
            raise ConfigError("the compiled rules are not those of this scanner")
        self._locator = locator
        gates = locator.gates or compile_gates(gates_for(rules))
        confirmer = Confirmer(rules, accept=accept_on_the_wire(rules))
        self._sight = Sight(locator, confirmer, gates, exact)

    def scan(self, data: bytes, location: str) -> tuple[Finding, ...]:
        """Return what is found in a block; offsets count from its start.

        UnavailableError when the engine fails: the caller must refuse.
        """
        seen = self._sight.block(data)
        if seen.is_clean:
            return ()
        found = Findings(self._key, location, FINDINGS_MAX)
        found.add(seen.candidates, cut=seen.cut)
        if seen.problem:
            found.unscannable(seen.problem)
        return found.take()

    def occurrences(self, data: bytes) -> tuple[tuple[Occurrence, ...], bool]:
        """Return every place in a block where a secret stands, and whether the scan was cut.

        By the same rules as ``scan``, but a secret that stands twice is told twice, and
        nothing but the engine's own bounds limits how many. UnavailableError as there.
        """
        seen = self._sight.block(data)
        told = (occurrence(one, self._key) for one in seen.candidates)
        found = {(one.rule, one.start): one for one in sorted(told, key=lambda one: bool(one.via))}
        return tuple(sorted(found.values(), key=lambda one: (one.start, one.rule))), seen.cut

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Return where in a block secrets stand, as far as they were matched."""
        return [(one.start, one.stop) for one in self._sight.block(data).candidates]

    def shows(self, data: bytes) -> bool:
        """Tell whether a secret stands in a block as it is: no view is opened."""
        candidates, cut = self._sight.plain(data)
        return bool(candidates) or cut

    def scan_joined(self, joined: Sequence[Joined], alone: bytes) -> tuple[Finding, ...]:
        """Return what pieces make together that no scan of ``alone``, the last unit, has told.

        Of rules only the critical ones with a literal count, and only what was cut to these
        pieces: what is joined by chance must not look like a secret. UnavailableError when
        the engine fails.
        """
        # All of it, however much moves: what a bound left out would hide the rest.
        text = b"\n".join([one.text for one in joined])
        candidates, cut = self._sight.plain(text)
        if not candidates and not cut:
            return ()
        found = Findings(self._key, "pieces", FINDINGS_MAX)
        begins = list(accumulate((len(one.text) + 1 for one in joined), initial=0))
        for one in candidates:
            number = bisect_right(begins, one.start) - 1
            if one.value not in alone and _was_cut(one, joined[number], begins[number]):
                found.add_here(one, 0)
        if cut:
            found.cut(0)
        return found.take()

    def scan_head(
        self, target: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> tuple[Finding, ...]:
        """Return what is found in a request target and its headers, scanned as one block.

        ``target`` is scanned as sent and, if it holds a ``%``, percent-decoded;
        the value of ``Authorization: Basic`` is scanned decoded too. Locations are
        ``url`` and ``header:NAME``, offsets count within the target or the value.
        """
        block, lines, origins = lay_out(target, headers)
        seen = self._sight.block(block)
        if seen.is_clean:
            return ()
        head = Head(target, headers, lines, origins)
        found = Findings(self._key, "url", FINDINGS_MAX)
        for candidate in seen.candidates:
            found.add_at(candidate, *head.place(candidate.start))
        if seen.cut:
            found.cut(0)
        if seen.problem:
            found.unscannable(seen.problem)
        return found.take()

    def stream(self, location: str, *, encoding: str = "", policy: StreamPolicy) -> BodyScan:
        """Open the scan of a body that flows; ``encoding`` is its Content-Encoding.

        The caller closes it (it is a context manager) in every case.
        """
        findings = Findings(self._key, location, policy.findings_max)
        return open_body(encoding, policy, findings, self._sight)


def _was_cut(one: Candidate, joined: Joined, at: int) -> bool:
    """Tell whether a candidate of what begins ``at`` was cut, and not joined by chance."""
    if joined.is_said_by_one(one.value):
        return False
    if one.fingerprint:
        return True  # a registered value
    if not one.valid or one.severity is not Severity.CRITICAL or not looks_drawn(one.value):
        return False
    literals = [literal.text for literal in literals_of(one.rule)]
    if not literals or one.rule.validate or not joined.pieces:
        return bool(literals)
    return joined.is_made_of(one.start - at, one.stop - at, literals)
