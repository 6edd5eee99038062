"""What ``policy test`` tells: for people, as JSON, and as JUnit XML for a build server."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence

from aesp_proxy.cli.output import printable
from aesp_proxy.cli.policy.suite_files import CaseResult, SuiteResult
from aesp_proxy.decide.policy.coverage import Coverage, Gap, percent

_PROPERTIES = ("rules", "conjuncts", "entries")


def readable(results: Sequence[SuiteResult]) -> Iterator[str]:
    """Yield the lines for a person: one a suite, then what failed and what was not tried."""
    for result in results:
        word = "FAIL" if result.failures else "ok"
        yield f"{word:<5} {result.where}: {_counted(result)}; {_covered(result.covered)}"
        for failure in result.failures:
            yield from _failure(failure)
        for gap in (*result.covered.rule_gaps, *result.covered.conjunct_gaps):
            yield f"      not tried: {gap.source}: {gap.what}"
    cases = sum(len(result.results) for result in results)
    failures = sum(len(result.failures) for result in results)
    yield f"{_plural(len(results), 'suite')}, {_plural(cases, 'case')}, {failures} failed"


def as_json(results: Sequence[SuiteResult]) -> str:
    """Return everything as one JSON object, in ASCII."""
    suites = [
        {
            "suite": result.where,
            "policy": result.policy_where,
            "policyHash": result.policy_hash,
            "cases": [_case(case) for case in result.results],
            "coverage": _coverage(result.covered),
        }
        for result in results
    ]
    return json.dumps({"passed": not _any_failed(results), "suites": suites}, indent=2)


def as_junit(results: Sequence[SuiteResult]) -> Iterator[str]:
    """Yield the lines of JUnit XML: a ``testsuite`` a suite, a ``testcase`` a case."""
    cases = sum(len(result.results) for result in results)
    failures = sum(len(result.failures) for result in results)
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f'<testsuites name="policy test" tests="{cases}" failures="{failures}" errors="0">'
    for result in results:
        yield (
            f'  <testsuite name="{_escaped(result.where)}" tests="{len(result.results)}" '
            f'failures="{len(result.failures)}" errors="0">'
        )
        yield "    <properties>"
        for name in _PROPERTIES:
            yield f'      <property name="{name}" value="{_share(result.covered, name)}"/>'
        yield "    </properties>"
        for case in result.results:
            yield from _testcase(case, result.where)
        yield "  </testsuite>"
    yield "</testsuites>"


def _any_failed(results: Sequence[SuiteResult]) -> bool:
    return any(result.failures for result in results)


def _counted(result: SuiteResult) -> str:
    count = _plural(len(result.results), "case")
    return f"{len(result.failures)} of {count} failed" if result.failures else count


def _covered(covered: Coverage) -> str:
    return ", ".join(f"{name} {_share(covered, name)}" for name in _PROPERTIES)


def _share(covered: Coverage, name: str) -> str:
    part, whole = getattr(covered, f"{name}_covered"), getattr(covered, name)
    return f"{part}/{whole} ({int(percent(part, whole))}%)" if whole else "0/0"


def _failure(failure: CaseResult) -> Iterator[str]:
    decision = failure.decision
    yield f"      {failure.case.where}: {failure.case.name}"
    for mismatch in failure.mismatches:
        yield f"          {mismatch}"
    source = f" ({decision.source})" if decision.source else ""
    yield f"          {decision.guard}{source}: {decision.message}"


def _case(result: CaseResult) -> dict[str, object]:
    decision = result.decision
    return {
        "name": result.case.name,
        "where": result.case.where,
        "passed": not result.mismatches,
        "mismatches": list(result.mismatches),
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "guard": decision.guard,
        "source": decision.source,
        "message": decision.message,
        "rules": list(decision.rules),
        "ruleErrors": list(decision.rule_errors),
        "findings": sorted({finding.rule for finding in decision.findings}),
    }


def _coverage(covered: Coverage) -> dict[str, object]:
    gaps: tuple[tuple[Gap, ...], ...] = (
        covered.rule_gaps,
        covered.conjunct_gaps,
        covered.entry_gaps,
    )
    return {
        name: {
            "all": getattr(covered, name),
            "covered": getattr(covered, f"{name}_covered"),
            "missing": [{"source": gap.source, "what": gap.what} for gap in missing],
        }
        for name, missing in zip(_PROPERTIES, gaps, strict=True)
    }


def _testcase(result: CaseResult, where: str) -> Iterator[str]:
    file, line, _ = result.case.where.rsplit(":", 2)
    start = (
        f'    <testcase name="{_escaped(result.case.name)}" classname="{_escaped(where)}" '
        f'file="{_escaped(file)}" line="{line}"'
    )
    if not result.mismatches:
        yield f"{start}/>"
        return
    yield f"{start}>"
    message = _escaped("; ".join(result.mismatches))
    text = "\n".join(_escaped(line.strip()) for line in _failure(result))
    yield f'      <failure type="mismatch" message="{message}">{text}</failure>'
    yield "    </testcase>"


def _escaped(text: str) -> str:
    """Return text for XML: no character in it that XML cannot hold."""
    return html.escape(printable(text))


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
