"""Bytes of a secret never leave, whatever the chunks; everything else does, in order."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.secrets.body import Release, StreamPolicy
from aesp_proxy.decide.secrets.hyperscan import HITS_MAX, SLICE_BYTES_MAX
from aesp_proxy.decide.secrets.rule import Rule
from aesp_proxy.decide.secrets.rules import rule_from_policy
from aesp_proxy.decide.secrets.scanner import SecretScanner
from aesp_proxy.errors import ConfigError
from aesp_proxy.model.decision import Finding, Severity

STOP = StreamPolicy(threshold=Severity.CRITICAL)
RECORD = StreamPolicy(threshold=Severity.CRITICAL, findings_max=1000)
FILLER = b'{"role": "user", "content": "the quick brown fox \\n jumps"}, '


def _run(
    scanner: SecretScanner, chunks: list[bytes], policy: StreamPolicy = STOP
) -> tuple[bytes, list[Finding], list[Release]]:
    with scanner.stream("body", policy=policy) as scan:
        steps = [scan.feed(chunk) for chunk in chunks]
        steps.append(scan.finish())
    released = b"".join(step.data for step in steps)
    return released, [finding for step in steps for finding in step.findings], steps


def _cut(text: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_no_byte_of_a_secret_leaves_whatever_the_chunks(
    scanner: SecretScanner, pack: tuple[Rule, ...], data: st.DataObject
) -> None:
    rule = data.draw(st.sampled_from([one for one in pack if one.severity is Severity.CRITICAL]))
    secret = data.draw(st.sampled_from(rule.positives))
    before = FILLER * data.draw(st.integers(0, 60)) + b" "
    text = before + secret + b" " + FILLER * data.draw(st.integers(0, 60))
    chunks = _cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    released, findings, _ = _run(scanner, chunks)
    # One kind may begin as another does (gitlab-routable-token as gitlab-pat): the first ends it.
    assert max(finding.severity for finding in findings) is Severity.CRITICAL
    assert text.startswith(released)
    first = min(finding.offset for finding in findings)
    assert len(released) <= first
    assert first >= len(before)


@settings(max_examples=150, deadline=None)
@given(
    text=st.binary(max_size=6000),
    cuts=st.lists(st.integers(0, 6000), max_size=10),
    window_bytes=st.sampled_from([0, 1, 50, 1_100, 5_000]),
)
def test_clean_bytes_leave_whole_and_in_order(
    scanner: SecretScanner, text: bytes, cuts: list[int], window_bytes: int
) -> None:
    assume(not scanner.scan(text, "body"))  # such as an archive that cannot be opened
    policy = StreamPolicy(threshold=Severity.CRITICAL, window_bytes=window_bytes)
    released, findings, _ = _run(scanner, _cut(text, cuts), policy)
    assert findings == []
    assert released == text


@settings(max_examples=150, deadline=None)
@given(
    picks=st.lists(st.integers(0, 1_000), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 10_000), max_size=10),
)
@example(picks=[729], cuts=[26])
def test_what_is_found_does_not_depend_on_the_chunks(
    scanner: SecretScanner, pack: tuple[Rule, ...], picks: list[int], cuts: list[int]
) -> None:
    # Drawn before the test runs, and of fixed bounds: what is drawn depends on nothing.
    text = FILLER.join(pack[pick % len(pack)].positives[0] for pick in picks)
    calm = StreamPolicy(threshold=Severity.CRITICAL, findings_max=1000)
    _, whole, _ = _run(scanner, [text], calm)
    _, parts, _ = _run(scanner, _cut(text, cuts), calm)
    # Where two rules begin at once the body may be stopped before the longer one ends.
    assert min(one.offset for one in parts) == min(one.offset for one in whole)
    assert {(one.rule, one.offset) for one in parts} <= {(one.rule, one.offset) for one in whole}


EDGE = rule_from_policy("edge", "tok-[a-z]{36}", Severity.CRITICAL)


@pytest.fixture(scope="module")
def edge(key: bytes) -> SecretScanner:
    return SecretScanner([EDGE], key)


@settings(max_examples=150, deadline=None)
@given(
    before=st.integers(0, 200),
    after=st.integers(0, 200),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=20),
    window_bytes=st.integers(40, 80),
)
def test_a_secret_just_as_long_as_the_window_does_not_leave_in_part(
    edge: SecretScanner, before: int, after: int, sizes: list[int], window_bytes: int
) -> None:
    text = b"." * before + b"tok-" + b"a" * 36 + b"." * after
    chunks, at = [], 0
    while at < len(text):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(text[at : at + size])
        at += size
    policy = StreamPolicy(threshold=Severity.CRITICAL, window_bytes=window_bytes)
    released, findings, _ = _run(edge, chunks, policy)
    assert [one.offset for one in findings] == [before]
    assert released == b"." * len(released)
    assert before - window_bytes - max(sizes) <= len(released) <= before


def test_below_the_threshold_is_reported_and_flows(key: bytes) -> None:
    quiet = rule_from_policy("quiet", "note-[0-9]{6}", Severity.WARNING)
    scanner = SecretScanner([quiet], key)
    text = FILLER * 50 + b"note-123456 " + FILLER * 50
    released, findings, _ = _run(scanner, [text[:3000], text[3000:]])
    assert released == text
    assert [(one.rule, one.severity) for one in findings] == [("quiet", Severity.WARNING)]
    assert findings[0].offset == len(FILLER) * 50


def test_the_default_threshold_stops_at_anything(key: bytes) -> None:
    quiet = rule_from_policy("quiet", "note-[0-9]{6}", Severity.INFO)
    released, findings, _ = _run(SecretScanner([quiet], key), [b"note-123456"], StreamPolicy())
    assert (released, len(findings)) == (b"", 1)


def test_after_a_finding_nothing_is_released_any_more(
    scanner: SecretScanner, pack: tuple[Rule, ...]
) -> None:
    secret = next(rule for rule in pack if rule.id == "github-pat").positives[0]
    with scanner.stream("body", policy=STOP) as scan:
        assert scan.feed(FILLER * 100).data
        assert scan.feed(secret).findings
        assert scan.stopped
        assert scan.feed(FILLER * 100) == Release()
        assert scan.finish() == Release()


def test_all_but_the_window_leaves_at_once(scanner: SecretScanner) -> None:
    with scanner.stream("body", policy=STOP) as scan:
        sent = 0
        for size in (10, 1_089, 1, 1, 5_000, 3):
            sent += size
            scan_out = scan.feed(b"." * size)
            assert len(scan_out.data) <= size
        assert sent == 6_104
    with scanner.stream("body", policy=STOP) as scan:
        assert len(scan.feed(b"." * 20_000).data) == 20_000 - STOP.window_bytes
        assert len(scan.feed(b"." * 7).data) == 7


def test_a_message_leaves_whole_or_not_at_all(
    scanner: SecretScanner, pack: tuple[Rule, ...]
) -> None:
    secret = next(rule for rule in pack if rule.id == "npm-token").positives[0]
    policy = StreamPolicy(threshold=Severity.CRITICAL, window_bytes=0)
    with scanner.stream("frame", policy=policy) as scan:
        assert scan.feed(b"hello").data == b"hello"
        step = scan.feed(b"here: " + secret)
        assert step.data == b""
        assert [(one.rule, one.location, one.offset) for one in step.findings] == [
            ("npm-token", "frame", 11)
        ]


def test_a_secret_over_two_messages_is_found_with_the_second(
    scanner: SecretScanner, pack: tuple[Rule, ...]
) -> None:
    secret = next(rule for rule in pack if rule.id == "npm-token").positives[0]
    policy = StreamPolicy(threshold=Severity.CRITICAL, window_bytes=0)
    with scanner.stream("frame", policy=policy) as scan:
        assert scan.feed(secret[:20]).data == secret[:20]
        assert scan.feed(secret[20:]).data == b""
        assert scan.stopped


def test_a_boundary_inside_a_message_stream_does_not_hide_a_message(key: bytes) -> None:
    bounded = rule_from_policy("bounded", r"\bsec[0-9]{5}\b", Severity.CRITICAL)
    policy = StreamPolicy(threshold=Severity.CRITICAL, window_bytes=0)
    with SecretScanner([bounded], key).stream("frame", policy=policy) as scan:
        assert scan.feed(b"x").data == b"x"
        assert scan.feed(b"sec12345").data == b""


def test_a_boundary_at_the_end_of_a_body_is_seen_when_it_ends(key: bytes) -> None:
    bounded = rule_from_policy("bounded", r"\bsec[0-9]{5}\b", Severity.CRITICAL)
    scanner = SecretScanner([bounded], key)
    released, findings, steps = _run(scanner, [b"a sec12345"])
    assert (released, [one.rule for one in findings]) == (b"", ["bounded"])
    assert steps[0].findings == ()
    single = [bytes([byte]) for byte in b"a sec123456"]
    assert _run(scanner, [b"a sec12345", b"6"])[:2] == (b"a sec123456", [])
    assert _run(scanner, single)[:2] == (b"a sec123456", [])


def test_one_chunk_larger_than_a_slice_is_cut_by_us(
    scanner: SecretScanner, pack: tuple[Rule, ...]
) -> None:
    secret = next(rule for rule in pack if rule.id == "github-pat").positives[0]
    text = b"." * (SLICE_BYTES_MAX - 20) + secret + b"." * SLICE_BYTES_MAX
    released, findings, _ = _run(scanner, [text])
    assert [one.offset for one in findings] == [SLICE_BYTES_MAX - 20]
    assert text.startswith(released)
    assert len(released) <= SLICE_BYTES_MAX - 20
    clean = b"." * (3 * SLICE_BYTES_MAX + 1)
    assert _run(scanner, [clean])[0] == clean


@pytest.mark.parametrize("window_bytes", [0, 1_100])
def test_more_than_can_be_looked_at_is_refused(key: bytes, window_bytes: int) -> None:
    dull = rule_from_policy("dull", "a{4}b", Severity.INFO)
    policy = StreamPolicy(threshold=Severity.ERROR, window_bytes=window_bytes)
    scanner = SecretScanner([dull], key)
    for text in (b"aaaab" * 3_000, b"aaaab" * (HITS_MAX + 5)):
        released, findings, _ = _run(scanner, [text], policy)
        assert released == b""
        assert findings[-1].rule == "too-many-findings"
        assert findings[-1].severity is Severity.CRITICAL


def test_more_findings_than_allowed_stop_the_body(key: bytes) -> None:
    quiet = rule_from_policy("quiet", "note-[0-9]{6}", Severity.INFO)
    policy = StreamPolicy(threshold=Severity.CRITICAL, findings_max=5)
    text = b" ".join(b"note-%06d" % number for number in range(20))
    released, findings, _ = _run(SecretScanner([quiet], key), [text], policy)
    assert released == b""
    assert [one.rule for one in findings] == ["quiet"] * 5 + ["too-many-findings"]


def test_the_same_secret_is_told_once(key: bytes) -> None:
    quiet = rule_from_policy("quiet", "note-[0-9]{6}", Severity.INFO)
    text = b"note-123456 " * 200
    released, findings, _ = _run(SecretScanner([quiet], key), [text], STOP)
    assert released == text
    assert len(findings) == 1


def test_closing_in_the_middle_releases_nothing(scanner: SecretScanner) -> None:
    scan = scanner.stream("body", policy=STOP)
    scan.feed(b"hello")
    scan.close()
    scan.close()
    assert scan.feed(b"more") == Release()
    assert scan.finish() == Release()


def test_an_empty_body_is_clean(scanner: SecretScanner) -> None:
    assert _run(scanner, [])[0] == b""
    assert _run(scanner, [b"", b""])[0] == b""


def test_memory_does_not_grow_with_the_body(scanner: SecretScanner) -> None:
    chunk = FILLER * 300
    with scanner.stream("body", policy=STOP) as scan:
        scan.feed(chunk)
        tracemalloc.start()
        try:
            for _ in range(300):
                scan.feed(chunk)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 4 * len(chunk)


@pytest.mark.parametrize("window_bytes", [-1, SLICE_BYTES_MAX + 1])
def test_a_window_out_of_range_is_refused(window_bytes: int) -> None:
    with pytest.raises(ConfigError, match="window_bytes"):
        StreamPolicy(window_bytes=window_bytes)


def test_a_cap_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="positive"):
        StreamPolicy(findings_max=0)
